package worker

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"trestle/internal/harness"
)

// startPatience is for how long an environment's harnesses may not start here, one start after another, before the job is given
// up: a container engine or a worker pool that is started anew takes some seconds. An engine that starts the task again and
// again would take minutes to tell the user the same.
const startPatience = 10 * time.Second

// starts knows of each environment whether its harnesses start. The zero value has seen none. It may be used concurrently.
type starts struct {
	mu     sync.Mutex
	failed map[string]failedStarts
}

// failedStarts are an environment's since the last harness of it that connected.
type failedStarts struct {
	began  time.Time // the first one
	ended  time.Time // the latest
	number int       // those beside another that failed are one with it
}

// lastingError is a harness that does not start, and did not before: another start of the task would not mend it.
type lastingError struct {
	err    error
	number int
	since  time.Duration
}

func (e *lastingError) Error() string {
	return fmt.Sprintf("%v\n(this was start %d of that environment on this host that failed, in %v)", e.err, e.number, e.since.Round(time.Second))
}

func (e *lastingError) Unwrap() error { return e.err }

// came takes what has become of the wish for an environment's harness, by now, and returns the error, which is a [*lastingError]
// when the environment has failed to start more than once in a row, for startPatience. Somebody may have killed a harness that a
// signal ended: that does not count.
func (s *starts) came(environment string, err error, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failed, environment)
		return nil
	}
	var start *harness.StartError
	var exit *harness.Exit
	if !errors.As(err, &start) || errors.As(err, &exit) && exit.BySignal() {
		return err
	}
	f, again := s.failed[environment]
	switch {
	case !again:
		f = failedStarts{began: start.Began, ended: now, number: 1}
	case start.Began.After(f.ended):
		f.number, f.ended = f.number+1, now
	}
	if s.failed == nil {
		s.failed = map[string]failedStarts{}
	}
	s.failed[environment] = f
	since := now.Sub(f.began)
	if f.number < 2 || since < startPatience {
		return err
	}
	return &lastingError{err: err, number: f.number, since: since}
}
