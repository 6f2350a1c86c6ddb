package stage

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
)

// sideReference is what a stage is to do with a side input in windows of ten milliseconds: all that has come is known, and
// looked through anew each time. A pane comes with each n-th element of a window (0: with none) and, if elements are left, with
// the end of the window; elements of a window that has ended are dropped. Panes that are parts are read together, once the
// window has ended.
type sideReference struct {
	n            int
	accumulating bool
	parts        bool
	watermark    int64
	came         map[int64][]string // by the window's start
	left         map[int64]int      // of these, those since the last pane
	shown        map[int64][]string
}

func (s *sideReference) add(start int64, value string) {
	if s.watermark > start+9 {
		return
	}
	s.came[start] = append(s.came[start], value)
	if s.left[start]++; s.left[start] == s.n {
		s.pane(start)
	}
}

func (s *sideReference) pane(start int64) {
	from := len(s.came[start]) - s.left[start]
	if s.accumulating || s.parts {
		from = 0
	}
	s.shown[start], s.left[start] = slices.Clone(s.came[start][from:]), 0
}

func (s *sideReference) advance(to int64) {
	s.watermark = max(s.watermark, to)
	for start, n := range s.left {
		if n > 0 && s.watermark > start+9 {
			s.pane(start)
		}
	}
}

func (s *sideReference) ready(start int64) bool {
	return !s.parts && s.shown[start] != nil || s.watermark > start+9
}

// TestSideInputsAreAsTheReference: whatever comes in which order, over restarts and other numbers of tasks, each element is
// processed once, in the bundle that follows when its window can be read, with what can be read then; and the watermark waits
// for those that wait.
func TestSideInputsAreAsTheReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ref := &sideReference{
			n: rapid.IntRange(0, 3).Draw(rt, "count"), accumulating: rapid.Bool().Draw(rt, "accumulating"), watermark: coder.MinTimestamp,
			came: map[int64][]string{}, left: map[int64]int{}, shown: map[int64][]string{},
		}
		options := "fn=fixed"
		switch {
		case ref.n > 0 && rapid.Bool().Draw(rt, "end"):
			ref.parts = !ref.accumulating
			options += fmt.Sprintf(" trigger=AfterEndOfWindow(early=ElementCount(%d))", ref.n)
		case ref.n > 0:
			options += fmt.Sprintf(" trigger=Repeat(ElementCount(%d))", ref.n)
		}
		if ref.accumulating {
			options += " mode=accumulating"
		}
		r := newSideRig(t, sideSetup{side: options, main: "fn=fixed", tasks: rapid.IntRange(1, 3).Draw(rt, "tasks")})
		defer r.close()
		r.t = rt
		type element struct {
			start int64
			name  string
		}
		var waiting []element
		serial := 0
		// settle compares what was processed with what the reference has ready.
		settle := func() {
			r.flush()
			var got, want []string
			for _, line := range r.log {
				if _, took, ok := strings.Cut(line, "bundle: "); ok {
					got = append(got, strings.Split(took, ", ")...)
				}
			}
			r.log = nil
			var rest []element
			for _, e := range waiting {
				if !ref.ready(e.start) {
					rest = append(rest, e)
					continue
				}
				w := fmt.Sprintf("%d-%d", e.start, e.start+10)
				want = append(want, fmt.Sprintf("%s@%d in %s reads %v of %s", e.name, e.start, w, ref.shown[e.start], w))
			}
			waiting = rest
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				rt.Fatalf("processed:\n%s\nthe reference has:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for i, tk := range r.tasks {
				for _, f := range tk.stream.gate.waits.waiting {
					if tk.stream.told > f.hold {
						rt.Fatalf("task %d told %d, and elements of %d wait", i, tk.stream.told, f.hold)
					}
				}
			}
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			start := 10 * rapid.Int64Range(0, 4).Draw(rt, "window")
			serial++
			switch rapid.SampledFrom([]string{"side", "side", "main", "main", "watermark", "restore"}).Draw(rt, "step") {
			case "side":
				value := fmt.Sprint("s", serial)
				record, err := sideRecord(windowText(start), start+1, value)
				r.check(err)
				r.process(0, 1, record)
				ref.add(start, value)
			case "main":
				name := fmt.Sprint("m", serial)
				record, err := sideRecord(windowText(start), start, name)
				r.check(err)
				r.process(rapid.IntRange(0, len(r.tasks)-1).Draw(rt, "task"), MainInput, record)
				waiting = append(waiting, element{start, name})
			case "watermark":
				ref.advance(max(ref.watermark, start+rapid.Int64Range(0, 10).Draw(rt, "within")))
				r.sideWatermark(ref.watermark)
			case "restore":
				r.setup.tasks = rapid.IntRange(1, 3).Draw(rt, "tasks")
				r.restore()
				if ref.watermark > coder.MinTimestamp {
					r.sideWatermark(ref.watermark) // watermarks are told again
				}
			}
			settle()
		}
		ref.advance(coder.MaxTimestamp)
		r.sideWatermark(coder.MaxTimestamp)
		settle()
		if len(waiting) > 0 {
			rt.Fatalf("%d elements wait at the end", len(waiting))
		}
	})
}

func windowText(start int64) string {
	return fmt.Sprintf("%d-%d", start, start+10)
}
