package local

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"trestle/internal/engine/local/streaming"
	"trestle/internal/stage"
)

// stream runs a streaming plan to its end, or to the first failure.
func (r *run) stream() error {
	job, err := streaming.Open(streaming.Config{
		Plan:          r.job.Plan,
		Parallelism:   r.parallelism,
		KeyGroups:     r.cfg.KeyGroups,
		BundleBytes:   r.cfg.BundleBytes,
		Attempts:      r.cfg.Attempts,
		Store:         r.store,
		State:         stage.State{Directory: filepath.Join(r.dir, "state"), Cache: r.cfg.State},
		Harness:       r.harness,
		Message:       r.job.Events.Message,
		Metrics:       r.addMetrics,
		Draining:      r.draining,
		Snapshots:     r.snapshots,
		SnapshotEvery: r.cfg.SnapshotEvery,
		Now:           time.Now,
		Log:           r.log,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	// A harness that does not listen any more would hold its tasks up: the job's end, early or not, ends the harnesses.
	context.AfterFunc(ctx, func() {
		_ = r.closePool() // release waits for it, and tells what it says
	})
	err = job.Run(ctx)
	cancel()
	return errors.Join(err, job.Close())
}
