package e2e

import (
	"sync/atomic"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/server"
)

func init() {
	beam.RegisterDoFn(&shortened{})
}

// more is how many numbers a source that is drained puts out yet.
const more = 300

// shortened is endless, and when its job is drained it puts out some numbers more.
type shortened struct{ endless }

// truncated is where a restriction was told to end, and how often one was.
var truncated struct{ end, times atomic.Int64 }

func (*shortened) TruncateRestriction(rt *sdf.LockRTracker, _ int) offsetrange.Restriction {
	r := rt.GetRestriction().(offsetrange.Restriction)
	r.End = r.Start + more
	truncated.end.Store(r.End)
	truncated.times.Add(1)
	return r
}

func (f *shortened) ProcessElement(rt *sdf.LockRTracker, n int, emit func(int)) sdf.ProcessContinuation {
	return f.endless.ProcessElement(rt, n, emit)
}

// TestDrainTruncates: a drained source does what its DoFn's truncation says is left, once, though it is asked to give its
// bundle back several times meanwhile; then the job ends by itself.
func TestDrainTruncates(t *testing.T) {
	s := start(t, server.Config{Parallelism: 1})
	truncated.times.Store(0)
	seen := newWatch(t)
	client, id := startSource(t, s, seen, &shortened{endless{seen.number}})
	if _, err := client.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	if state := lastState(t, client, id); state != jobpb.JobState_DRAINED {
		t.Errorf("the job is %v", state)
	}
	if n := truncated.times.Load(); n != 1 {
		t.Errorf("the restriction was truncated %d times", n)
	}
	if n, end := seen.count.Load(), truncated.end.Load(); n != end || seen.wrong.Load() > 0 {
		t.Errorf("%d numbers came out, %d of them out of order; the truncated restriction ended at %d", n, seen.wrong.Load(), end)
	}
}
