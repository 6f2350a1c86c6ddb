package e2e

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"trestle/internal/engine/local"
	"trestle/internal/server"
)

func init() {
	register.Function1x2(stumble)
	register.Function1x2(failFrom)
}

// stumbled says how often stumble is still to fail, and has been called since.
var stumbled struct{ left, calls atomic.Int64 }

// stumble fails as long as it is to, each time in other words.
func stumble(n int) (int, error) {
	if left := stumbled.left.Add(-1); left >= 0 {
		return 0, fmt.Errorf("stumbled, and has %s to go", strings.Repeat("one more ", int(left)))
	}
	stumbled.left.Store(-1)
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
func counts(between any) *beam.Pipeline {
	seen.wrong.Store(0)
	seen.state.Store(0)
	seen.over.Store(false)
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.ParDo(scope, between, beam.ParDo(scope, &endless{}, beam.Create(scope, 1)))
	beam.ParDo0(scope, judge, beam.Reshuffle(scope, beam.ParDo(scope, &inOrder{}, beam.ParDo(scope, toOneKey, numbers))))
	return p
}

// TestStreamingTaskFails: when a task has failed beyond its attempts, the job begins again from its last snapshot while the
// server lives, and says so; each number has its effect on state once.
func TestStreamingTaskFails(t *testing.T) {
	const attempts = 2
	s := start(t, server.Config{
		Parallelism: 1, SnapshotEvery: 50 * time.Millisecond,
		Trial: server.Trial{Attempts: attempts, Restarts: local.Restarts{Pause: time.Millisecond}},
	})
	t.Cleanup(func() { seen.over.Store(true) })
	client := jobs(t, s)
	stumbled.left.Store(-1)
	id := submitPipeline(t, client, portable(t, counts(stumble)))
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

// TestStreamingTaskFailsAlike: user code that fails in the same words is not tried again from a snapshot.
func TestStreamingTaskFailsAlike(t *testing.T) {
	s := start(t, server.Config{Parallelism: 1, SnapshotEvery: 20 * time.Millisecond})
	t.Cleanup(func() { seen.over.Store(true) })
	client := jobs(t, s)
	id := submitPipeline(t, client, portable(t, counts(failFrom)))
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
