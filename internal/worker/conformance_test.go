package worker

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"

	"trestle/internal/job/submission"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest"
	"trestle/internal/stage/stagetest/sdk"
	"trestle/internal/worker/client"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// TestConformance runs the suite of the task contract against tasks that are driven over a socket.
func TestConformance(t *testing.T) {
	hosts := map[*stage.Views]*host{} // the tasks of a stage share a worker
	stagetest.Run(t, stagetest.Form{Left: left, Open: func(t *testing.T, s stage.Spec) stage.Task {
		h := hosts[s.Views]
		if h == nil {
			h = newHost(t, s)
			hosts[s.Views] = h
		}
		conn, err := client.Dial(t.Context(), h.address)
		if err != nil {
			t.Fatal(err)
		}
		task, err := client.Open(t.Context(), conn, s.Stage.Index, s.Index, s.Parallelism, 0, s.Out)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { task.Close() }) // before its worker's end
		return ordered{task}
	}})
}

func left(t *testing.T) { leaks.None(t) }

// ordered is a task around whose events the test and the harness's scripts may share what they read and write.
type ordered struct{ *client.Task }

func (o ordered) Process(ctx context.Context, from stage.Delivery, block []byte) error {
	sdk.Order()
	defer sdk.Order()
	return o.Task.Process(ctx, from, block)
}

func (o ordered) End(ctx context.Context, input int) error {
	sdk.Order()
	defer sdk.Order()
	return o.Task.End(ctx, input)
}

// host is a worker whose harnesses are a test's.
type host struct{ address client.Address }

func newHost(t *testing.T, s stage.Spec) *host {
	w := &Worker{
		cfg:  Config{Log: slog.New(slog.DiscardHandler), Scratch: t.TempDir()},
		job:  &submission.Job{KeyGroups: s.KeyGroups, BundleBytes: s.BundleBytes, Attempts: s.Attempts},
		plan: s.Plan, said: map[[2]int]string{}, store: s.Store, budget: shuffle.NewBudget(0), state: s.State.Cache,
		stages: &stages{plan: s.Plan, store: s.Store, open: map[int]*openStage{}},
		find: func(environment string, _ int) stage.Harness {
			if environment == s.Stage.Environment {
				return s.Harness
			}
			return s.MergeHarness
		},
	}
	w.ctx, w.cancel = context.WithCancelCause(context.Background())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { w.accept(listener, &serving) })
	t.Cleanup(func() {
		w.cancel(nil)
		listener.Close()
		serving.Wait()
		if w.lost != nil {
			t.Error(w.lost)
		}
	})
	return &host{client.Address{Port: listener.Addr().(*net.TCPAddr).Port, Token: w.token[:]}}
}
