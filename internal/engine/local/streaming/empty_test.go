package streaming

import (
	"testing"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/store/kv"
)

// Python's SDK sends a pipeline that nothing was applied to as a root without parts. With the option `streaming` that is a
// stream without a task: it is at its end at once, with snapshots and without.
func TestJobOfNothingEnds(t *testing.T) {
	for name, snapshots := range map[string]bool{"with snapshots": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			store := shuffle.NewStore(t.TempDir(), shuffle.NewBudget(64<<20))
			cache := kv.NewCache(1 << 20)
			defer cache.Close()
			planned, err := plan.Build(&pipepb.Pipeline{
				RootTransformIds: []string{"root"},
				Components:       &pipepb.Components{Transforms: map[string]*pipepb.PTransform{"root": {}}},
			}, plan.Options{Streams: true, Streaming: true})
			if err != nil {
				t.Fatal(err)
			}
			cfg := r.config(2)
			cfg.Plan, cfg.Store, cfg.State = planned, store, stage.State{Directory: t.TempDir(), Cache: cache}
			if !snapshots {
				cfg.Snapshots = ""
			}
			job, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ran := make(chan error, 1)
			go func() { ran <- job.Run(t.Context()) }()
			select {
			case err := <-ran:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Minute):
				t.Fatal("the job does not end")
			}
			if err := job.Close(); err != nil {
				t.Error(err)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
