package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// TestSideInputScenarios holds what becomes of elements and side inputs, event by event, against what is written down. All is
// real but the harness: it says what it is given, and what it can read of the side input.
//
//	stage side=OPTIONS main=OPTIONS [map=MS] [same] [multimap] [tasks=N]   a stage; options as package plantest has them, joined by "+";
//	                                                     map is by how much a window of the side input ends before one that reads it;
//	                                                     with "same" it is the same, and nobody is asked
//	side                                                 elements come on the side input: START-END TIMESTAMP VALUE
//	main [task=N]                                        elements come on the main input: START-END[,START-END] TIMESTAMP VALUE
//	watermark side|main AT [task=N]                      of the side input: for the first task, then the others
//	sides FROM N [both]                                  an element for each of N windows from FROM on, and the watermark behind
//	                                                     each: that of the main input, too, with "both"
//	kept                                                 how many windows of the side input can be read
//	clock AT, flush, restore [tasks=N]
//
// Windows are written START-END, the global one "*".
func TestSideInputScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/sides", func(t *testing.T, path string) {
		var r *sideRig
		defer func() {
			if r != nil {
				r.close()
			}
		}()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "stage" {
				if r != nil {
					r.close()
					r = nil
				}
				r = newSideRig(t, sideOptions(t, d))
				return ""
			}
			r.t = t
			return r.event(d)
		})
	})
}

type sideSetup struct {
	side, main string // window options
	lookback   int64
	multimap   bool
	same       bool
	tasks      int
}

func sideOptions(t *testing.T, d *datadriven.TestData) sideSetup {
	s := sideSetup{tasks: 1, multimap: d.HasArg("multimap"), same: d.HasArg("same")}
	d.ScanArgs(t, "side", &s.side)
	d.ScanArgs(t, "main", &s.main)
	d.MaybeScanArgs(t, "map", &s.lookback)
	d.MaybeScanArgs(t, "tasks", &s.tasks)
	s.side, s.main = strings.ReplaceAll(s.side, "+", " "), strings.ReplaceAll(s.main, "+", " ")
	return s
}

// failing is a test, of one example or of many.
type failing interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// sideRig is the tasks of a stage with a side input.
type sideRig struct {
	t        failing
	setup    sideSetup
	plan     *plan.Plan
	stage    *plan.Stage
	budget   *shuffle.Budget
	store    *shuffle.Store
	cache    *kv.Cache
	dir      string
	runs     int
	views    *Views
	tasks    []*task
	runners  []*sideRunner
	log      []string
	versions []uint64
	at       map[int]int64 // watermarks, by input
	now      time.Time
}

func newSideRig(t *testing.T, s sideSetup) *sideRig {
	t.Helper()
	r := &sideRig{t: t, setup: s, dir: t.TempDir(), budget: shuffle.NewBudget(64 << 20), cache: kv.NewCache(1 << 20)}
	r.store = shuffle.NewStore(t.TempDir(), r.budget)
	element, access := "string", ""
	if s.multimap {
		element, access = "kv(string,string)", "/multimap"
	}
	p, err := plantest.Parse(fmt.Sprintf(`
env other
window sided %s
window mains %s
impulse start() > I
pardo source(I) > in:string@mains~ env=other
pardo sides(I) > L:%s@sided~ env=other
pardo work(in, list=L%s) > out:string@mains
pardo next(out) > end env=other
`, s.side, s.main, element, access))
	if err != nil {
		t.Fatal(err)
	}
	if r.plan, err = plan.Build(p, plan.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, st := range r.plan.Stages {
		if slices.Contains(st.Transforms, "work") {
			r.stage = st
		}
	}
	r.open(nil)
	return r
}

func (r *sideRig) open(restore []Restore) {
	r.t.Helper()
	r.runs++
	r.at = map[int]int64{MainInput: coder.MinTimestamp, 1: coder.MinTimestamp}
	var err error
	if r.views, err = NewViews(r.plan, r.stage, r.store); err != nil {
		r.t.Fatal(err)
	}
	for i := range r.setup.tasks {
		spec := Spec{
			Plan: r.plan, Stage: r.stage, Index: i, Parallelism: r.setup.tasks, KeyGroups: 8, Store: r.store, Views: r.views,
			State:   State{Directory: filepath.Join(r.dir, fmt.Sprintf("state-%d-%d", r.runs, i)), Cache: r.cache},
			Restore: restore, BundleBytes: DefaultBundleBytes, Log: slog.New(slog.DiscardHandler),
		}
		out := &sideOutput{rig: r, task: i}
		spec.Out = out
		run := &sideRunner{rig: r, task: i}
		tk := &task{spec: spec, runner: run}
		tk.ctx, tk.cancel = context.WithCancelCause(context.Background())
		if tk.stream, err = newStream(spec); err != nil {
			r.t.Fatal(err)
		}
		tk.intake = newElements(spec, run)
		if err := r.views.attach(spec); err != nil {
			r.t.Fatal(err)
		}
		spec.Harness = nil
		if tk.stream.gate, err = newSideGate(spec, run, tk.stream.times.sides, r.setup); err != nil {
			r.t.Fatal(err)
		}
		tk.stream.look = true
		run.gate = tk.stream.gate
		r.tasks, r.runners = append(r.tasks, tk), append(r.runners, run)
	}
}

// newSideGate is newGate with a mapping of its own instead of an SDK's.
func newSideGate(s Spec, to admitted, watermarks []int64, setup sideSetup) (*gate, error) {
	stage := *s.Stage
	asked := stage.SideInputs[0].Mapping != nil
	stage.SideInputs = []plan.SideInput{stage.SideInputs[0]}
	stage.SideInputs[0].Mapping, stage.SideInputs[0].Same = nil, setup.same
	s.Stage = &stage
	g, err := newGate(s, to, watermarks)
	if err == nil && asked && !setup.same {
		g.windowed = true
		g.mappers[0] = fixedMapping(setup.lookback)
	}
	return g, err
}

// fixedMapping maps a window to the window of ten milliseconds that holds its last one, less the lookback.
type fixedMapping int64

func (m fixedMapping) windows(_ context.Context, asked [][]byte) ([][]byte, error) {
	var all [][]byte
	for _, w := range asked {
		at := coder.EndOfGlobalWindow
		if len(w) > 0 {
			i, _, err := window.DecodeInterval(w)
			if err != nil {
				return nil, err
			}
			at = i.End - 1
		}
		all = append(all, sideWindow(at-int64(m)))
	}
	return all, nil
}

func sideWindow(at int64) []byte {
	return window.AppendInterval(nil, window.Interval{Start: at - at%10, End: at - at%10 + 10})
}

func (r *sideRig) close() {
	r.t.Helper()
	for _, tk := range r.tasks {
		if err := tk.Close(); err != nil {
			r.t.Fatal(err)
		}
	}
	r.tasks, r.runners = nil, nil
	if err := r.views.Close(); err != nil {
		r.t.Fatal(err)
	}
	if used := r.budget.Used(); used != 0 {
		r.t.Fatalf("%d bytes are held after the end", used)
	}
}

// sideOutput says what a task tells.
type sideOutput struct {
	rig  *sideRig
	task int
}

func (o *sideOutput) say(f string, args ...any) {
	o.rig.log = append(o.rig.log, fmt.Sprintf("%d: ", o.task)+fmt.Sprintf(f, args...))
}

func (o *sideOutput) Emit(context.Context, int, int, []byte) error {
	return errors.New("nothing is emitted")
}
func (o *sideOutput) Settle(context.Context, bool) error     { return nil }
func (o *sideOutput) Metrics([]*pipepb.MonitoringInfo, bool) {}
func (o *sideOutput) Quiet()                                 { o.say("quiet") }
func (o *sideOutput) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	o.say("%s: %s", strings.TrimPrefix(importance.String(), "JOB_MESSAGE_"), text)
}

func (o *sideOutput) Watermark(_ context.Context, millis int64) error {
	o.say("watermark %s", timeOf(millis))
	return nil
}

func (o *sideOutput) Readable(_ context.Context, version uint64) error {
	o.say("readable, version %d", version)
	o.rig.versions = append(o.rig.versions, version)
	return nil
}

func (o *sideOutput) WakeAt(at time.Time) {
	if at.IsZero() {
		o.say("no wake-up")
		return
	}
	o.say("wake at %v", at.Sub(time.UnixMilli(0)))
}

func timeOf(millis int64) string {
	if millis == coder.MaxTimestamp {
		return "end"
	}
	return fmt.Sprint(millis)
}

// sideRunner stands for the harness: it says what it is given, with what can be read of the side input.
type sideRunner struct {
	rig    *sideRig
	task   int
	gate   *gate
	frozen *frozenViews
	took   []string
}

func (s *sideRunner) process(ctx context.Context, records []byte) error {
	return s.gate.admit(ctx, records)
}
func (s *sideRunner) busy() bool                   { return s.frozen != nil }
func (s *sideRunner) finish(context.Context) error { return nil }
func (s *sideRunner) abandon() error               { return s.cut(context.Background()) }

func (s *sideRunner) cut(context.Context) error {
	if s.frozen != nil {
		s.rig.log = append(s.rig.log, fmt.Sprintf("%d: bundle: %s", s.task, strings.Join(s.took, ", ")))
		s.rig.views.release(s.frozen)
		s.frozen, s.took = nil, nil
	}
	return nil
}

func (s *sideRunner) take(_ context.Context, records []byte) error {
	if s.frozen == nil {
		s.frozen = s.rig.views.acquire()
	}
	for len(records) > 0 {
		h, size, err := s.gate.coder.Record(records)
		if err != nil {
			return err
		}
		value := string(records[h.Size+1 : size])
		if err := s.gate.each(&h, records, func(w []byte) (bool, error) {
			reads := s.gate.admission(w).reads[0]
			data, err := s.read(reads)
			s.took = append(s.took, fmt.Sprintf("%s@%d in %s reads %s of %s", value, h.Timestamp, windowOf(w), data, windowOf(reads)))
			return true, err
		}); err != nil {
			return err
		}
		records = records[size:]
	}
	return nil
}

// read reads all of a window, of a multimap key by key.
func (s *sideRunner) read(w []byte) (string, error) {
	work := func(token []byte, key *fnpb.StateKey) (all []string, err error) {
		for {
			answer, err := s.frozen.read(0, key, token)
			if err != nil {
				return nil, err
			}
			for data := answer.GetData(); len(data) > 0; {
				part, rest, ok := cutPart(data)
				if !ok {
					return nil, errors.New("a value is cut short")
				}
				all, data = append(all, string(part)), rest
			}
			if token = answer.GetContinuationToken(); token == nil {
				return all, nil
			}
		}
	}
	if !s.rig.setup.multimap {
		all, err := work(nil, &fnpb.StateKey{Type: &fnpb.StateKey_IterableSideInput_{IterableSideInput: &fnpb.StateKey_IterableSideInput{Window: w}}})
		return fmt.Sprint(all), err
	}
	keys, err := work(nil, &fnpb.StateKey{Type: &fnpb.StateKey_MultimapKeysSideInput_{MultimapKeysSideInput: &fnpb.StateKey_MultimapKeysSideInput{Window: w}}})
	if err != nil {
		return "", err
	}
	var all []string
	for _, key := range keys {
		values, err := work(nil, &fnpb.StateKey{Type: &fnpb.StateKey_MultimapSideInput_{MultimapSideInput: &fnpb.StateKey_MultimapSideInput{
			Window: w, Key: appendPart(nil, []byte(key)),
		}}})
		if err != nil {
			return "", err
		}
		all = append(all, key+"="+strings.Join(values, "+"))
	}
	return fmt.Sprint(all), nil
}

func windowOf(w []byte) string {
	if len(w) == 0 {
		return "*"
	}
	i, _, err := window.DecodeInterval(w)
	if err != nil {
		return fmt.Sprintf("%x", w)
	}
	return fmt.Sprintf("%d-%d", i.Start, i.End)
}

// sideRecord is a record in windows as the scenarios write them.
func sideRecord(windows string, timestamp int64, value string) ([]byte, error) {
	b := coder.AppendTimestamp(nil, timestamp)
	all := strings.Split(windows, ",")
	b = binary.BigEndian.AppendUint32(b, uint32(len(all)))
	for _, text := range all {
		if text == "*" {
			continue
		}
		var i window.Interval
		if _, err := fmt.Sscanf(text, "%d-%d", &i.Start, &i.End); err != nil {
			return nil, fmt.Errorf("window %q: %w", text, err)
		}
		b = window.AppendInterval(b, i)
	}
	b = coder.AppendPane(b, coder.NoFiring)
	for _, part := range strings.Split(value, "=") {
		b = appendPart(b, []byte(part))
	}
	return b, nil
}

func sideRecords(text string) (all []byte, err error) {
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var windows, value string
		var at int64
		if _, err := fmt.Sscan(line, &windows, &at, &value); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		b, err := sideRecord(windows, at, value)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

// event has an event happen, and says what follows.
func (r *sideRig) event(d *datadriven.TestData) string {
	n := 0
	d.MaybeScanArgs(r.t.(*testing.T), "task", &n)
	switch d.Cmd {
	case "side", "main":
		records, err := sideRecords(d.Input)
		if err != nil {
			r.t.Fatal(err)
		}
		input := map[string]int{"side": 1, "main": MainInput}[d.Cmd]
		r.process(n, input, records)
	case "watermark":
		at := coder.MaxTimestamp
		if text := d.CmdArgs[1].Key; text != "end" {
			fmt.Sscan(text, &at)
		}
		if d.CmdArgs[0].Key == "side" {
			r.sideWatermark(at)
		} else if d.HasArg("task") {
			r.check(r.tasks[n].Watermark(context.Background(), MainInput, at))
		} else {
			for _, tk := range r.tasks {
				r.check(tk.Watermark(context.Background(), MainInput, at))
			}
		}
	case "clock":
		var at int64
		fmt.Sscan(d.CmdArgs[0].Key, &at)
		r.clock(at)
	case "flush":
		r.flush()
	case "sides":
		r.sides(d)
	case "kept":
		r.log = append(r.log, fmt.Sprintf("%d windows of the side input", r.kept()))
	case "restore":
		d.MaybeScanArgs(r.t.(*testing.T), "tasks", &r.setup.tasks)
		r.restore()
	default:
		r.t.Fatalf("no event %q", d.Cmd)
	}
	out := strings.Join(r.log, "\n")
	r.log = nil
	if out == "" {
		return "nothing\n"
	}
	return out + "\n"
}

// sides brings an element for each of so many windows, and the watermark behind each.
func (r *sideRig) sides(d *datadriven.TestData) {
	var from, n int64
	fmt.Sscan(d.CmdArgs[0].Key, &from)
	fmt.Sscan(d.CmdArgs[1].Key, &n)
	for start := from; start < from+10*n; start += 10 {
		record, err := sideRecord(fmt.Sprintf("%d-%d", start, start+10), start, fmt.Sprint("s", start))
		r.check(err)
		r.process(0, 1, record)
		r.sideWatermark(start + 10)
		if d.HasArg("both") {
			for _, tk := range r.tasks {
				r.check(tk.Watermark(context.Background(), MainInput, start+10))
			}
		}
	}
	r.log = nil // it is about what is kept
}

// kept is how many windows of the side input can be read.
func (r *sideRig) kept() (n int) {
	l := r.views.live
	if !l.opened() {
		return 0
	}
	prefix := l.at(0, kindShown)
	r.check(l.over.Scan(prefix, after(prefix), func([]byte, []byte) (bool, error) {
		n++
		return true, nil
	}))
	return n
}

func (r *sideRig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *sideRig) process(n, input int, records []byte) {
	r.t.Helper()
	r.check(r.tasks[n].Process(context.Background(), Delivery{Input: input}, records))
	r.spread()
}

// spread brings what the first task has told to the others, as an engine does.
func (r *sideRig) spread() {
	r.t.Helper()
	for _, version := range r.versions {
		for _, tk := range r.tasks[1:] {
			r.check(tk.Readable(context.Background(), version))
		}
	}
	r.versions = nil
}

func (r *sideRig) sideWatermark(at int64) {
	r.t.Helper()
	r.check(r.tasks[0].Watermark(context.Background(), 1, at))
	r.spread()
	for _, tk := range r.tasks[1:] {
		r.check(tk.Watermark(context.Background(), 1, at))
	}
}

func (r *sideRig) clock(at int64) {
	r.t.Helper()
	r.now = time.UnixMilli(at)
	for _, tk := range r.tasks {
		r.check(tk.Clock(context.Background(), r.now))
		r.spread()
	}
}

func (r *sideRig) flush() {
	r.t.Helper()
	for _, tk := range r.tasks {
		r.check(tk.Flush(context.Background()))
	}
}

// restore takes a snapshot, and goes on with new tasks from it.
func (r *sideRig) restore() {
	r.t.Helper()
	var all []Restore
	for i, tk := range r.tasks {
		dir := filepath.Join(r.dir, fmt.Sprintf("snapshot-%d-%d", r.runs, i))
		r.check(os.MkdirAll(dir, 0o700))
		r.check(tk.Snapshot(context.Background(), uint64(r.runs), dir))
		all = append(all, Restore{Directory: dir, Index: i, Parallelism: len(r.tasks)})
	}
	now := r.now
	r.close()
	r.open(all)
	if !now.IsZero() {
		r.clock(now.UnixMilli())
	}
}
