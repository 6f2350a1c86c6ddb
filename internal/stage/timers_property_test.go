package stage_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// timerReference is what a stage with timers is to do, key by key: all that is set is known, and looked through anew for what
// is due next. Event time comes first, then processing time, then the ends of windows, which take along what is left of them.
type timerReference struct {
	fixed     bool
	lateness  int64
	watermark int64
	clock     int64
	draining  bool
	keys      map[string]map[string]*referenceTimer // by key, then by window and name
	did       map[string][]string
	dropped   int
}

type referenceTimer struct {
	firedTimer
	start, end int64 // of its window: the last millisecond
}

func (r *timerReference) windowOf(at int64) (start, end int64) {
	if !r.fixed {
		return 0, coder.EndOfGlobalWindow
	}
	i := tenOf(at)
	return i.Start, i.End - 1
}

// over is from when on a window is over.
func (r *timerReference) over(end int64) int64 {
	if !r.fixed {
		return math.MaxInt64 // until all is over
	}
	return end + r.lateness + 1
}

func (r *timerReference) element(key string, at int64, program string) {
	start, end := r.windowOf(at)
	if r.watermark >= r.over(end) {
		r.dropped++
		return
	}
	r.did[key] = append(r.did[key], fmt.Sprintf("gets %s@%d", program, at))
	r.run(key, start, end, program)
}

func (r *timerReference) run(key string, start, end int64, program string) {
	for _, s := range statements(program) {
		id := func(t firedTimer) string { return fmt.Sprintf("%d %s.%s", start, t.family, t.tag) }
		if name, ok := strings.CutPrefix(s, "-"); ok {
			t := firedTimer{}
			t.family, t.tag, _ = strings.Cut(name, ".")
			delete(r.keys[key], id(t))
			continue
		}
		if t, ok := parseSet(s); ok {
			if r.keys[key] == nil {
				r.keys[key] = map[string]*referenceTimer{}
			}
			r.keys[key][id(t)] = &referenceTimer{t, start, end}
		}
	}
}

// due is the first timer of a family that fires before a time, of those that their windows do not take along.
func (r *timerReference) due(key, family string, before int64) (id string) {
	var first *referenceTimer
	for name, t := range r.keys[key] {
		if t.family != family || t.fires >= before || family == "t" && t.fires >= r.over(t.end) {
			continue
		}
		// Which of several of one time comes first is nobody's business but the store's: by window, then by the tag, short ones first.
		if first == nil || cmp.Or(cmp.Compare(t.fires, first.fires), cmp.Compare(t.end, first.end), cmp.Compare(len(t.tag), len(first.tag)), cmp.Compare(t.tag, first.tag)) < 0 {
			first, id = t, name
		}
	}
	return id
}

// settle does all that is due.
func (r *timerReference) settle() {
	passed := r.watermark
	if passed == coder.MaxTimestamp {
		passed = math.MaxInt64
	}
	for key := range r.keys {
		for {
			// A window that is over before a timer's time goes before it fires; only its own timers notice.
			id := r.due(key, "t", passed)
			if id == "" {
				before := r.clock + 1
				if r.draining && r.watermark == coder.MaxTimestamp {
					before = math.MaxInt64
				}
				id = r.due(key, "c", before)
			}
			if id == "" {
				break
			}
			t := r.keys[key][id]
			delete(r.keys[key], id)
			r.did[key] = append(r.did[key], fmt.Sprintf("%s.%s fires @%d", t.family, t.tag, t.fires))
			if at, ok := again(t.tag, t.fires); ok {
				r.run(key, t.start, t.end, fmt.Sprintf("%s.%s@%d", t.family, t.tag, at))
			} else {
				r.run(key, t.start, t.end, t.tag)
			}
		}
		for id, t := range r.keys[key] {
			if r.fixed && passed >= r.over(t.end) {
				delete(r.keys[key], id)
			}
		}
	}
}

// hold is how far the output watermark may be at most, of the keys of a task.
func (r *timerReference) hold(task, tasks int) int64 {
	hold := r.watermark
	for key, timers := range r.keys {
		if shuffle.KeyGroup(sdk.String(nil, key), rigKeyGroups)*tasks/rigKeyGroups != task {
			continue
		}
		for _, t := range timers {
			hold = min(hold, t.hold)
		}
	}
	return hold
}

// drawProgram draws what an element does.
func drawProgram(t *rapid.T, watermark, clock int64) string {
	var all []string
	for range rapid.IntRange(1, 3).Draw(t, "statements") {
		family := rapid.SampledFrom([]string{"t", "c"}).Draw(t, "family")
		near := max(watermark, 0)
		if family == "c" {
			near = clock
		}
		tag := rapid.SampledFrom([]string{"x", "y", "-t.x", "-c.y", "every:7:until:60"}).Draw(t, "tag")
		if rapid.IntRange(0, 3).Draw(t, "clear") == 0 {
			all = append(all, "-"+family+"."+tag)
			continue
		}
		at := near + rapid.Int64Range(-5, 25).Draw(t, "at")
		hold := max(watermark, 0) + rapid.Int64Range(-3, 12).Draw(t, "hold")
		all = append(all, fmt.Sprintf("%s.%s@%d/%d", family, tag, at, hold))
	}
	return strings.Join(all, ";")
}

// TestTimersAreAsTheReference: whatever is set and cleared when, over restarts and other numbers of tasks, each key's elements
// and timers come in the order in which the reference has them, the output watermark is where their holds let it be, what comes
// too late is dropped, and a task is quiet when nothing is left.
func TestTimersAreAsTheReference(t *testing.T) {
	fn := &timerFn{}
	type form struct {
		fixed    bool
		lateness int64
	}
	harnesses := map[form]stage.Harness{}
	forms := []form{{false, 0}, {true, 0}, {true, 4}}
	for _, f := range forms {
		harnesses[f] = oneHarness(t, map[string]sdk.Script{"work": func(b *sdk.Bundle) error { return fn.script(b) }})
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := rapid.SampledFrom(forms).Draw(rt, "form")
		windows := ""
		if f.fixed {
			windows = fmt.Sprintf("fn=fixed lateness=%d", f.lateness)
		}
		ref := &timerReference{fixed: f.fixed, lateness: f.lateness, watermark: coder.MinTimestamp, keys: map[string]map[string]*referenceTimer{}, did: map[string][]string{}}
		tasks := rapid.IntRange(1, 3).Draw(rt, "tasks")
		r := newScriptRig(rt, t.TempDir(), timerPlan(rt, windows, ""), harnesses[f], tasks, rapid.SampledFrom([]int{0, -1}).Draw(rt, "whole keys"))
		defer r.close()
		fn.rig = r
		r.clock(0)
		dropped := 0
		did := map[string][]string{}
		settle := func(what string) {
			r.flush()
			ref.settle()
			for _, line := range r.said() {
				_, line = cutTask(line)
				if n, ok := strings.CutPrefix(line, "droppedDueToLateness "); ok {
					var k int
					fmt.Sscan(n, &k)
					dropped += k
				}
				bundle, ok := strings.CutPrefix(line, "bundle: ")
				if !ok {
					continue
				}
				for _, one := range strings.Split(bundle, ", ") {
					key := one[:1]
					did[key] = append(did[key], strings.TrimPrefix(strings.TrimPrefix(one[1:], ":"), " "))
				}
			}
			for _, key := range []string{"a", "b", "c"} {
				if !slices.Equal(did[key], ref.did[key]) {
					rt.Fatalf("after %s, key %s:\n%s\nthe reference has:\n%s", what, key, strings.Join(did[key], "\n"), strings.Join(ref.did[key], "\n"))
				}
			}
			if dropped != ref.dropped {
				rt.Fatalf("after %s, %d elements were dropped, and should be %d", what, dropped, ref.dropped)
			}
			for i, out := range r.outs {
				if most := ref.hold(i, len(r.tasks)); out.told > most && most > coder.MinTimestamp {
					// It may have been there before what holds it came.
					if !out.behind(most) {
						rt.Fatalf("after %s, task %d told %d, and %d is held", what, i, out.told, most)
					}
				} else if out.told < most {
					rt.Fatalf("after %s, task %d told %d, and nothing is held before %d", what, i, out.told, most)
				}
				out.before = out.told
			}
		}
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"element", "element", "element", "watermark", "clock", "restore"}).Draw(rt, "step") {
			case "element":
				var records []byte
				for range rapid.IntRange(1, 2).Draw(rt, "elements") {
					key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "key")
					at := max(ref.watermark, 0) + rapid.Int64Range(-12, 12).Draw(rt, "timestamp")
					program := drawProgram(rt, ref.watermark, ref.clock)
					records = timerElement(records, f.fixed, key, at, program)
					ref.element(key, at, program)
				}
				r.keyed(records)
				settle("elements")
			case "watermark":
				ref.watermark = max(ref.watermark, 0) + rapid.Int64Range(0, 20).Draw(rt, "watermark")
				r.watermark(ref.watermark)
				settle(fmt.Sprint("watermark ", ref.watermark))
			case "clock":
				ref.clock += rapid.Int64Range(0, 20).Draw(rt, "clock")
				r.clock(ref.clock)
				settle(fmt.Sprint("clock ", ref.clock))
			case "restore":
				r.restore(rapid.IntRange(1, 3).Draw(rt, "tasks"))
				settle("a restart")
			}
		}
		ref.watermark = coder.MaxTimestamp
		r.watermark(coder.MaxTimestamp)
		settle("the end of input")
		ref.draining = true
		r.drain()
		settle("a drain")
		for i, out := range r.outs {
			if !out.quiet {
				rt.Fatalf("task %d is not quiet", i)
			}
		}
		r.restore(1) // which looks at what is kept
	})
}

// cutTask takes a task's number off what it said.
func cutTask(line string) (task, said string) {
	if len(line) > 3 && line[1:3] == ": " && line[0] >= '0' && line[0] <= '9' {
		return line[:1], line[3:]
	}
	return "", line
}
