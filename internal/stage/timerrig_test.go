package stage_test

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
	"sync"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/beam/window"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
	"trestle/internal/store/kv"
)

// failing is a test, of one example or of many.
type failing interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// scriptRig is the tasks of a stage of a streaming plan with a real connection to a harness that a script plays, and says
// what they tell and what the harness is given.
type scriptRig struct {
	t       failing
	plan    *plan.Plan
	stage   *plan.Stage
	harness stage.Harness
	dir     string
	store   *shuffle.Store
	cache   *kv.Cache
	whole   int             // stage.State.WholeKeys
	wanted  context.Context // stage.State.Context
	runs    int
	tasks   []stage.StreamingTask
	outs    []*scriptOut
	input   int64

	mu  sync.Mutex
	now time.Time // which a script moves as well (takes)
	log []string
}

const rigKeyGroups = 8

// newScriptRig makes tasks of the stage of the transform "work".
func newScriptRig(t failing, dir string, p *plan.Plan, harness stage.Harness, tasks, whole int) *scriptRig {
	t.Helper()
	r := &scriptRig{t: t, plan: p, harness: harness, dir: dir, whole: whole, cache: kv.NewCache(1 << 20), input: coder.MinTimestamp}
	r.store = shuffle.NewStore(dir, shuffle.NewBudget(64<<20))
	for _, s := range p.Stages {
		if slices.Contains(s.Transforms, "work") {
			r.stage = s
		}
	}
	r.open(tasks, nil)
	return r
}

func (r *scriptRig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *scriptRig) open(tasks int, restore []stage.Restore) {
	r.t.Helper()
	r.runs++
	r.tasks, r.outs = nil, nil
	for i := range tasks {
		out := &scriptOut{rig: r, task: i, told: coder.MinTimestamp, before: coder.MinTimestamp}
		made, err := stage.Open(stage.Spec{
			Plan: r.plan, Stage: r.stage, Index: i, Parallelism: tasks, KeyGroups: rigKeyGroups, Store: r.store, Harness: r.harness, Out: out,
			State:   stage.State{Directory: filepath.Join(r.dir, fmt.Sprintf("state-%d-%d", r.runs, i)), Cache: r.cache, WholeKeys: r.whole, Context: r.wanted},
			Restore: restore, Attempts: 1, Now: r.time, Log: slog.New(slog.DiscardHandler),
		})
		r.check(err)
		task, ok := made.(stage.StreamingTask)
		if !ok {
			r.t.Fatal("a task of a streaming plan takes no watermarks")
		}
		r.tasks, r.outs = append(r.tasks, task), append(r.outs, out)
	}
}

func (r *scriptRig) close() {
	for _, task := range r.tasks {
		r.check(task.Close())
	}
	r.tasks = nil
	r.cache.Close()
}

func (r *scriptRig) each(f func(stage.StreamingTask) error) {
	r.t.Helper()
	for _, task := range r.tasks {
		r.check(f(task))
	}
}

func (r *scriptRig) watermark(millis int64) {
	r.t.Helper()
	r.input = millis
	r.each(func(task stage.StreamingTask) error {
		return task.Watermark(context.Background(), stage.MainInput, millis)
	})
}

func (r *scriptRig) clock(millis int64) {
	r.t.Helper()
	now := time.UnixMilli(millis)
	r.mu.Lock()
	r.now = now
	r.mu.Unlock()
	r.each(func(task stage.StreamingTask) error { return task.Clock(context.Background(), now) })
}

func (r *scriptRig) time() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// takes has time pass of which nobody tells the tasks.
func (r *scriptRig) takes(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *scriptRig) flush() {
	r.t.Helper()
	r.each(func(task stage.StreamingTask) error { return task.Flush(context.Background()) })
}

func (r *scriptRig) drain() {
	r.t.Helper()
	r.each(func(task stage.StreamingTask) error { return task.Drain(context.Background()) })
}

// keyed brings records to the tasks that own their keys.
func (r *scriptRig) keyed(records []byte) {
	r.t.Helper()
	w, err := coder.CompileWindowed(r.plan.Coders(), r.stage.Input.Coder)
	r.check(err)
	p, err := shuffle.NewPartitioner(w, rigKeyGroups, func(keyGroup int, block []byte) error {
		return r.tasks[keyGroup*len(r.tasks)/rigKeyGroups].Process(context.Background(), stage.Delivery{KeyGroup: keyGroup}, block)
	})
	r.check(err)
	p.KeepPanes()
	r.check(p.Write(records))
	r.check(p.Flush())
}

// restore takes a snapshot, and goes on with new tasks from it, which are told the time.
func (r *scriptRig) restore(tasks int) {
	r.t.Helper()
	var all []stage.Restore
	for i, task := range r.tasks {
		dir := filepath.Join(r.dir, fmt.Sprintf("snapshot-%d-%d", r.runs, i))
		r.check(os.MkdirAll(dir, 0o700))
		r.check(task.Snapshot(context.Background(), uint64(r.runs), dir))
		r.check(stage.CheckKeys(dir, filepath.Join(r.dir, "looked-at"), r.cache))
		all = append(all, stage.Restore{Directory: dir, Index: i, Parallelism: len(r.tasks)})
	}
	for _, task := range r.tasks {
		r.check(task.Close())
	}
	r.open(tasks, all)
	if now := r.time(); !now.IsZero() {
		r.clock(now.UnixMilli())
	}
	if r.input > coder.MinTimestamp {
		r.watermark(r.input)
	}
}

func (r *scriptRig) say(f string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(f, args...))
}

// said is what was said since the last time.
func (r *scriptRig) said() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.log
	r.log = nil
	return all
}

// outcome is the same as text.
func (r *scriptRig) outcome() string {
	all := r.said()
	if len(all) == 0 {
		return "nothing\n"
	}
	return strings.Join(all, "\n") + "\n"
}

// scriptOut says what a task tells.
type scriptOut struct {
	rig   *scriptRig
	task  int
	told  int64
	quiet bool
	// before is the watermark that it had told before the last event.
	before int64
	wake   time.Time
}

func (o *scriptOut) say(f string, args ...any) {
	prefix := ""
	if len(o.rig.tasks) > 1 {
		prefix = fmt.Sprintf("%d: ", o.task)
	}
	o.rig.say(prefix+f, args...)
}

func (o *scriptOut) Emit(context.Context, int, int, []byte) error {
	return errors.New("nothing is put out")
}

func (o *scriptOut) Settle(context.Context, bool) error { return nil }

func (o *scriptOut) Metrics(infos []*pipepb.MonitoringInfo, _ bool) {
	for _, info := range infos {
		if info.GetUrn() == urn.MetricUserSumInt64 {
			n, _ := binary.Uvarint(info.GetPayload())
			o.say("%s %d", info.GetLabels()["NAME"], n)
		}
	}
}

// behind tells whether the watermark was past a time before the last event, and has not gone on since.
func (o *scriptOut) behind(millis int64) bool { return o.told > millis && o.told == o.before }

func (o *scriptOut) Quiet() { o.quiet = true; o.say("quiet") }

func (o *scriptOut) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	o.say("%s: %s", strings.TrimPrefix(importance.String(), "JOB_MESSAGE_"), text)
}

func (o *scriptOut) Watermark(_ context.Context, millis int64) error {
	o.told = millis
	o.say("watermark %s", millisText(millis))
	return nil
}

func (o *scriptOut) Readable(context.Context, uint64) error { return nil }

func (o *scriptOut) WakeAt(at time.Time) {
	o.wake = at
	if at.IsZero() {
		o.say("no wake-up")
		return
	}
	if part := at.Nanosecond() % 1e6; part != 0 {
		o.say("wake at %d.%06d", at.UnixMilli(), part)
		return
	}
	o.say("wake at %s", millisText(at.UnixMilli()))
}

func millisText(millis int64) string {
	switch millis {
	case coder.MaxTimestamp:
		return "end"
	case coder.MinTimestamp:
		return "start"
	}
	return fmt.Sprint(millis)
}

// oneHarness connects a harness that plays a script.
func oneHarness(t *testing.T, scripts map[string]sdk.Script) stage.Harness {
	t.Helper()
	pair, err := sdk.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	session, harness, err := pair.Connect(t.Context(), scripts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		harness.Close()
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(context.Context) (*fnapi.Session, error) { return session, nil }
}

func buildPlan(t failing, text string) *plan.Plan {
	t.Helper()
	p, err := plantest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	made, err := plan.Build(p, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// timerPlan is a stage with state, event-time timers of family t, processing-time timers of family c, and, if wanted, a callback
// at the end of windows.
func timerPlan(t failing, windows, options string) *plan.Plan {
	return buildPlan(t, fmt.Sprintf(`
env other
window mine %s
impulse start() > I
pardo source(I) > in:kv(string,string)@mine~ env=other
pardo work(in) > out:string@global state timers=both %s
pardo next(out) > end env=other
`, windows, options))
}

// timerFn is a DoFn whose elements and timers' tags are what it does: statements with semicolons between them.
//
//	t.TAG@AT[/HOLD]   sets a timer of family t (event time) or c (processing time); its output timestamp is HOLD, or AT
//	-t.TAG            clears it
//	+WORD             adds to the key's state, which "?" has said
//	every:N:until:M   as a timer's tag: the timer is set again N later, up to M
type timerFn struct{ rig *scriptRig }

func (f *timerFn) script(b *sdk.Bundle) error {
	var did []string
	err := b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value)
		if err != nil {
			return err
		}
		did = append(did, fmt.Sprintf("%s gets %s@%d", s[0], s[1], e.Timestamp))
		said, err := f.run(b, s[0], e.Windows, s[1], "", 0)
		did = append(did, said...)
		return err
	})
	if err != nil {
		return err
	}
	for _, fired := range b.Fired() {
		for data := fired.Data; len(data) > 0; {
			t, rest, err := cutFired(data, fired.Family)
			if err != nil {
				return err
			}
			data = rest
			did = append(did, fmt.Sprintf("%s: %s.%s fires @%d", t.key, t.family, t.tag, t.fires))
			said, err := f.run(b, t.key, t.window, t.tag, t.family, t.fires)
			if err != nil {
				return err
			}
			did = append(did, said...)
		}
	}
	f.rig.say("bundle: %s", strings.Join(did, ", "))
	return nil
}

// firedTimer is a timer that a bundle fires, or one that is to be set.
type firedTimer struct {
	key, family, tag string
	window           []byte
	fires, hold      int64
}

func cutFired(b []byte, family string) (t firedTimer, rest []byte, err error) {
	t.family = family
	for _, field := range []*string{&t.key, &t.tag} {
		size, n := binary.Uvarint(b)
		if n <= 0 || int(size) > len(b)-n {
			return t, nil, errors.New("a timer is cut short")
		}
		*field, b = string(b[n:n+int(size)]), b[n+int(size):]
	}
	if len(b) < 4 || binary.BigEndian.Uint32(b) != 1 {
		return t, nil, errors.New("a timer in no window, or several")
	}
	b = b[4:]
	if b[0] > 1 { // no clear flag: an interval's first byte is of its time
		_, n, err := window.DecodeInterval(b)
		if err != nil {
			return t, nil, err
		}
		t.window, b = b[:n], b[n:]
	}
	if len(b) < 18 || b[0] != 0 {
		return t, nil, errors.New("a timer that fires is cut short, or cleared")
	}
	t.fires, t.hold = coder.Timestamp(b[1:]), coder.Timestamp(b[9:])
	_, n, err := coder.Pane(b[17:])
	return t, b[17+n:], err
}

func (t firedTimer) set(b *sdk.Bundle, clear bool) error {
	data := sdk.String(sdk.String(nil, t.key), t.tag)
	data = append(append(data, 0, 0, 0, 1), t.window...)
	if clear {
		data = append(data, 1)
	} else {
		data = coder.AppendTimestamp(coder.AppendTimestamp(append(data, 0), t.fires), t.hold)
		data = coder.AppendPane(data, coder.NoFiring)
	}
	return b.SetTimers(sdk.Timers{Transform: "work", Family: t.family, Data: data})
}

// statements takes a program apart: the timers that it sets and clears, in order.
func statements(program string) []string {
	return strings.FieldsFunc(program, func(c rune) bool { return c == ';' })
}

// parseSet reads FAMILY.TAG@AT[/HOLD].
func parseSet(s string) (t firedTimer, ok bool) {
	name, at, ok := strings.Cut(s, "@")
	if !ok {
		return t, false
	}
	t.family, t.tag, _ = strings.Cut(name, ".")
	when, hold, held := strings.Cut(at, "/")
	if _, err := fmt.Sscan(when, &t.fires); err != nil {
		return t, false
	}
	t.hold = t.fires
	if held {
		if _, err := fmt.Sscan(hold, &t.hold); err != nil {
			return t, false
		}
	}
	return t, true
}

// again is when a timer of a tag is set again that fires; ok is false when it is not.
func again(tag string, fires int64) (at int64, ok bool) {
	var step, until int64
	if _, err := fmt.Sscanf(tag, "every:%d:until:%d", &step, &until); err != nil || fires+step > until {
		return 0, false
	}
	return fires + step, true
}

// run does what a program says for a key and window; of one that is a timer's tag, the timer is known.
func (f *timerFn) run(b *sdk.Bundle, key string, w []byte, program, family string, fires int64) (said []string, err error) {
	if at, ok := again(program, fires); ok && family != "" {
		return nil, firedTimer{key: key, family: family, tag: program, window: w, fires: at, hold: at}.set(b, false)
	}
	state := &fnpb.StateKey{Type: &fnpb.StateKey_BagUserState_{BagUserState: &fnpb.StateKey_BagUserState{
		TransformId: "work", UserStateId: "s", Window: w, Key: sdk.String(nil, key),
	}}}
	for _, s := range statements(program) {
		switch {
		case s == "?":
			data, _, err := b.Read(state)
			if err != nil {
				return nil, err
			}
			words, err := sdk.Strings(data)
			if err != nil {
				return nil, err
			}
			said = append(said, fmt.Sprintf("%s has %v", key, words))
		case s[0] == '+':
			if _, err := b.Ask(&fnpb.StateRequest{StateKey: state, Request: &fnpb.StateRequest_Append{
				Append: &fnpb.StateAppendRequest{Data: sdk.String(nil, s[1:])}}}); err != nil {
				return nil, err
			}
		case s[0] == '-':
			name, tag, _ := strings.Cut(s[1:], ".")
			if err := (firedTimer{key: key, family: name, tag: tag, window: w}).set(b, true); err != nil {
				return nil, err
			}
		default:
			if t, ok := parseSet(s); ok {
				t.key, t.window = key, w
				if err := t.set(b, false); err != nil {
					return nil, err
				}
			}
		}
	}
	return said, nil
}
