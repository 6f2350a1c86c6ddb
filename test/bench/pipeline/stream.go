package main

import (
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
)

func init() {
	// By reflection, since it is called once a bundle: what register.DoFn makes takes the compiler seconds.
	beam.RegisterDoFn(&streamFn{})
}

// streamFn makes the records of a range, of which the runner cannot know that it will end. Its event time is that of
// timedFn, and its watermark follows it.
type streamFn struct {
	wholeRange
	G generate
}

// burst is how many records it makes before it gives the runner a chance: they are a bundle.
const burst = 20_000

// Setup fills the pool.
func (f *streamFn) Setup() { f.G.Setup() }

// ProcessElement emits the next records.
func (f *streamFn) ProcessElement(w *sdf.ManualWatermarkEstimator, t *sdf.LockRTracker, _, _ int64, emit func(beam.EventTime, int64, []byte)) sdf.ProcessContinuation {
	i := t.GetRestriction().(offsetrange.Restriction).Start
	for range burst {
		if !t.TryClaim(i) {
			return sdf.StopProcessing()
		}
		key, value := f.G.record(i)
		emit(mtime.Time(i), key, value)
		i++
	}
	w.UpdateWatermark(time.UnixMilli(i))
	return sdf.ResumeProcessingIn(0)
}

// wholeRange is what a source of a range's numbers has whose restrictions are never split before they are begun, and whose
// watermark it sets itself.
type wholeRange struct{}

// CreateInitialRestriction is the range.
func (wholeRange) CreateInitialRestriction(first, end int64) offsetrange.Restriction {
	return offsetrange.Restriction{Start: first, End: end}
}

// CreateTracker tracks a range.
func (wholeRange) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(offsetrange.NewTracker(r))
}

// RestrictionSize is how many numbers it has.
func (wholeRange) RestrictionSize(_, _ int64, r offsetrange.Restriction) float64 { return r.Size() }

// SplitRestriction leaves it whole.
func (wholeRange) SplitRestriction(_, _ int64, r offsetrange.Restriction) []offsetrange.Restriction {
	return []offsetrange.Restriction{r}
}

// CreateWatermarkEstimator makes one that goes by what it is told.
func (wholeRange) CreateWatermarkEstimator() *sdf.ManualWatermarkEstimator {
	return &sdf.ManualWatermarkEstimator{}
}
