package grouping

import (
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
	"trestle/internal/beam/window"
)

// TestBoundedIsItsReference: of bounded input, what a trigger makes of all elements at once comes first, and on time what
// is new or wanted anyway; and a strategy that says it has one pane has one.
func TestBoundedIsItsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := drawStrategy(t)
		var err error
		if ws.Trigger, err = triggertest.Parse(triggertest.Random(2).Draw(t, "trigger")); err != nil {
			t.Fatal(err)
		}
		w := parseWindowing(rapid.SampledFrom([]string{"global", "fixed-10", "sessions-10"}).Draw(t, "windows"))
		ws = w.strategy(proto.CloneOf(ws))
		m, err := Compile(ws, coders)
		if err != nil {
			t.Fatal(err)
		}
		strategy, err := window.Compile(ws, coders)
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.Int64Range(1, 6).Draw(t, "elements")
		of := w.assign(4)[0]
		at, err := strategy.OutputTime(of, 5, 7)
		if err != nil {
			t.Fatal(err)
		}
		end, _ := strategy.MaxTimestamp(of)

		happened := []triggertest.Instant{{Elements: n, Watermark: coder.MinTimestamp}}
		reference := triggertest.NewReference(ws.Trigger, end, 0)
		var want []Effect
		last := coder.PaneInfo{Timing: coder.OnTime, First: true, Last: true}
		emit := Effect{Kind: Emit, N: n, Timestamp: at, Pane: last}
		if reference.Ready(happened) {
			closes := reference.Fired(happened) == nil && !finishedByClock(ws.Trigger)
			emit.Pane = coder.PaneInfo{Timing: coder.Early, First: true, Last: closes, NonSpeculative: -1}
			want = append(want, emit)
			emit = Effect{Kind: Emit, Timestamp: end, Pane: coder.PaneInfo{Timing: coder.OnTime, Last: true, Index: 1}}
			if ws.AccumulationMode == pipepb.AccumulationMode_ACCUMULATING {
				emit.N = n
			}
			if closes || ws.ClosingBehavior != pipepb.ClosingBehavior_EMIT_ALWAYS && ws.OnTimeBehavior != pipepb.OnTimeBehavior_FIRE_ALWAYS {
				emit.Kind = Drop
			}
		}
		if emit.Kind == Emit {
			want = append(want, emit)
		}
		k := m.NewKey()
		for range 2 {
			got, err := k.Bounded(of, n, 5, 7)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i].Window, got[i].Bag = nil, nil
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("%s: panes, those that are wrong with +:\n%s", m.Trigger(), d)
			}
			if m.OnePane() && (len(got) != 1 || got[0].Pane != coder.OnTimeAndOnly) {
				t.Fatalf("%s has not one pane: %+v", m.Trigger(), got)
			}
		}
	})
}
