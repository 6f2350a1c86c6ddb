package server

import (
	"context"
	"time"

	"trestle/internal/artifact"
)

// DefaultKeep is how long jobs' histories are kept: longer than anyone who submitted a job takes to ask what became of it.
const DefaultKeep = 30 * 24 * time.Hour

// sweepEvery is how often a server looks for what has been kept long enough.
const sweepEvery = time.Hour

// retain removes, now and then until ctx is done, the jobs that ended long ago, and the artifacts that none of the others
// was given and nobody has used for as long.
func (s *Server) retain(ctx context.Context, store *artifact.Store) {
	every := time.NewTicker(min(sweepEvery, max(s.cfg.Keep/4, time.Second)))
	defer every.Stop()
	for {
		s.sweep(ctx, store)
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweepSnapshots removes the snapshots of jobs that are over, or of which there is nothing any more.
func (s *Server) sweepSnapshots() {
	if err := s.local.Sweep(s.jobs.Over, s.jobs.Known); err != nil {
		s.cfg.Log.Warn("sweep", "error", err)
	}
}

func (s *Server) sweep(ctx context.Context, store *artifact.Store) {
	before := time.Now().Add(-s.cfg.Keep)
	kept, err := s.jobs.Expire(before)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("remove jobs of long ago", "error", err)
	}
	s.sweepSnapshots() // those that a job which is now forgotten might have gone on from
	since := before
	if !kept.Staging.IsZero() && kept.Staging.Before(since) {
		since = kept.Staging
	}
	defer store.Unused(since)
	// What other servers find in a bucket that is theirs too, this one does not know. And a job of an earlier Trestle does
	// not say what it was given; it is removed in time.
	if s.cfg.Staging != defaultStaging(s.cfg.Data) || !kept.Known {
		return
	}
	swept, err := store.Sweep(ctx, kept.Artifacts, since)
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("remove artifacts of no job", "error", err)
	}
	if swept.Artifacts > 0 {
		s.cfg.Log.Info("removed artifacts of no job", "artifacts", swept.Artifacts, "bytes", swept.Bytes)
	}
}
