package stagetest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trestle/internal/beam/coder"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// keptStream is a stage of a streaming plan whose first transform keeps state.
func keptStream(window, options string) string {
	return strings.Replace(keeper(window, options), "in:kv(string,string)@"+window, "in:kv(string,string)@"+window+"~", 1)
}

// paneStream is a stage of a streaming plan that groups.
const paneStream = `
env other
window fixed fn=fixed
window counted trigger=repeat(count)
window delayed trigger=delay
window sessions fn=sessions
impulse start() > I
pardo source(I) > in:kv(string,string)@WINDOW~ env=other
gbk group(in) > grouped
pardo work(grouped) > out:string@global
pardo next(out) > end env=other
`

var streamingCases = []testCase{
	{"a watermark passes when nothing holds it, and never goes back", watermarkPasses},
	{"a bundle under way holds the watermark until it is flushed", bundleHolds},
	{"an event-time timer holds the watermark, and fires when the watermark is past it", eventTimerHolds},
	{"of several timers of a key that are due none is left behind, whatever is set for later", severalTimersDue},
	{"a processing-time timer wakes the task, and fires when it is time", processingTimerWakes},
	{"a timer that is set for a time that has come fires at once", timerDueAtOnce},
	{"at the end of input a task is quiet when its last timer has fired", quietAfterTimers},
	{"a window that is over at the end of input takes its processing-time timers along", windowTakesTimers},
	{"drained, a task waits for no clock", drainedTimers},
	{"what is kept of a window goes when it is over, and who comes later is dropped", windowIsOver},
	{"a group goes out when its window is over", paneOnTime},
	{"a group goes out in panes, as its trigger says", panesByCount},
	{"a group goes out when its trigger's time has come", paneByClock},
	{"sessions merge as they come", sessionsInStream},
	{"a snapshot has state and timers, for tasks of any number", snapshotOfState},
	{"a snapshot has groups", snapshotOfGroups},
	{"a snapshot has what a splittable DoFn has put off, for tasks of any number", snapshotOfResiduals},
	{"an impulse that has fired does not fire again", snapshotOfImpulse},
	{"who begins with a snapshot drops what comes too late, before any watermark", snapshotOfTime},
}

func (r *rig) streaming(i int) stage.StreamingTask {
	r.t.Helper()
	task, ok := r.tasks[i].(stage.StreamingTask)
	if !ok {
		r.t.Fatal("a task of a streaming plan takes no watermarks")
	}
	return task
}

func (r *rig) watermark(millis int64) {
	r.t.Helper()
	for i := range r.tasks {
		if err := r.streaming(i).Watermark(r.ctx, stage.MainInput, millis); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) clock(millis int64) {
	r.t.Helper()
	for i := range r.tasks {
		if err := r.streaming(i).Clock(r.ctx, time.UnixMilli(millis)); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) flush() {
	r.t.Helper()
	for i := range r.tasks {
		if err := r.streaming(i).Flush(r.ctx); err != nil {
			r.t.Fatal(err)
		}
	}
}

// told is the watermark that the first task has told last.
func (r *rig) told(want int64) {
	r.t.Helper()
	got := coder.MinTimestamp
	if w := r.outputs[0].watermarks; len(w) > 0 {
		got = w[len(w)-1]
	}
	if got != want {
		r.t.Errorf("the output watermark is %d, should be %d", got, want)
	}
}

func (r *rig) quiet(want bool) {
	r.t.Helper()
	for _, o := range r.outputs {
		if o.quiet != want {
			r.t.Errorf("quiet: %t, should be %t", o.quiet, want)
		}
	}
}

func watermarkPasses(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keptStream("global", "state"), script: remembering})
	r.watermark(5)
	r.told(5)
	r.watermark(5)
	r.watermark(7)
	r.told(7)
	if err := r.streaming(0).Watermark(r.ctx, stage.MainInput, 6); err == nil || !strings.Contains(err.Error(), "watermark") {
		t.Errorf("a watermark that goes back: %v", err)
	}
}

func bundleHolds(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keptStream("global", "state"), script: remembering})
	r.watermark(5)
	r.group(pairs("a=1"))
	r.watermark(8)
	r.told(5)
	r.want("")
	r.flush()
	r.told(8)
	r.want("a:1")
	r.group(pairs("a=2"))
	r.flush()
	r.want("a:1 a:1,2")
	r.watermark(coder.MaxTimestamp)
	r.told(coder.MaxTimestamp)
	r.quiet(true)
}

// putOut puts out what fires.
func putOut(b *sdk.Bundle, t timer) error {
	return b.Write("out", record(nil, t.fires, fmt.Sprint(t.key, "@", t.fires)))
}

func eventTimerHolds(t *testing.T, open Open) {
	h := &history{onTimer: putOut, onElement: func(b *sdk.Bundle, e sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: e.Timestamp + 10}))
	}}
	r := start(t, open, setup{pipeline: keptStream("global", "timers"), script: h.script})
	r.group(record(record(nil, 1, "a", "x"), 2, "b", "x"))
	r.flush()
	r.watermark(5)
	r.told(5)
	r.watermark(11)
	r.told(11)
	r.want("")
	r.watermark(12)
	r.told(12)
	r.want("a@11")
	r.watermark(100)
	r.told(100)
	r.want("a@11 b@12")
	r.watermark(coder.MaxTimestamp)
	r.quiet(true)
}

func severalTimersDue(t *testing.T, open Open) {
	h := &history{onTimer: putOut, onElement: func(b *sdk.Bundle, _ sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, tag: "1", fires: 10}, timer{key: key, tag: "2", fires: 11}, timer{key: key, tag: "3", fires: 100}))
	}}
	r := start(t, open, setup{pipeline: keptStream("global", "timers"), script: h.script})
	r.group(pairs("a=x"))
	r.watermark(50)
	r.flush()
	r.want("a@10 a@11")
	r.told(50)
	r.watermark(coder.MaxTimestamp)
	r.want("a@10 a@11 a@100")
	r.quiet(true)
}

func processingTimerWakes(t *testing.T, open Open) {
	h := &history{onTimer: putOut, onElement: func(b *sdk.Bundle, e sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: 1000}))
	}}
	r := start(t, open, setup{pipeline: keptStream("global", "timers=processing"), script: h.script})
	r.clock(500)
	r.group(pairs("a=x"))
	r.flush()
	if at := r.outputs[0].wake; !at.Equal(time.UnixMilli(1000)) {
		t.Errorf("woken at %v", at)
	}
	r.clock(999)
	r.want("")
	r.clock(1000)
	r.want("a@1000")
	if at := r.outputs[0].wake; !at.IsZero() {
		t.Errorf("woken at %v, with no timer left", at)
	}
}

func timerDueAtOnce(t *testing.T, open Open) {
	for _, domain := range []string{"timers", "timers=processing"} {
		h := &history{onTimer: putOut, onElement: func(b *sdk.Bundle, e sdk.Element, key, _ string) error {
			return b.SetTimers(timersOf(timer{key: key, fires: 5}))
		}}
		r := start(t, open, setup{pipeline: keptStream("global", domain), script: h.script})
		r.clock(10)
		r.watermark(10)
		r.group(pairs("a=x"))
		r.flush()
		r.want("a@5")
		r.told(10)
	}
}

func quietAfterTimers(t *testing.T, open Open) {
	h := &history{onTimer: putOut, onElement: func(b *sdk.Bundle, e sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: 1000}))
	}}
	r := start(t, open, setup{pipeline: keptStream("global", "timers=processing"), script: h.script})
	r.clock(500)
	r.group(pairs("a=x"))
	r.watermark(coder.MaxTimestamp)
	r.quiet(false)
	r.told(1000) // the timer's output timestamp
	r.clock(2000)
	r.want("a@1000")
	r.told(coder.MaxTimestamp)
	r.quiet(true)
}

func windowTakesTimers(t *testing.T, open Open) {
	h := &history{windowSize: len(interval(0, 10)), onTimer: putOut, onElement: func(b *sdk.Bundle, e sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: 1000, window: e.Windows}))
	}}
	r := start(t, open, setup{pipeline: keptStream("fixed", "timers=processing"), script: h.script})
	r.clock(500)
	r.group(windowedRecord(nil, 1, interval(0, 10), "a", "x"))
	r.watermark(9)
	r.quiet(false)
	r.watermark(coder.MaxTimestamp)
	r.quiet(true)
	r.clock(2000)
	r.want("")
}

func drainedTimers(t *testing.T, open Open) {
	h := &history{onTimer: putOut, onElement: func(b *sdk.Bundle, e sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: 1000}))
	}}
	r := start(t, open, setup{pipeline: keptStream("global", "timers=processing"), script: h.script})
	r.clock(500)
	r.group(pairs("a=x"))
	if err := r.streaming(0).Drain(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.quiet(false)
	r.watermark(coder.MaxTimestamp)
	r.want("a@1000")
	r.quiet(true)
}

func windowIsOver(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keptStream("fixed", "state"), script: remembering})
	w := interval(0, 10)
	r.group(windowedRecord(nil, 1, w, "a", "1"))
	r.watermark(9)
	r.group(windowedRecord(nil, 2, w, "a", "2"))
	r.flush()
	r.want("a:1 a:1,2")
	r.watermark(10) // the window's last millisecond is 9
	r.group(windowedRecord(nil, 3, w, "a", "3"))
	r.flush()
	r.want("a:1 a:1,2")
	r.wantDropped("work", 1)
}

// panesOf puts out each pane as "key[values]timing".
func panesOf(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		g, err := e.Group()
		if err != nil {
			return err
		}
		slices.Sort(g.Values)
		return b.Write("out", record(nil, e.Timestamp, fmt.Sprintf("%s[%s]%d.%d", g.Key, strings.Join(g.Values, ","), e.Pane.Timing, e.Pane.Index)))
	})
}

func panedBy(window string) string { return strings.Replace(paneStream, "WINDOW", window, 1) }

func paneOnTime(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: panedBy("fixed"), script: panesOf})
	w := interval(0, 10)
	r.group(windowedRecord(windowedRecord(nil, 1, w, "a", "1"), 2, w, "b", "2"))
	r.watermark(5)
	r.group(windowedRecord(nil, 3, w, "a", "3"))
	r.watermark(9)
	r.flush()
	r.want("")
	r.told(9)
	r.watermark(10)
	r.flush()
	r.want("a[1,3]1.0 b[2]1.0")
	r.told(10)
	r.wantDropped("group", 0)
	r.group(windowedRecord(windowedRecord(nil, 4, w, "a", "4"), 5, w, "c", "5"))
	r.flush()
	r.want("a[1,3]1.0 b[2]1.0")
	r.wantDropped("group", 2)
	r.watermark(coder.MaxTimestamp)
	r.quiet(true)
}

func panesByCount(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: panedBy("counted"), script: panesOf})
	r.group(pairs("a=1 b=1 a=2"))
	r.flush()
	r.want("")
	r.group(pairs("a=3 a=4 b=2")) // the trigger counts to three
	r.flush()
	r.want("a[1,2,3]0.0")
	r.watermark(coder.MaxTimestamp)
	r.flush()
	r.want("a[1,2,3]0.0 a[4]1.1 b[1,2]1.0")
	r.quiet(true)
}

func paneByClock(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: panedBy("delayed"), script: panesOf})
	r.clock(100)
	r.group(pairs("a=1 a=2"))
	r.flush()
	if at := r.outputs[0].wake; !at.Equal(time.UnixMilli(5100)) { // the trigger waits for five seconds
		t.Errorf("woken at %v", at)
	}
	r.clock(5100)
	r.flush()
	r.want("a[1,2]0.0")
	r.group(pairs("a=3"))
	r.watermark(coder.MaxTimestamp)
	r.flush()
	r.want("a[1,2]0.0 a[3]1.1")
	r.quiet(true)
}

func sessionsInStream(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: panedBy("sessions"), script: panesOf})
	r.group(windowedRecord(nil, 0, interval(0, 10), "a", "1"))
	r.group(windowedRecord(nil, 15, interval(15, 25), "a", "2"))
	r.group(windowedRecord(nil, 8, interval(8, 18), "a", "3"))
	r.group(windowedRecord(nil, 40, interval(40, 50), "a", "4"))
	r.watermark(30)
	r.flush()
	r.want("a[1,2,3]1.0")
	r.watermark(coder.MaxTimestamp)
	r.flush()
	r.want("a[1,2,3]1.0 a[4]1.0")
	r.quiet(true)
}

// snapshots takes a snapshot of each task.
func (r *rig) snapshots() []stage.Restore {
	r.t.Helper()
	var all []stage.Restore
	for i := range r.tasks {
		dir := filepath.Join(r.t.TempDir(), fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			r.t.Fatal(err)
		}
		if err := r.streaming(i).Snapshot(r.ctx, 1, dir); err != nil {
			r.t.Fatal(err)
		}
		all = append(all, stage.Restore{Directory: dir, Index: i, Parallelism: len(r.tasks)})
	}
	return all
}

func snapshotOfState(t *testing.T, open Open) {
	script := func(b *sdk.Bundle) error {
		if err := remember(b, func(key, value string) error {
			if value != "1" {
				return nil
			}
			return b.SetTimers(timersOf(timer{key: key, fires: 50}))
		}); err != nil {
			return err
		}
		return fires(b, 0, func(_ string, t timer) error { return putOut(b, t) })
	}
	first := start(t, open, setup{pipeline: keptStream("global", "state timers"), parallelism: 1, script: script})
	first.group(pairs("a=1 b=1 c=1 d=1"))
	restore := first.snapshots()
	first.group(pairs("a=later"))
	first.end()

	second := start(t, open, setup{pipeline: keptStream("global", "state timers"), parallelism: 3, script: script, restore: restore})
	second.watermark(20)
	second.want("")
	second.group(pairs("a=2 b=2 c=2 d=2"))
	second.flush()
	second.want("a:1,2 b:1,2 c:1,2 d:1,2")
	restore = second.snapshots()
	second.end()

	third := start(t, open, setup{pipeline: keptStream("global", "state timers"), parallelism: 2, script: script, restore: restore})
	third.watermark(51)
	third.want("a@50 b@50 c@50 d@50")
	third.group(pairs("a=3"))
	third.flush()
	third.want("a:1,2,3 a@50 b@50 c@50 d@50")
}

func snapshotOfGroups(t *testing.T, open Open) {
	w := interval(0, 10)
	first := start(t, open, setup{pipeline: panedBy("fixed"), parallelism: 2, script: panesOf})
	first.group(windowedRecord(windowedRecord(nil, 1, w, "a", "1"), 2, w, "b", "2"))
	restore := first.snapshots()
	first.end()
	second := start(t, open, setup{pipeline: panedBy("fixed"), script: panesOf, restore: restore})
	second.group(windowedRecord(nil, 1, w, "a", "3"))
	second.watermark(10)
	second.flush()
	second.want("a[1,3]1.0 b[2]1.0")
}

func snapshotOfResiduals(t *testing.T, open Open) {
	stream := strings.NewReplacer("in:string", "in:string~", "out:string", "out:string~").Replace(splitting)
	script := func(delay time.Duration) sdk.Script { return pieces(delay, func(string) {}) }
	first := start(t, open, setup{pipeline: stream, script: script(time.Hour)})
	first.clock(0)
	for _, element := range []string{"a", "b", "c", "d", "e"} {
		first.process(stage.MainInput, sized(element, 3))
	}
	first.flush()
	first.want("a3 b3 c3 d3 e3")
	restore := first.snapshots()
	first.end()

	const later = 2 * 60 * 60 * 1000
	second := start(t, open, setup{pipeline: stream, parallelism: 3, script: script(time.Hour), restore: restore})
	second.clock(1)
	second.flush()
	second.want("") // they wait as long as they were to
	second.clock(later)
	second.flush()
	second.want("a2 b2 c2 d2 e2")
	if n := second.bundles(); n != second.spec.Parallelism {
		t.Errorf("%d tasks had something of it", n)
	}
	restore = second.snapshots()
	second.end()

	third := start(t, open, setup{pipeline: stream, parallelism: 2, script: script(0), restore: restore})
	third.clock(2 * later)
	third.flush()
	third.watermark(coder.MaxTimestamp)
	third.want("a1 b1 c1 d1 e1")
	third.quiet(true)
}

func snapshotOfImpulse(t *testing.T, open Open) {
	const pipeline = `
env other
impulse start() > I
pardo work(I) > out:string~
pardo next(out) > end env=other
`
	script := func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error { return b.Write("out", record(nil, 0, "fired")) })
	}
	first := start(t, open, setup{pipeline: pipeline, script: script})
	before := first.snapshots()
	first.watermark(coder.MaxTimestamp)
	first.flush()
	first.want("fired")
	restore := first.snapshots()
	first.end()
	for _, c := range []struct {
		restore []stage.Restore
		want    string
	}{{before, "fired"}, {restore, ""}} {
		second := start(t, open, setup{pipeline: pipeline, script: script, restore: c.restore})
		second.watermark(coder.MaxTimestamp)
		second.flush()
		second.want(c.want)
		second.quiet(true)
		second.end()
	}
}

func snapshotOfTime(t *testing.T, open Open) {
	w, later := interval(0, 10), interval(10, 20)
	first := start(t, open, setup{pipeline: panedBy("fixed"), parallelism: 2, script: panesOf})
	first.group(windowedRecord(nil, 1, w, "a", "1"))
	first.watermark(10)
	restore := first.snapshots()
	first.want("a[1]1.0")
	first.end()
	second := start(t, open, setup{pipeline: panedBy("fixed"), script: panesOf, restore: restore})
	second.group(windowedRecord(windowedRecord(nil, 1, w, "a", "2"), 11, later, "a", "3"))
	second.watermark(20)
	second.flush()
	second.want("a[3]1.0")

	first = start(t, open, setup{pipeline: keptStream("fixed", "state"), parallelism: 2, script: remembering})
	first.group(windowedRecord(nil, 1, w, "a", "1"))
	first.watermark(10)
	restore = first.snapshots()
	first.end()
	second = start(t, open, setup{pipeline: keptStream("fixed", "state"), script: remembering, restore: restore})
	second.group(windowedRecord(windowedRecord(nil, 1, w, "a", "2"), 11, later, "a", "3"))
	second.flush()
	second.want("a:3")
}
