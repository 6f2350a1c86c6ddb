package window

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"

	"trestle/internal/beam/coder"
)

// coders are the window coders that scenarios name.
var coders = map[string]*pipepb.Coder{
	"global":   {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:global_window:v1"}},
	"interval": {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:interval_window:v1"}},
	"custom":   {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:custom_window:v1"}, ComponentCoderIds: []string{"prefixed"}},
	"prefixed": {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:length_prefix:v1"}, ComponentCoderIds: []string{"opaque"}},
	"opaque":   {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:pickled_python:v1"}},
}

// strategy reads windowing strategies as scenarios write them: coder=… merge=… output=…
func strategy(t *testing.T, d *datadriven.TestData) (*Strategy, error) {
	id, merge, output := "global", "NON_MERGING", "END_OF_WINDOW"
	d.MaybeScanArgs(t, "coder", &id)
	d.MaybeScanArgs(t, "merge", &merge)
	d.MaybeScanArgs(t, "output", &output)
	return Compile(&pipepb.WindowingStrategy{
		WindowFn:      &pipepb.FunctionSpec{Urn: "beam:window_fn:some:v1"},
		WindowCoderId: id,
		MergeStatus:   pipepb.MergeStatus_Enum(pipepb.MergeStatus_Enum_value[merge]),
		OutputTime:    pipepb.OutputTime_Enum(pipepb.OutputTime_Enum_value[output]),
	}, coders)
}

// TestScenarios runs the scripts in testdata.
//
//	compile   coder=… merge=… output=…: what the strategy is, or all that is wrong with it
//	output    the same, and lines of: window in hexadecimal (- for none), earliest and latest timestamp
//	merge     lines of: start end; where each went, and what the windows are then
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			switch d.Cmd {
			case "compile":
				s, err := strategy(t, d)
				if err != nil {
					return err.Error() + "\n"
				}
				fmt.Fprintf(&out, "windows of %s, merging %v, global %v\n", s.Coder().URN(), s.Merging(), s.Global())
			case "output":
				s, err := strategy(t, d)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				for line := range strings.Lines(d.Input) {
					var text string
					var earliest, latest int64
					if _, err := fmt.Sscan(line, &text, &earliest, &latest); err != nil {
						d.Fatalf(t, "%q: %v", line, err)
					}
					w, err := hex.DecodeString(strings.Trim(text, "-"))
					if err != nil {
						d.Fatalf(t, "%q: %v", line, err)
					}
					end, err := s.MaxTimestamp(w)
					if err != nil {
						fmt.Fprintf(&out, "%v (more bytes wanted: %v)\n", err, errors.Is(err, io.ErrUnexpectedEOF))
						continue
					}
					at, err := s.OutputTime(w, earliest, latest)
					if err != nil {
						d.Fatalf(t, "the window's end is known, and yet: %v", err)
					}
					fmt.Fprintf(&out, "window ends %d, group at %d\n", end, at)
				}
			case "merge":
				var in []Interval
				for line := range strings.Lines(d.Input) {
					var w Interval
					if _, err := fmt.Sscan(line, &w.Start, &w.End); err != nil {
						d.Fatalf(t, "%q: %v", line, err)
					}
					in = append(in, w)
				}
				merged, into := Merge(in)
				for i, w := range in {
					fmt.Fprintf(&out, "[%d,%d) → [%d,%d)\n", w.Start, w.End, merged[into[i]].Start, merged[into[i]].End)
				}
				fmt.Fprintln(&out, merged)
			default:
				d.Fatalf(t, "unknown command")
			}
			return out.String()
		})
	})
}

func TestBounds(t *testing.T) {
	if end := (Interval{End: -1 << 63}).MaxTimestamp(); end != coder.MinTimestamp {
		t.Errorf("a window that ends before time has its maximal timestamp at %d", end)
	}
	if end := (Interval{End: 1<<63 - 1}).MaxTimestamp(); end != coder.MaxTimestamp {
		t.Errorf("a window that never ends has its maximal timestamp at %d", end)
	}
}
