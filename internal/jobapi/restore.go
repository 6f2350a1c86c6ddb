package jobapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/engine"
	"trestle/internal/job"
	"trestle/internal/store/journal"
)

// restore reads the jobs of earlier servers.
func (s *Service) restore() error {
	folders, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		e := s.newEntry(f.Name(), filepath.Join(s.dir, f.Name()))
		switch err := e.load(); {
		case err == nil:
			s.jobs[e.id] = e
			s.resume(e)
		case errors.Is(err, errUnfinished):
			s.cfg.Log.Warn("removing a job that was never prepared to its end; no client can run it", "folder", e.dir)
			if err := os.RemoveAll(e.dir); err != nil {
				return err
			}
		default:
			s.cfg.Log.Error("a job's event log cannot be read; the job is left as it is, and not listed", "folder", e.dir, "error", err)
		}
	}
	return nil
}

// errUnfinished says that a folder was made by a Prepare that did not come to its end.
var errUnfinished = errors.New("no job in this folder")

// load reads the event log, and leaves it open for writing only where the job has not ended.
func (e *entry) load() error {
	j, err := journal.Open(e.path(), e.options, func(b []byte) error {
		r, err := job.Decode(b)
		if err == nil {
			err = e.life.Apply(r)
		}
		if m, ok := r.(*job.Metrics); ok && err == nil {
			e.metrics = m.MetricResults
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return errUnfinished
	}
	if err != nil {
		return err
	}
	switch {
	case e.life.State == jobpb.JobState_UNSPECIFIED:
		return errors.Join(errUnfinished, j.Close())
	case e.life.Info.GetJobId() != e.id:
		return errors.Join(fmt.Errorf("%s is the event log of another job, %q", e.path(), e.life.Info.GetJobId()), j.Close())
	}
	e.prepared = e.life.Prepared
	switch {
	case job.Terminal(e.life.State):
		close(e.ended)
		e.sealed, e.metrics = true, nil
		return j.Close()
	case e.life.State == jobpb.JobState_STOPPED:
		if info, err := os.Stat(filepath.Join(e.dir, pipelineFile)); err != nil || info.Size() != e.life.Pipeline.Size {
			// The machine stopped before Run: what Prepare writes is not durable until then.
			return errors.Join(errUnfinished, j.Close())
		}
		// Opened again when there is something to read or to write: there may be many that no one ever asks for.
		return j.Close()
	}
	e.journal = j
	return nil
}

// resume attaches to a job that was running when the server ended, or brings it to its end.
func (s *Service) resume(e *entry) {
	if !live(e.life.State) {
		return
	}
	if _, ok := s.cfg.Runner.(Attacher); !ok || e.life.Handle == "" {
		s.lost(e, engine.ErrLost)
		s.finish(e)
		return
	}
	e.asked, e.draining = e.life.State == jobpb.JobState_CANCELLING, e.life.State == jobpb.JobState_DRAINING
	s.attach(e, e.life.Handle, "The server was restarted while the job ran, and could not attach to it again")
}

// attach has the engine go on with a job that it has; failed begins what a person reads where it does not. The caller holds
// control, if others know of the job.
func (s *Service) attach(e *entry, handle, failed string) {
	ctx, abandon := context.WithCancel(s.ctx)
	released := make(chan struct{})
	e.abandon, e.released, e.attaching = abandon, released, true
	go func() {
		defer close(released)
		defer abandon()
		run, err := s.cfg.Runner.(Attacher).Attach(ctx, handle, events{e.eventLog})
		switch {
		case err == nil:
			s.follow(e, run)
		case !s.detached(e): // otherwise the next server asks again
			s.lost(e, fmt.Errorf("%s: %w", failed, err))
		}
		s.finish(e)
	}()
}

// lost ends a job that no longer runs anywhere.
func (s *Service) lost(e *entry, err error) {
	if e.state() == jobpb.JobState_CANCELLING {
		e.message(jobpb.JobMessage_JOB_MESSAGE_WARNING, "The server was restarted while the job was being cancelled.")
		e.end(job.Cancelled)
		return
	}
	text := "The server was restarted while the job ran, and what it had done is lost; submit it again."
	switch {
	case err == engine.ErrLost: //nolint:errorlint // nothing more is known
	case errors.Is(err, engine.ErrLost):
		text = fmt.Sprintf("%v: what it had done is lost; submit it again.", err)
	default:
		text = err.Error()
	}
	e.message(jobpb.JobMessage_JOB_MESSAGE_ERROR, text)
	e.end(job.Failed)
}
