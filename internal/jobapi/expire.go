package jobapi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/job"
)

// Kept is what an Expire has left.
type Kept struct {
	// Artifacts are the sha256 in hex of what the jobs that are left were given.
	Artifacts map[string]bool
	// Known says that these are all: it is false when there is a job whose log does not say.
	Known bool
	// Staging is since when a job has been prepared, the oldest of those that may yet be run: what was staged since then
	// may be its own. Zero when there is none.
	Staging time.Time
}

// stagingPatience is how long a prepared job that may yet be run is kept at least: a client with large files and a slow
// line takes hours.
const stagingPatience = 24 * time.Hour

// Expire removes the jobs that ended before a time, and those that were prepared before it and never run (but for the last
// day's that may yet be run): their folders, and what the service knows of them. Jobs that run stay, however old. A job's log goes first: a folder without it is no job's,
// and is removed by the next server if this one comes to an end before. A job that could not be removed is not listed any
// more either, and comes back with the next server; the error says why.
func (s *Service) Expire(before time.Time) (Kept, error) {
	kept := Kept{Artifacts: map[string]bool{}, Known: true}
	if err := s.enter(); err != nil {
		return Kept{}, err
	}
	defer s.leave()
	var errs []error
	ready := s.cfg.Clock().Add(-stagingPatience)
	for _, e := range s.sorted() {
		if e.expire(before, ready) {
			if err := s.remove(e); err != nil {
				errs = append(errs, fmt.Errorf("remove job %s: %w", e.id, err))
			}
			continue
		}
		artifacts, known, staging := e.artifacts()
		if staging && kept.Staging.IsZero() { // the oldest comes first
			kept.Staging = e.prepared
		}
		kept.Known = kept.Known && known
		for _, digest := range artifacts {
			kept.Artifacts[digest] = true
		}
	}
	return kept, errors.Join(errs...)
}

// expire tells whether a job is to be removed, and if so, keeps it from being run or resumed: one that may be is only when it was
// prepared before ready.
func (e *entry) expire(before, ready time.Time) bool {
	e.control.Lock()
	defer e.control.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.life.Changed.Before(before) {
		return false
	}
	switch {
	case e.life.State == jobpb.JobState_STOPPED:
		if e.claimed || e.startable && !e.life.Changed.Before(ready) {
			return false
		}
		e.startable = false
		return true
	case job.Terminal(e.life.State):
		e.forgotten = e.sealed // and so nothing holds on to it
		return e.sealed
	}
	return false
}

// artifacts are what the job was given, if that is known, or whether it may be being staged.
func (e *entry) artifacts() (digests []string, known, staging bool) {
	e.control.Lock()
	defer e.control.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	stopped := e.life.State == jobpb.JobState_STOPPED
	return e.life.Artifacts, e.life.Artifacts != nil || stopped, stopped && (e.startable || e.claimed)
}

// remove removes a job that nothing holds on to.
func (s *Service) remove(e *entry) error {
	s.mu.Lock()
	delete(s.jobs, e.id)
	s.mu.Unlock()
	s.cfg.Staging.Forget(e.id)
	err := e.seal()
	if gone := os.Remove(e.path()); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
		return errors.Join(err, gone)
	}
	err = errors.Join(err, os.RemoveAll(e.dir))
	s.cfg.Log.Info("removed a job of long ago", "job", e.id)
	return err
}
