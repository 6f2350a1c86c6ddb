package flink

import (
	"testing"
	"time"

	"trestle/internal/beam/metric"
	"trestle/internal/job/submission"
)

// A host's memory is what was told last, and the highest of all peaks.
func TestMemories(t *testing.T) {
	at := time.UnixMilli(1_000_000)
	m := memories{}
	for _, r := range []*submission.Report{
		{Host: "b", Time: at, Memory: submission.Memory{Resident: 5, ResidentPeak: 6}},
		{Host: "a", Time: at.Add(time.Second), Memory: submission.Memory{Resident: 10, ResidentPeak: 20, Held: 1, HeldPeak: 3, Budget: 100}},
		{Host: "a", Time: at, Memory: submission.Memory{Resident: 40, ResidentPeak: 50, Held: 2, HeldPeak: 2, Budget: 100}},
		{Host: "a", Time: at.Add(2 * time.Second), Memory: submission.Memory{Resident: 11, ResidentPeak: 12, Held: 0, HeldPeak: 1, Budget: 100}},
	} {
		m.add(r)
	}
	if got, want := m["a"].Memory, (submission.Memory{Resident: 11, ResidentPeak: 50, Held: 0, HeldPeak: 3, Budget: 100}); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	var set metric.Set
	if err := set.Add(m.gauges()); err != nil {
		t.Fatal(err)
	}
	if set.Len() != 10 {
		t.Errorf("%d metrics for two hosts, not 10: %v", set.Len(), set.Snapshot())
	}
}
