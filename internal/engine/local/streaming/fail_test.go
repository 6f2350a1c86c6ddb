package streaming

import (
	"context"
	"errors"
	"testing"
	"time"

	"trestle/internal/fnapi"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/store/kv"
)

// A task that waits for a harness which does not listen learns that another has failed when the harnesses are ended, and
// does not hold the job's end up.
func TestFailureEndsHarnesses(t *testing.T) {
	r := newRig(t)
	r.pipeline = `
env other
impulse waits() > A
pardo x(A) > xs:string~
impulse fails() > B
pardo y(B) > ys:string~ env=other
`
	store := shuffle.NewStore(t.TempDir(), shuffle.NewBudget(64<<20))
	cache := kv.NewCache(1 << 20)
	defer cache.Close()
	var (
		gone    = errors.New("the harnesses were ended")
		broken  = errors.New("no harness of the other environment")
		waiting = make(chan struct{})
		ended   = make(chan struct{})
	)
	cfg := r.config(1)
	cfg.Snapshots = ""
	cfg.Store, cfg.State = store, stage.State{Directory: t.TempDir(), Cache: cache}
	cfg.Failed = func() { close(ended) }
	cfg.Harness = func(environment string, _ int) stage.Harness {
		return func(context.Context) (*fnapi.Session, error) {
			if environment == "other" {
				<-waiting
				return nil, broken
			}
			close(waiting)
			<-ended // whatever becomes of the context
			return nil, gone
		}
	}
	job, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- job.Run(t.Context()) }()
	select {
	case err := <-ran:
		if !errors.Is(err, broken) {
			t.Errorf("the job ended with %v", err)
		}
	case <-time.After(5 * time.Minute):
		t.Fatal("the job does not end")
	}
	if err := errors.Join(job.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}
