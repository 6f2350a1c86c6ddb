package grouping

import (
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
)

// TestBatchIsOnePane: of a bounded input with the default trigger, each key and window has one pane, on time, the first
// and the last.
func TestBatchIsOnePane(t *testing.T) {
	m, err := Compile(&pipepb.WindowingStrategy{
		WindowFn:      &pipepb.FunctionSpec{Urn: "beam:window_fn:global_windows:v1"},
		WindowCoderId: "global",
		MergeStatus:   pipepb.MergeStatus_NON_MERGING,
		OutputTime:    pipepb.OutputTime_END_OF_WINDOW,
	}, map[string]*pipepb.Coder{"global": {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:global_window:v1"}}})
	if err != nil {
		t.Fatal(err)
	}
	k := m.NewKey()
	now := Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp}
	effects, err := k.Elements(now, []Element{{Timestamp: 3}, {Timestamp: 5}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range effects {
		t.Logf("%+v", e)
	}
	now.Input = coder.MaxTimestamp
	if effects, err = k.Wake(now, nil); err != nil {
		t.Fatal(err)
	}
	panes := 0
	for _, e := range effects {
		t.Logf("%+v", e)
		if e.Kind == Emit {
			panes++
			if e.Pane != coder.OnTimeAndOnly || e.N != 2 || e.Timestamp != coder.EndOfGlobalWindow {
				t.Errorf("%+v", e)
			}
		}
	}
	if panes != 1 {
		t.Errorf("%d panes", panes)
	}
}
