package e2e

import (
	"context"
	"os"
	"path/filepath"
	"sync"
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
	beam.RegisterDoFn(&countNumbers{})
	register.Function1x2(toOneKey)
	beam.RegisterDoFn(&inOrder{})
	beam.RegisterDoFn(&judge{})
	register.Emitter2[int, int]()
}

// endless counts without end, and never stops by itself.
type endless struct{ Watch int }

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

func (f *endless) ProcessElement(rt *sdf.LockRTracker, _ int, emit func(int)) sdf.ProcessContinuation {
	r := rt.GetRestriction().(offsetrange.Restriction)
	for i := r.Start; rt.TryClaim(i) && !watchOf(f.Watch).over.Load(); i++ {
		emit(int(i))
		<-time.After(time.Millisecond)
	}
	return sdf.StopProcessing()
}

// watch is what a test has seen of what endless counts. Its user code finds it by number: what a test's job has left in this
// process, whose workers do not end with it, is not taken for another's.
type watch struct {
	number       int
	count, wrong atomic.Int64
	enough       chan struct{} // closed when 500 numbers have come out
	state        atomic.Int64  // the last number that came out of inOrder
	over         atomic.Bool   // the source is to stop
}

var watches struct {
	sync.Mutex
	all []*watch
}

// newWatch is the test's own.
func newWatch(t *testing.T) *watch {
	watches.Lock()
	defer watches.Unlock()
	w := &watch{number: len(watches.all), enough: make(chan struct{})}
	watches.all = append(watches.all, w)
	t.Cleanup(func() { w.over.Store(true) })
	return w
}

func watchOf(number int) *watch {
	watches.Lock()
	defer watches.Unlock()
	return watches.all[number]
}

// countNumbers counts numbers, which come in order.
type countNumbers struct{ Watch int }

func (f *countNumbers) ProcessElement(n int) int {
	seen := watchOf(f.Watch)
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
func startEndless(t *testing.T, s *server.Server) (client jobpb.JobServiceClient, id string, seen *watch) {
	t.Helper()
	seen = newWatch(t)
	client, id = startSource(t, s, seen, &endless{seen.number})
	return client, id, seen
}

// startSource runs a source that counts, until 500 numbers have come out.
func startSource(t *testing.T, s *server.Server, seen *watch, source any) (jobpb.JobServiceClient, string) {
	t.Helper()
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.ParDo(scope, source, beam.Create(scope, 1))
	beam.ParDo(scope, &countNumbers{seen.number}, beam.Reshuffle(scope, numbers))
	client := jobs(t, s)
	id := submitPipeline(t, client, portable(t, p))
	select {
	case <-seen.enough:
	case <-time.After(patience):
		t.Fatalf("%d numbers came out in %v", seen.count.Load(), patience)
	}
	return client, id
}

// TestUnboundedSource: a source that never gives its bundle back by itself is asked to, so that what it reads gets on;
// cancelling the job ends it.
func TestUnboundedSource(t *testing.T) {
	s := start(t, server.Config{}, tornOff(t)...)
	client, id, _ := startEndless(t, s)
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
	client, id, seen := startEndless(t, s)
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
type judge struct{ Watch int }

func (f *judge) ProcessElement(n, off int) {
	seen := watchOf(f.Watch)
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
	seen := newWatch(t)
	pipeline := portable(t, seen.counts(identity))

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
