package streaming

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/metric"
	"trestle/internal/beam/urn"
	"trestle/internal/beam/window"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
	"trestle/internal/store/kv"
	"trestle/test/leaks"
)

// counting is a job of all that a snapshot may have: an impulse, a splittable DoFn that counts without end, state that has
// how often a key came, timers, and groups of what both put out, in windows.
const counting = `
env other
window fixed fn=fixed
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > pair:kv(string,string)~ restriction=string env=other
pardo count(pair) > out:kv(string,string)@fixed state timers
gbk group(out) > grouped
pardo last(grouped) > end:string@global env=other
`

const (
	sources   = 5 // elements of the splittable DoFn
	keys      = 7 // of each source
	perBundle = 10
	size      = 10 // of windows
	timerOf   = 5  // one in so many counts sets a timer
	timerFor  = 17 // after so many milliseconds
)

// rig is a job's surroundings, which stay when it is restarted.
type rig struct {
	t         *testing.T
	snapshots string
	worked    atomic.Int32 // how many bundles the splittable DoFn was given
	came      atomic.Int32 // how many panes came out
	sources   atomic.Int32 // how often the source was asked for its elements
	requires  []string     // requirements of the pipeline
	pipeline  string
	restored  bool // the job goes on from a snapshot
	limit     int  // where the positions of a source end; without end when it is 0
	trouble   *trouble
	clock     clockOf
	// cutAfterPanes is how many panes more until has come out before it cuts the job off.
	cutAfterPanes int
	wanted        context.Context // stage.State.Context
	wholeKeys     int             // stage.State.WholeKeys
	// global has the groups in the global window, in many panes.
	global bool
	// shared is not nil in a job whose tasks share one restriction, instead of that which counts.
	shared *shared

	mu      sync.Mutex
	panes   map[string]string // what came out, by key and window, or by the pane's number
	log     *os.File          // gets the same, if it is not nil
	finals  []string          // bundles that were finalized
	metrics metric.Set
	// attempted is what a server would know that was there since the first run, or that began with the job's last snapshot.
	attempted metric.Set
	messages  []string
}

func newRig(t *testing.T) *rig {
	t.Cleanup(func() { leaks.None(t) })
	return &rig{t: t, snapshots: t.TempDir(), pipeline: counting, panes: map[string]string{}}
}

// clockOf is a job's clock, which may be faster than the world's.
type clockOf struct {
	mu       sync.Mutex
	times    int // how much faster; 0 stands for once
	at, read time.Time
}

func (c *clockOf) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.at.IsZero() {
		c.at, c.read = now, now
	}
	c.at, c.read = c.at.Add(now.Sub(c.read)*time.Duration(max(c.times, 1))), now
	return c.at
}

func (c *clockOf) faster(times int) {
	c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times = times
}

// running is a job under way, or one that could not be opened.
type running struct {
	rig      *rig
	job      *Job
	draining chan struct{}
	end      func() // closes the surroundings
}

// config is what of a job's configuration is not of one run of it.
func (r *rig) config(parallelism int) Config {
	pipeline, err := plantest.Parse(r.pipeline)
	if err != nil {
		r.t.Fatal(err)
	}
	pipeline.Requirements = append(pipeline.Requirements, r.requires...)
	planned, err := plan.Build(pipeline, plan.Options{Streaming: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return Config{
		Plan: planned, Parallelism: parallelism, KeyGroups: 16,
		Failed: func() {},
		Message: func(_ jobpb.JobMessage_MessageImportance, text string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.messages = append(r.messages, text)
		},
		Metrics: func(infos []*pipepb.MonitoringInfo, counts bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if err := r.attempted.Add(infos); err != nil {
				r.t.Error(err)
			}
			if !counts {
				return
			}
			if err := r.metrics.Add(infos); err != nil {
				r.t.Error(err)
			}
		},
		Attempted: func() ([]*pipepb.MonitoringInfo, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.attempted.Snapshot(), nil
		},
		Snapshots: r.snapshots, SnapshotEvery: 5 * time.Millisecond,
		Now: r.clock.now, Log: slog.New(slog.DiscardHandler),
	}
}

// open opens the job anew; its error is Open's.
func (r *rig) open(parallelism int) (*running, error) {
	t := r.t
	t.Helper()
	pair, err := sdk.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	source, work := r.source, r.work
	if r.shared != nil {
		source, work = r.shared.source, r.shared.work
	}
	session, harness, err := pair.Connect(ctx, map[string]sdk.Script{
		"source": r.trouble.with(source), "work": r.trouble.with(work), "count": r.trouble.with(r.count), "last": r.trouble.with(r.groups),
	})
	if err != nil {
		t.Fatal(err)
	}
	store := shuffle.NewStore(t.TempDir(), shuffle.NewBudget(64<<20))
	cache := kv.NewCache(1 << 20)
	run := &running{rig: r, draining: make(chan struct{})}
	run.end = func() {
		session.Close(nil)
		harness.Close()
		r.mu.Lock()
		r.finals = append(r.finals, harness.Finalized()...)
		r.mu.Unlock()
		if err := errors.Join(pair.Close(), store.Close()); err != nil {
			t.Error(err)
		}
		cache.Close()
	}
	r.mu.Lock()
	r.metrics = metric.Set{}
	r.mu.Unlock()
	cfg := r.config(parallelism)
	cfg.Store, cfg.Draining = store, run.draining
	cfg.State = stage.State{Directory: t.TempDir(), Cache: cache, Context: r.wanted, WholeKeys: r.wholeKeys}
	cfg.Harness = func(string, int) stage.Harness {
		return func(context.Context) (*fnapi.Session, error) { return session, nil }
	}
	if r.trouble != nil {
		cfg.Attempts = 1000
	}
	if r.shared != nil {
		cfg.SnapshotEvery = r.shared.every
	}
	run.job, err = Open(cfg)
	if err != nil {
		run.end()
		return nil, err
	}
	r.restored = run.job.from != nil
	before, err := run.job.Metrics()
	if err == nil {
		err = r.metrics.Add(before)
	}
	if err == nil && r.attempted.Len() == 0 {
		var tried []*pipepb.MonitoringInfo
		if tried, err = run.job.Attempted(); err == nil {
			err = r.attempted.Add(tried)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return run, nil
}

// close closes the job and its surroundings.
func (run *running) close() {
	run.rig.t.Helper()
	if err := run.job.Close(); err != nil {
		run.rig.t.Error(err)
	}
	run.end()
}

// until runs the job until it has taken some snapshots, and cuts it off.
func (r *rig) until(parallelism int, snapshots int) {
	r.t.Helper()
	run, err := r.open(parallelism)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run.job.Run(ctx) }()
	before, _ := numbers(r.snapshots)
	r.await(ended, func() bool {
		now, err := numbers(r.snapshots)
		return err == nil && len(now) > 0 && now[0] >= uint64(snapshots)+first(before)
	})
	had := r.came.Load()
	r.await(ended, func() bool { return r.came.Load() >= had+int32(r.cutAfterPanes) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		r.t.Errorf("the job ended with %v", err)
	}
	run.close()
}

func first(numbers []uint64) uint64 {
	if len(numbers) == 0 {
		return 0
	}
	return numbers[0]
}

// drain runs the job until it has come past all that has come out before, also after the last snapshot, and to its end.
func (r *rig) drain(parallelism int) {
	r.t.Helper()
	run, err := r.open(parallelism)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	past := r.latestPane() + timerFor/size + 2
	ended := make(chan error, 1)
	go func() { ended <- run.job.Run(ctx) }()
	r.await(ended, func() bool { return r.latestPane() > past })
	close(run.draining)
	if err := <-ended; err != nil {
		r.t.Error(err)
	}
	run.close()
}

func (r *rig) await(ended <-chan error, so func() bool) {
	r.t.Helper()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(5 * time.Minute); !so(); {
		select {
		case <-ticker.C:
		case err := <-ended:
			r.t.Fatalf("the job ended with %v", err)
		case <-deadline:
			r.t.Fatal("it did not come about in time")
		}
	}
}

// sized is an element of the splittable DoFn, with the restriction that begins at a position.
func sized(source string, position int) []byte {
	b := coder.AppendHeader(nil, coder.MinTimestamp, nil, coder.NoFiring)
	b = sdk.String(sdk.String(b, source), strconv.Itoa(position))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}

func (r *rig) source(b *sdk.Bundle) error {
	return b.Each(func(sdk.Element) error {
		r.sources.Add(1)
		if r.restored {
			r.t.Error("the impulse was taken again")
		}
		var all []byte
		for i := range sources {
			all = append(all, sized(fmt.Sprintf("s%d", i), 0)...)
		}
		return b.Write("work-sized", all)
	})
}

// work counts on from where a restriction begins, and gives the rest back. What it counts, it measures.
func (r *rig) work(b *sdk.Bundle) error {
	n := 0
	defer func() {
		b.Response.MonitoringInfos = append(b.Response.MonitoringInfos, &pipepb.MonitoringInfo{
			Urn: "test:positions", Type: urn.MetricTypeSumInt64, Payload: coderVarint(n),
		})
	}()
	if b.Descriptor.GetTransforms()["work"].GetSpec().GetUrn() == urn.SDFTruncateRestriction {
		return b.Each(func(e sdk.Element) error { return b.Write("work-truncated", e.Record) })
	}
	r.worked.Add(1)
	b.Response.RequiresFinalization = slices.Contains(r.requires, urn.RequirementFinalization)
	return b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value[:len(e.Value)-8])
		if err != nil {
			return err
		}
		position, err := strconv.Atoi(s[1])
		if err != nil {
			return err
		}
		var out []byte
		for range perBundle {
			out = coder.AppendHeader(out, int64(position), nil, coder.NoFiring)
			out = sdk.String(sdk.String(out, fmt.Sprintf("%s-%d", s[0], position%keys)), strconv.Itoa(position))
			position++
			n++
		}
		if r.limit > 0 && position >= r.limit {
			return b.Write("pair", out)
		}
		b.Response.ResidualRoots = append(b.Response.ResidualRoots, &fnpb.DelayedBundleApplication{
			Application: &fnpb.BundleApplication{
				TransformId: "work", InputId: "i0", Element: sized(s[0], position), IsBounded: pipepb.IsBounded_UNBOUNDED,
				OutputWatermarks: map[string]*timestamppb.Timestamp{"o0": timestamppb.New(time.UnixMilli(int64(position)))},
			},
			RequestedTimeDelay: durationpb.New(time.Millisecond),
		})
		return b.Write("pair", out)
	})
}

func coderVarint(n int) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// count puts out how often a key has come.
func (r *rig) count(b *sdk.Bundle) error {
	ask := func(q *fnpb.StateRequest) error {
		a, err := b.Ask(q)
		if err == nil && a.GetError() != "" {
			err = errors.New(a.GetError())
		}
		return err
	}
	if err := b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value)
		if err != nil {
			return err
		}
		key := &fnpb.StateKey{Type: &fnpb.StateKey_BagUserState_{BagUserState: &fnpb.StateKey_BagUserState{
			TransformId: "count", UserStateId: "s", Window: e.Windows, Key: sdk.String(nil, s[0]),
		}}}
		had, _, err := b.Read(key)
		if err != nil {
			return err
		}
		n := 0
		if len(had) > 0 {
			if n, err = strconv.Atoi(string(had)); err != nil {
				return err
			}
		}
		now := strconv.Itoa(n + 1)
		if err := errors.Join(
			ask(&fnpb.StateRequest{StateKey: key, Request: &fnpb.StateRequest_Clear{Clear: &fnpb.StateClearRequest{}}}),
			ask(&fnpb.StateRequest{StateKey: key, Request: &fnpb.StateRequest_Append{Append: &fnpb.StateAppendRequest{Data: []byte(now)}}}),
		); err != nil {
			return err
		}
		if (n+1)%timerOf == 0 {
			if err := b.SetTimers(timerAt(s[0], now, e.Timestamp+timerFor)); err != nil {
				return err
			}
		}
		return r.put(b, s[0], now, e.Timestamp)
	}); err != nil {
		return err
	}
	for _, fired := range b.Fired() {
		if err := eachTimer(fired.Data, func(key, tag string, fires int64) error {
			return r.put(b, key, "timer "+tag, fires)
		}); err != nil {
			return err
		}
	}
	return nil
}

// put puts a value of a key out.
func (r *rig) put(b *sdk.Bundle, key, value string, at int64) error {
	var windows []byte
	if start := at - at%size; !r.global {
		windows = window.AppendInterval(nil, window.Interval{Start: start, End: start + size})
	}
	out := coder.AppendHeader(nil, at, windows, coder.NoFiring)
	return b.Write("out", sdk.String(sdk.String(out, key), value))
}

// timerAt is a timer of the transform "count" in the global window.
func timerAt(key, tag string, fires int64) sdk.Timers {
	t := append(sdk.String(sdk.String(nil, key), tag), 0, 0, 0, 1, 0)
	t = coder.AppendTimestamp(coder.AppendTimestamp(t, fires), fires)
	return sdk.Timers{Transform: "count", Family: "t", Data: coder.AppendPane(t, coder.NoFiring)}
}

// eachTimer takes such timers apart.
func eachTimer(b []byte, f func(key, tag string, fires int64) error) error {
	for len(b) > 0 {
		var words [2]string
		for i := range words {
			size, n := binary.Uvarint(b)
			words[i], b = string(b[n:n+int(size)]), b[n+int(size):]
		}
		const rest = 5 + 2*coder.TimestampSize
		_, pane, err := coder.Pane(b[rest:])
		if err != nil {
			return err
		}
		if err := f(words[0], words[1], coder.Timestamp(b[5:])); err != nil {
			return err
		}
		b = b[rest+pane:]
	}
	return nil
}

// groups takes note of the groups.
func (r *rig) groups(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		g, err := e.Group()
		if err != nil {
			return err
		}
		slices.Sort(g.Values)
		of := fmt.Sprintf("%s@%d", g.Key, e.Timestamp/size)
		if r.global {
			of = fmt.Sprintf("%s@%d", g.Key, e.Pane.Index)
		}
		return r.pane(of, strings.Join(g.Values, ","))
	})
}

// latestPane is the number of the last window that has come out.
func (r *rig) latestPane() (latest int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for of := range r.panes {
		_, number, _ := strings.Cut(of, "@")
		if n, err := strconv.Atoi(number); err == nil {
			latest = max(latest, n)
		}
	}
	return latest
}

// pane takes note of a pane. One that was put out before is put out again as it was.
func (r *rig) pane(of, values string) error {
	r.came.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.panes[of]; ok && was != values {
		return fmt.Errorf("the pane of %s was %s, and is %s", of, was, values)
	}
	r.panes[of] = values
	if r.log == nil {
		return nil
	}
	_, err := fmt.Fprintf(r.log, "%s:%s\n", of, values)
	return err
}

// exact looks whether each position that was counted has had its effect once, whatever happened to the job meanwhile, and
// whether its metrics say the same.
func (r *rig) exact() {
	r.t.Helper()
	counted, timers := map[string][]string{}, map[string][]string{}
	for of, values := range r.panes {
		key, _, _ := strings.Cut(of, "@")
		for _, v := range strings.Split(values, ",") {
			if tag, ok := strings.CutPrefix(v, "timer "); ok {
				timers[key] = append(timers[key], tag)
			} else {
				counted[key] = append(counted[key], v)
			}
		}
	}
	all := 0
	for i := range sources {
		positions := 0
		var counts [keys]int
		for k := range keys {
			key := fmt.Sprintf("s%d-%d", i, k)
			counts[k] = len(counted[key])
			positions += counts[k]
			r.upTo(key, counted[key], 1)
			r.upTo(key+" (timers)", timers[key], timerOf)
			if want := counts[k] / timerOf; len(timers[key]) != want {
				r.t.Errorf("%s: %d timers fired, should be %d", key, len(timers[key]), want)
			}
		}
		for k, n := range counts {
			if want := (positions + keys - 1 - k) / keys; n != want {
				r.t.Errorf("source %d: key %d came %d times of %d, should be %d", i, k, n, positions, want)
			}
		}
		if positions == 0 || positions%perBundle != 0 || r.limit > 0 && positions != r.limit {
			r.t.Errorf("source %d came to %d positions", i, positions)
		}
		all += positions
	}
	r.t.Logf("%d positions", all)
	if got := measuredPositions(&r.metrics); got != uint64(all) {
		r.t.Errorf("measured %d positions, there are %d", got, all)
	}
	if got := measuredPositions(&r.attempted); got < uint64(all) {
		r.t.Errorf("attempted %d positions, there are %d", got, all)
	} else {
		r.t.Logf("attempted %d positions", got)
	}
}

// upTo looks whether values are the multiples of a step, each once.
func (r *rig) upTo(what string, values []string, step int) {
	r.t.Helper()
	left := map[string]bool{}
	for n := range values {
		left[strconv.Itoa((n+1)*step)] = true
	}
	for _, v := range values {
		if !left[v] {
			r.t.Errorf("%s: %s of %d is there twice, or has none before it", what, v, len(values))
		}
		delete(left, v)
	}
}

// measuredPositions is how many positions have been measured.
func measuredPositions(set *metric.Set) (n uint64) {
	for _, info := range set.Snapshot() {
		if info.GetUrn() == "test:positions" {
			n, _ = binary.Uvarint(info.GetPayload())
		}
	}
	return n
}
