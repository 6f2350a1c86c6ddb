package grouping

import (
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
)

// BenchmarkElement is an element that comes alone to a window that has a state, which is how a stream of many keys comes.
func BenchmarkElement(b *testing.B) {
	for _, c := range []struct{ name, windowing, trigger string }{
		{"fixed, default", "fixed-1000000", "Default"},
		{"fixed, early", "fixed-1000000", "AfterEndOfWindow(early=ElementCount(1000), late=ElementCount(1))"},
		{"sessions, default", "sessions-1000000", "Default"},
		{"sessions that grow", "sessions-1000000", "Default"},
	} {
		b.Run(c.name, func(b *testing.B) {
			trigger, err := triggertest.Parse(c.trigger)
			if err != nil {
				b.Fatal(err)
			}
			w := parseWindowing(c.windowing)
			m, err := Compile(w.strategy(&pipepb.WindowingStrategy{Trigger: trigger, OutputTime: pipepb.OutputTime_END_OF_WINDOW}), coders)
			if err != nil {
				b.Fatal(err)
			}
			window, state := w.assign(1000)[0], []byte(nil)
			k := m.NewKey()
			now := Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp}
			elements := make([]Element, 1)
			for i := 0; b.Loop(); i++ {
				k.Reset()
				if state != nil {
					if err := k.Load(window, state); err != nil {
						b.Fatal(err)
					}
				}
				elements[0] = Element{Window: window, Timestamp: 1000}
				if c.name == "sessions that grow" {
					elements[0] = Element{Window: w.assign(int64(1001 + i))[0], Timestamp: int64(1001 + i)}
				}
				effects, err := k.Elements(now, elements, nil)
				if err != nil {
					b.Fatal(err)
				}
				for _, e := range effects {
					if e.Kind == Save {
						window, state = append(window[:0:0], e.Window...), append(state[:0], e.State...)
					}
				}
			}
			b.ReportAllocs()
		})
	}
}
