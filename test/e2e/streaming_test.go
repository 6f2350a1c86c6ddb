package e2e

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/state"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"trestle/internal/server"
	"trestle/test/gopipeline"
)

func init() {
	beam.RegisterDoFn(&endless{})
	register.Function1x1(countSeen)
	register.Function1x2(toOneKey)
	beam.RegisterDoFn(&inOrder{})
	register.Function2x0(judge)
	register.Emitter2[int, int]()
}

// endless counts without end, and never stops by itself.
type endless struct{}

func (*endless) CreateInitialRestriction(int) offsetrange.Restriction {
	return offsetrange.Restriction{Start: 0, End: 1 << 50}
}

func (*endless) SplitRestriction(_ int, r offsetrange.Restriction) []offsetrange.Restriction {
	return []offsetrange.Restriction{r}
}

func (*endless) RestrictionSize(_ int, r offsetrange.Restriction) float64 { return r.Size() }

func (*endless) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(unbounded{offsetrange.NewTracker(r)})
}

// unbounded is the tracker of a restriction that nobody waits for the end of: a drain ends it.
type unbounded struct{ *offsetrange.Tracker }

func (unbounded) IsBounded() bool { return false }

func (*endless) ProcessElement(rt *sdf.LockRTracker, _ int, emit func(int)) sdf.ProcessContinuation {
	r := rt.GetRestriction().(offsetrange.Restriction)
	for i := r.Start; rt.TryClaim(i) && !seen.over.Load(); i++ {
		emit(int(i))
		<-time.After(time.Millisecond)
	}
	return sdf.StopProcessing()
}

// seen is what has come out of endless: how many numbers, the largest, and whether they came in order.
var seen struct {
	count, wrong atomic.Int64
	enough       chan struct{}
	state        atomic.Int64
	over         atomic.Bool // the source is to stop: what runs in a test's own process is not ended with its job
}

// countSeen counts numbers, which come in order.
func countSeen(n int) int {
	got := seen.count.Add(1)
	if int(got) != n+1 {
		seen.wrong.Add(1)
	}
	if got == 500 {
		close(seen.enough)
	}
	return n
}

// startEndless runs endless until 500 numbers have come out.
func startEndless(t *testing.T, s *server.Server) (jobpb.JobServiceClient, string) {
	t.Helper()
	return startSource(t, s, &endless{})
}

// startSource runs a source that counts, until 500 numbers have come out.
func startSource(t *testing.T, s *server.Server, source any) (jobpb.JobServiceClient, string) {
	t.Helper()
	seen.count.Store(0)
	seen.wrong.Store(0)
	seen.enough = make(chan struct{})
	seen.over.Store(false)
	t.Cleanup(func() { seen.over.Store(true) })
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.ParDo(scope, source, beam.Create(scope, 1))
	beam.ParDo(scope, countSeen, beam.Reshuffle(scope, numbers))
	client := jobs(t, s)
	id := submitPipeline(t, client, portable(t, p))
	select {
	case <-seen.enough:
	case <-time.After(patience):
		t.Fatalf("%d numbers came out in two minutes", seen.count.Load())
	}
	return client, id
}

// TestUnboundedSource: a source that never gives its bundle back by itself is asked to, so that what it reads gets on;
// cancelling the job ends it.
func TestUnboundedSource(t *testing.T) {
	s := start(t, server.Config{}, tornOff(t)...)
	client, id := startEndless(t, s)
	if _, err := client.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	if state := lastState(t, client, id); state != jobpb.JobState_CANCELLED {
		t.Errorf("the job is %v", state)
	}
}

// TestDrain: a job that is drained gives up what it has not read, and ends by itself; what it has read is there, each
// number once.
func TestDrain(t *testing.T) {
	s := start(t, server.Config{Parallelism: 1})
	client, id := startEndless(t, s)
	if _, err := client.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	if state := lastState(t, client, id); state != jobpb.JobState_DRAINED {
		t.Errorf("the job is %v", state)
	}
	if n := seen.wrong.Load(); n > 0 {
		t.Errorf("%d numbers of %d came out of their order", n, seen.count.Load())
	}
}

func toOneKey(n int) (string, int) { return "key", n }

// inOrder counts its elements in its state, and puts out how many came before each, less what that should be.
type inOrder struct{ Count state.Value[int] }

func (f *inOrder) ProcessElement(s state.Provider, _ string, n int, emit func(n, off int)) error {
	count, _, err := f.Count.Read(s)
	if err != nil {
		return err
	}
	emit(n, count-n)
	return f.Count.Write(s, count+1)
}

// judge looks at what has counted: a bundle that a server's end cut short may have met anything.
func judge(n, off int) {
	if off != 0 {
		seen.wrong.Add(1)
	}
	seen.state.Store(int64(n))
}

// TestStreamingRestart: a streaming job goes on from its last snapshot when the server is restarted, several times; each number has
// its effect on state once, in order.
func TestStreamingRestart(t *testing.T) {
	tornOff(t)
	cfg := server.Config{Data: t.TempDir(), Parallelism: 1, SnapshotEvery: 100 * time.Millisecond}
	seen.wrong.Store(0)
	seen.state.Store(0)
	seen.over.Store(false)
	t.Cleanup(func() { seen.over.Store(true) })
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.ParDo(scope, &endless{}, beam.Create(scope, 1))
	beam.ParDo0(scope, judge, beam.Reshuffle(scope, beam.ParDo(scope, &inOrder{}, beam.ParDo(scope, toOneKey, numbers))))
	pipeline := portable(t, p)

	var id string
	var before int64
	for round := range 3 {
		s, err := gopipeline.Start(t.Context(), config(t, cfg))
		if err != nil {
			t.Fatal(err)
		}
		client := jobs(t, s.Server)
		if round == 0 {
			id = submitPipeline(t, client, pipeline)
		}
		await(t, func() bool { return seen.state.Load() > before+300 })
		if round == 2 {
			if _, err := client.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id}); err != nil {
				t.Fatal(err)
			}
			if state := lastState(t, client, id); state != jobpb.JobState_DRAINED {
				t.Errorf("the job is %v", state)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err = s.Stop(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		before = seen.state.Load()
	}
	if n := seen.wrong.Load(); n > 0 {
		t.Errorf("%d numbers of %d met a state that others than those before them have made", n, before)
	}
	if left, err := os.ReadDir(filepath.Join(cfg.Data, "snapshots")); err != nil || len(left) > 0 {
		t.Errorf("the job has left %v, %v", left, err)
	}
}

// await waits until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(patience); !so(); {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("it did not come about in %v", patience)
		}
	}
}
