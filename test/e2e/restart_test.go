package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"go.uber.org/goleak"

	"trestle/internal/engine/local"
	"trestle/internal/server"
	"trestle/test/gopipeline"
)

func init() {
	register.Function1x2(stumble)
	register.Function1x2(failFrom)
}

// stumbled says how often stumble is still to fail, and has been called since.
var stumbled struct{ left, calls atomic.Int64 }

// stumble fails as long as it is to, each time in other words.
func stumble(n int) (int, error) {
	if stumbled.left.Load() > 0 { // there is one task of it
		return 0, fmt.Errorf("stumbled, and has %s to go", strings.Repeat("one more ", int(stumbled.left.Add(-1))))
	}
	stumbled.calls.Add(1)
	return n, nil
}

// failFrom fails from some number on, in the same words.
func failFrom(n int) (int, error) {
	if n >= 300 {
		return 0, errors.New("it is always like that")
	}
	return n, nil
}

// counts is a pipeline of endless's numbers, of which what is put between goes its own way, and state whose order is judged.
func (w *watch) counts(between any) *beam.Pipeline {
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.ParDo(scope, between, beam.ParDo(scope, &endless{w.number}, beam.Create(scope, 1)))
	beam.ParDo0(scope, &judge{w.number}, beam.Reshuffle(scope, beam.ParDo(scope, &inOrder{}, beam.ParDo(scope, toOneKey, numbers))))
	return p
}

// raceDetector says whether this program was built with it.
var raceDetector bool

// tornOff prepares for a job whose workers lose their sessions in the middle of bundles. Beam's Go SDK closes the channel of
// its responses then while bundles may send to it, which the race detector sees, and leaves bundles behind that wait for
// its data and state streams; all of it in this process, since the worker is of LOOPBACK.
func tornOff(t *testing.T) []goleak.Option {
	if raceDetector {
		t.Skip("the SDK's worker has a race of its own when its session ends in the middle of a bundle")
	}
	const harness = "github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/harness."
	return []goleak.Option{
		goleak.IgnoreAnyFunction(harness + "(*control).handleInstruction"),
		goleak.IgnoreAnyFunction(harness + "(*DataChannel).read"),
	}
}

// TestStreamingTaskFails: when a task has failed beyond its attempts, the job begins again from its last snapshot while the
// server lives, and says so; each number has its effect on state once.
func TestStreamingTaskFails(t *testing.T) {
	const attempts = 2
	s := start(t, server.Config{
		Parallelism: 1, SnapshotEvery: 50 * time.Millisecond,
		Trial: server.Trial{Attempts: attempts, Restarts: local.Restarts{Pause: time.Millisecond}},
	}, tornOff(t)...)
	seen := newWatch(t)
	client := jobs(t, s)
	stumbled.left.Store(0)
	id := submitPipeline(t, client, portable(t, seen.counts(stumble)))
	for range 3 {
		before := seen.state.Load()
		await(t, func() bool { return seen.state.Load() > before+200 })
		stumbled.calls.Store(0)
		stumbled.left.Store(attempts)
		await(t, func() bool { return stumbled.calls.Load() > 100 })
	}
	if _, err := client.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	if state := lastState(t, client, id); state != jobpb.JobState_DRAINED {
		t.Errorf("the job is %v", state)
	}
	if n := seen.wrong.Load(); n > 0 {
		t.Errorf("%d numbers of %d met a state that others than those before them have made", n, seen.state.Load())
	}
	said := 0
	for _, r := range history(t, s) {
		if m := r.GetMessageResponse(); strings.Contains(m.GetMessageText(), "begins again") {
			said++
			if m.GetImportance() != jobpb.JobMessage_JOB_MESSAGE_WARNING || !strings.Contains(m.GetMessageText(), "stumbled") {
				t.Errorf("it said %q", m.GetMessageText())
			}
		}
	}
	if said != 3 {
		t.Errorf("it said %d times that it begins again", said)
	}
}

// TestStreamingBeginsAgain: a server that was asked to begins jobs again at random moments, and each number has its effect on
// state once.
func TestStreamingBeginsAgain(t *testing.T) {
	s := start(t, server.Config{
		Parallelism: 1, SnapshotEvery: 20 * time.Millisecond,
		Trial: server.Trial{Restarts: local.Restarts{Every: 50 * time.Millisecond}},
	}, tornOff(t)...)
	seen := newWatch(t)
	client := jobs(t, s)
	stumbled.left.Store(0)
	id := submitPipeline(t, client, portable(t, seen.counts(stumble)))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	messages, err := client.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: id})
	for again := 0; again < 3; {
		var r *jobpb.JobMessagesResponse
		if err == nil {
			r, err = messages.Recv()
		}
		if err != nil {
			t.Fatalf("after it began again %d times: %v", again, err)
		}
		if strings.HasPrefix(r.GetMessageResponse().GetMessageText(), "The job begins again from snapshot") {
			again++
		}
	}
	before := seen.state.Load()
	await(t, func() bool { return seen.state.Load() > before })
	if _, err := client.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	if state := lastState(t, client, id); state != jobpb.JobState_DRAINED {
		t.Errorf("the job is %v", state)
	}
	if n := seen.wrong.Load(); n > 0 {
		t.Errorf("%d numbers of %d met a state that others than those before them have made", n, seen.state.Load())
	}
}

// TestStreamingTaskFailsAlike: user code that fails in the same words is not tried again from a snapshot.
func TestStreamingTaskFailsAlike(t *testing.T) {
	s := start(t, server.Config{Parallelism: 1, SnapshotEvery: 20 * time.Millisecond}, tornOff(t)...)
	seen := newWatch(t)
	client := jobs(t, s)
	id := submitPipeline(t, client, portable(t, seen.counts(failFrom)))
	if state := lastState(t, client, id); state != jobpb.JobState_FAILED {
		t.Errorf("the job is %v", state)
	}
	if text := oneError(t, s); !strings.HasPrefix(text, "it is always like that") && !strings.Contains(strings.SplitN(text, "\n", 3)[0], "it is always like that") {
		t.Errorf("the error does not begin with the user's: %s", text)
	}
	for _, r := range history(t, s) {
		if strings.Contains(r.GetMessageResponse().GetMessageText(), "begins again") {
			t.Errorf("it said %q", r.GetMessageResponse().GetMessageText())
		}
	}
}

// TestStreamingSnapshotRefused: a job whose snapshots are those of another version of Trestle is not begun anew: it fails, says
// which snapshot it is and why, and leaves all of them as they were.
func TestStreamingSnapshotRefused(t *testing.T) {
	tornOff(t)
	cfg := server.Config{Data: t.TempDir(), Parallelism: 1, SnapshotEvery: 50 * time.Millisecond}
	seen := newWatch(t)
	pipeline := portable(t, seen.counts(identity))
	first, err := gopipeline.Start(t.Context(), config(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	id := submitPipeline(t, jobs(t, first.Server), pipeline)
	folder := filepath.Join(cfg.Data, "snapshots", id)
	var manifests []string
	await(t, func() bool {
		manifests, err = filepath.Glob(filepath.Join(folder, "[0-9]*", "manifest.json"))
		return err != nil || len(manifests) > 0
	})
	stop(t, first)
	if manifests, err = filepath.Glob(filepath.Join(folder, "[0-9]*", "manifest.json")); err != nil {
		t.Fatal(err)
	}
	for _, path := range manifests {
		if err := os.WriteFile(path, []byte("01234567\n{\"version\":1,"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	second, err := gopipeline.Start(t.Context(), config(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	if state := lastState(t, jobs(t, second.Server), id); state != jobpb.JobState_FAILED {
		t.Errorf("the job is %v", state)
	}
	if text := oneError(t, second.Server); !strings.Contains(text, folder) || !strings.Contains(text, "format 1, this version of Trestle reads") {
		t.Errorf("the error is %s", text)
	}
	stop(t, second)
	// The job is over, but who can read its snapshots may have them, as long as the job is listed.
	third, err := gopipeline.Start(t.Context(), config(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, third)
	if left, err := filepath.Glob(filepath.Join(folder, "[0-9]*", "manifest.json")); err != nil || !slices.Equal(left, manifests) {
		t.Errorf("of %q there are left %q, %v", manifests, left, err)
	}
	if said, err := os.ReadFile(filepath.Join(folder, "refused")); err != nil || !strings.Contains(string(said), "format 1, this version of Trestle reads") {
		t.Errorf("the folder says %q, %v", said, err)
	}
	if err := os.RemoveAll(filepath.Join(cfg.Data, "jobs", id)); err != nil {
		t.Fatal(err)
	}
	fourth, err := gopipeline.Start(t.Context(), config(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	stop(t, fourth)
	if left, err := os.ReadDir(filepath.Dir(folder)); err != nil || len(left) > 0 {
		t.Errorf("of a job that is forgotten there are left %v, %v", left, err)
	}
}

func stop(t *testing.T, s *gopipeline.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}
