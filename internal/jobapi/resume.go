package jobapi

import (
	"context"
	"errors"
	"fmt"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"trestle/internal/job"
	"trestle/internal/kit/trailer"
)

// Resumption is what a preparation id has before a job's id where Run is to have that job go on which has FAILED. Beam has no call
// for it; no other preparation id begins like this, so that nobody resumes a job who repeats a Run.
const Resumption = "resume:"

// Resumer is an Attacher that keeps of jobs which have FAILED what they can go on from.
type Resumer interface {
	Attacher
	// Resumable tells why a job that has failed cannot go on; nil if Attach may try.
	Resumable(handle string) error
}

// resumed has a job that has FAILED go on from what its engine has kept, as a server does that is started again: STARTING is its state
// once more, durably, when it returns. What then goes wrong makes the job FAILED again, with a message. A job that cannot be resumed
// stays as it is.
func (s *Service) resumed(ctx context.Context, id string) (*jobpb.RunJobResponse, error) {
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	refused := func(why error) error {
		return trailer.Status(codes.FailedPrecondition, fmt.Sprintf("job %s cannot be resumed: %v", id, why))
	}
	if st := e.state(); st != jobpb.JobState_FAILED {
		return nil, refused(fmt.Errorf("it is %v, and has not failed", st))
	}
	if !e.wait(ctx) { // the last of it may still be being cleaned up
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	resumer, ok := s.cfg.Runner.(Resumer)
	handle := e.handle()
	if !ok || handle == "" {
		return nil, refused(errors.New("nothing of it was kept, which is done for streaming jobs of the embedded engine only; submit the pipeline again"))
	}
	if err := resumer.Resumable(handle); err != nil {
		return nil, refused(err)
	}
	metrics, err := e.lastMetrics(ctx)
	if err != nil {
		return nil, s.failure(e, err)
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	e.control.Lock()
	switch err := e.again(metrics); {
	case errors.Is(err, job.ErrTransition):
		e.control.Unlock()
		return nil, refused(err)
	case err != nil:
		e.control.Unlock()
		return nil, s.failure(e, fmt.Errorf("resume it: %w", err))
	}
	e.asked, e.draining, e.left, e.polled = false, false, false, false
	s.attach(e, handle, "The job was resumed, and cannot go on")
	e.control.Unlock()
	if err := e.sync(); err != nil {
		e.message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("The job was resumed, and a machine that stops now may forget that: %v", err))
	}
	return &jobpb.RunJobResponse{JobId: e.id}, nil
}

// again brings a job to life that has FAILED and is no longer held by anything. The error wraps [job.ErrTransition] when it is
// another one, and leaves it as it was.
func (l *eventLog) again(metrics *jobpb.MetricResults) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life.State != jobpb.JobState_FAILED || !l.sealed || l.forgotten {
		return fmt.Errorf("%w: it is %v, being resumed or removed by somebody else", job.ErrTransition, l.life.State)
	}
	l.sealed = false
	if _, _, err := l.happenLocked(job.Resumed); err != nil {
		l.sealed = true
		if l.journal != nil {
			err = errors.Join(err, l.journal.Close())
			l.journal = nil
		}
		return err
	}
	l.metrics, l.unsaved, l.last, l.untold, l.lost = metrics, false, nil, nil, 0
	return nil
}

// Over tells whether there is a job of this id that has come to its end for good: nothing holds on to it, and it cannot be resumed.
func (s *Service) Over(id string) bool {
	s.mu.Lock()
	e := s.jobs[id]
	s.mu.Unlock()
	if e == nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sealed && job.Terminal(e.life.State) && e.life.State != jobpb.JobState_FAILED
}
