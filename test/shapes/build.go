package shapes

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/state"
)

// Build makes the pipeline that puts its output into dir, which must be there, empty, where its harnesses run. [Read] reads
// it afterwards.
func (p Pipeline) Build(dir string, faults Faults) *beam.Pipeline {
	pipeline, s := beam.NewPipelineWithRoot()
	made := make([]beam.PCollection, 0, len(p))
	for i, op := range p {
		in := make([]beam.PCollection, 0, len(op.In))
		for _, from := range op.In {
			in = append(in, made[from])
		}
		marker := filepath.Join(dir, fmt.Sprintf("fault-%d", i))
		made = append(made, op.build(s.Scope(fmt.Sprintf("%d %s", i, op.Kind)), in, &fault{Kind: faults, Marker: marker, At: op.A}))
	}
	var lines []beam.PCollection
	for _, leaf := range p.leaves() {
		lines = append(lines, beam.ParDo(s, &toLine{leaf}, made[leaf]))
	}
	groups := beam.GroupByKey(s, beam.AddFixedKey(s, beam.Flatten(s, lines...)))
	beam.ParDo0(s, &writeLines{filepath.Join(dir, outputName)}, groups)
	return pipeline
}

func (op Op) build(s beam.Scope, in []beam.PCollection, f *fault) beam.PCollection {
	switch op.Kind {
	case "source":
		return beam.ParDo(s, &source{op.A, op.B}, beam.Impulse(s))
	case "affine", "rekey", "swell", "keep":
		return beam.ParDo(s, &eachElement{op}, in[0])
	case "range":
		return beam.ParDo(s, &ranges{}, in[0])
	case "fault":
		return beam.ParDo(s, f, in[0])
	case "fat":
		return beam.ParDo(s, digestFat, beam.GroupByKey(s, beam.ParDo(s, &fat{op}, in[0])))
	case "group":
		return beam.ParDo(s, digestGroup, beam.GroupByKey(s, in[0]))
	case "join":
		return beam.ParDo(s, digestBoth, beam.CoGroupByKey(s, in...))
	case "sum":
		return beam.CombinePerKey(s, &summary{}, in[0])
	case "count":
		return beam.ParDo(s, &counter{Seen: state.MakeValueState[int]("seen")}, in[0])
	case "total":
		return beam.ParDo(s, total, beam.Combine(s, &summary{}, beam.DropKey(s, in[0])))
	case "flatten":
		return beam.Flatten(s, in...)
	case "reshuffle":
		return beam.Reshuffle(s, in[0])
	case "side":
		return beam.ParDo(s, withSide, in[0], beam.SideInput{Input: beam.DropKey(s, in[1])})
	case "lookup":
		return beam.ParDo(s, withLookup, in[0], beam.SideInput{Input: in[1]})
	case "fixed side":
		size := window.NewFixedWindows(time.Duration(op.seconds()) * time.Second)
		main := beam.WindowInto(s, size, beam.ParDo(s, timed, in[0]))
		side := beam.WindowInto(s, window.NewFixedWindows(sideSeconds*time.Second), beam.ParDo(s, timed, in[1]))
		return global(s, beam.ParDo(s, withSide, main, beam.SideInput{Input: beam.DropKey(s, side)}))
	default:
		kind, _, summed := strings.Cut(op.Kind, " ")
		windowed := beam.WindowInto(s, op.windowFn(kind), beam.ParDo(s, timed, in[0]))
		if summed {
			return global(s, beam.ParDo(s, sumInWindow, beam.CombinePerKey(s, &summary{}, windowed)))
		}
		return global(s, beam.ParDo(s, digestInWindow, beam.GroupByKey(s, windowed)))
	}
}

func (op Op) windowFn(kind string) *window.Fn {
	size := time.Duration(op.seconds()) * time.Second
	switch kind {
	case "fixed":
		return window.NewFixedWindows(size)
	case "sliding":
		return window.NewSlidingWindows(time.Duration(op.period())*time.Second, size)
	default: // sessions
		return window.NewSessions(size)
	}
}

func global(s beam.Scope, in beam.PCollection) beam.PCollection {
	return beam.WindowInto(s, window.NewGlobalWindows(), in)
}
