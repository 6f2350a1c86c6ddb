package grouping

import (
	"fmt"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
)

// drawStrategy draws everything of a strategy but its windows and trigger.
func drawStrategy(t *rapid.T) *pipepb.WindowingStrategy {
	return &pipepb.WindowingStrategy{
		AllowedLateness:  rapid.SampledFrom([]int64{0, 0, 5, 30}).Draw(t, "lateness"),
		AccumulationMode: rapid.SampledFrom([]pipepb.AccumulationMode_Enum{pipepb.AccumulationMode_DISCARDING, pipepb.AccumulationMode_ACCUMULATING}).Draw(t, "mode"),
		ClosingBehavior:  rapid.SampledFrom([]pipepb.ClosingBehavior_Enum{pipepb.ClosingBehavior_EMIT_IF_NONEMPTY, pipepb.ClosingBehavior_EMIT_ALWAYS}).Draw(t, "closing"),
		OnTimeBehavior:   rapid.SampledFrom([]pipepb.OnTimeBehavior_Enum{pipepb.OnTimeBehavior_FIRE_IF_NONEMPTY, pipepb.OnTimeBehavior_FIRE_ALWAYS}).Draw(t, "on time"),
		OutputTime:       rapid.SampledFrom([]pipepb.OutputTime_Enum{pipepb.OutputTime_END_OF_WINDOW, pipepb.OutputTime_EARLIEST_IN_PANE, pipepb.OutputTime_LATEST_IN_PANE}).Draw(t, "output time"),
	}
}

// events are those that both a host and a reference take.
type events interface {
	watermark(to int64)
	clock(to int64)
}

// drawEvent draws an event, does it to all, and describes it. watermark and clock are where they are.
func drawEvent(t *rapid.T, serial *int, watermark, clock *int64, take func(...item), all ...events) string {
	switch rapid.IntRange(0, 4).Draw(t, "what") {
	case 0, 1, 2:
		items := make([]item, rapid.IntRange(1, 3).Draw(t, "elements"))
		for i := range items {
			*serial++
			items[i] = item{fmt.Sprintf("e%d", *serial), rapid.Int64Range(-5, 60).Draw(t, "timestamp")}
		}
		take(items...)
		return fmt.Sprint(items)
	case 3:
		*watermark += rapid.Int64Range(0, 12).Draw(t, "watermark")
		for _, e := range all {
			e.watermark(*watermark)
		}
		return fmt.Sprint("watermark ", *watermark)
	default:
		*clock += rapid.Int64Range(0, 12).Draw(t, "clock")
		for _, e := range all {
			e.clock(*clock)
		}
		return fmt.Sprint("clock ", *clock)
	}
}

// TestMachineIsItsReference: whatever the strategy and the order of events, a host puts out, drops and holds what a
// reference does that works all of it out from everything that has happened; and nothing is kept at the end.
func TestMachineIsItsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := drawStrategy(t)
		trigger, err := triggertest.Parse(triggertest.Random(2).Draw(t, "trigger"))
		if err != nil {
			t.Fatal(err)
		}
		ws.Trigger = trigger
		w := parseWindowing(rapid.SampledFrom([]string{"global", "fixed-10", "sliding-12-4"}).Draw(t, "windows"))
		h, err := newHost(t, w, proto.CloneOf(ws))
		if err != nil {
			t.Fatal(err)
		}
		r := newReference(w, ws)
		serial, watermark, clock := 0, int64(-10), int64(0)
		same := func(event string) {
			if d := cmp.Diff(sortedPanes(r.panes), sortedPanes(h.panes)); d != "" {
				t.Fatalf("%s: panes, those that are wrong with +:\n%s", event, d)
			}
			if d := cmp.Diff(r.dropped, h.dropped); d != "" {
				t.Fatalf("%s: dropped, those that are wrong with +:\n%s", event, d)
			}
			if r.now != h.now {
				t.Fatalf("%s: time is %+v, and should be %+v", event, h.now, r.now)
			}
			if len(h.states) != len(r.windows) {
				t.Fatalf("%s: %d windows are kept, and should be %d", event, len(h.states), len(r.windows))
			}
			r.panes, h.panes, r.dropped, h.dropped = nil, nil, nil, nil
		}
		take := func(items ...item) { r.take(items...); h.elements(items...) }
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			same(drawEvent(t, &serial, &watermark, &clock, take, r, h))
		}
		r.watermark(coder.MaxTimestamp)
		h.watermark(coder.MaxTimestamp)
		same("the end")
		if len(h.states)+len(h.bags)+len(h.event)+len(h.processing)+len(h.holds) > 0 {
			t.Fatalf("left at the end: %+v", h)
		}
	})
}
