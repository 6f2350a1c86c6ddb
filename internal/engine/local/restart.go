package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/beam/failure"
	"trestle/internal/engine/local/streaming"
	"trestle/internal/harness"
	"trestle/internal/stage"
)

// Restarts says how a streaming job whose task has failed begins again, from its last snapshot.
type Restarts struct {
	// Limit is how many restarts there are within any Window; after that the failure is the job's. Negative stands for none.
	// Defaults: 5 in 10 minutes.
	Limit  int
	Window time.Duration
	// Pause is how long the first waits; each that follows within the Window waits twice as long, up to a minute. Default: a
	// second.
	Pause time.Duration
	// Every is for tests: when it is not 0, a job begins again at random moments without a failure, too, the first time after a
	// time of this mean, and later each time after half as much again. So each job comes to its end, however long its bundles are.
	Every time.Duration
}

// errAgain ends a run that begins again for Restarts.Every.
var errAgain = errors.New("the server was asked to begin jobs again now and then")

const longestPause = time.Minute

// restarts is the bookkeeping of a run's restarts.
type restarts struct {
	Restarts
	at       []time.Time // of those within the window
	last     string      // the failure before
	snapshot uint64      // the last one when the failure before happened
}

func newRestarts(r Restarts) restarts {
	r.Limit, r.Window, r.Pause = cmp.Or(r.Limit, 5), cmp.Or(r.Window, 10*time.Minute), cmp.Or(r.Pause, time.Second)
	return restarts{Restarts: r}
}

// another tells whether a job that has failed begins again, and after which pause. A user's code that says the same again is
// not asked once more; nor is the runner itself when it fails in the same words and no snapshot was taken meanwhile, unless what
// is missing may come back: a harness, or room on the disk.
func (r *restarts) another(now time.Time, err error, snapshot uint64) (pause time.Duration, ok bool) {
	if errors.Is(err, streaming.ErrRestore) || stage.Repeats(err) {
		return 0, false
	}
	for len(r.at) > 0 && now.Sub(r.at[0]) > r.Window {
		r.at = r.at[1:]
	}
	said := failure.Words(err.Error())
	same := said == r.last && snapshot == r.snapshot
	r.last, r.snapshot = said, snapshot
	if len(r.at) >= r.Limit || same && !passing(err, snapshot) {
		return 0, false
	}
	pause = min(longestPause, r.Pause<<min(len(r.at), 6))
	r.at = append(r.at, now)
	return pause, true
}

// passing tells whether a failure is of something outside that may be better soon. A worker that cannot be had is, to a job that has
// taken a snapshot: it had one. To another it is more likely to be one that never can be.
func passing(err error, snapshot uint64) bool {
	var errno syscall.Errno
	var exit *harness.Exit
	var start *harness.StartError
	return errors.As(err, &errno) || errors.As(err, &exit) || snapshot > 0 && errors.As(err, &start)
}

// stream runs a streaming plan to its end: when a task fails, again from the last snapshot, as often as that may help.
func (r *run) stream() error {
	again := newRestarts(r.cfg.Restarts)
	for n := 0; ; n++ {
		err := r.streamOnce(n)
		if err == nil || r.snapshots == "" || r.ctx.Err() != nil {
			return err
		}
		last, listed := streaming.Latest(r.snapshots)
		from := "from its beginning, since there is no snapshot yet"
		switch {
		case listed != nil:
			err = errors.Join(err, listed)
			from = "from its last snapshot"
		case last > 0:
			from = fmt.Sprintf("from snapshot %d", last)
		}
		if errors.Is(err, errAgain) {
			r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_DEBUG, fmt.Sprintf("The job begins again %s: %v", from, errAgain))
			if err := r.newPool(n + 1); err != nil {
				return err
			}
			continue
		}
		pause, ok := again.another(time.Now(), err, last)
		if !ok {
			return err
		}
		r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("The job has failed, and begins again %s, in %v (restart %d of at most %d in %v):\n%s",
			from, pause, len(again.at), again.Limit, again.Window, stage.Describe(r.job.Plan, err)))
		if err := r.wait(pause); err != nil {
			return err
		}
		if err := r.newPool(n + 1); err != nil {
			return err
		}
	}
}

// wait waits, or until the job is to end.
func (r *run) wait(pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

// streamOnce runs the plan until it ends or fails, and leaves nothing of it but snapshots.
func (r *run) streamOnce(n int) error {
	if err := r.makeFolder(); err != nil {
		return err
	}
	state := filepath.Join(r.dir, fmt.Sprintf("state-%d", n))
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	job, err := streaming.Open(streaming.Config{
		Plan:          r.job.Plan,
		Parallelism:   r.parallelism,
		Asked:         r.asked,
		KeyGroups:     r.cfg.KeyGroups,
		BundleBytes:   r.cfg.BundleBytes,
		Attempts:      r.cfg.Attempts,
		Store:         r.store,
		State:         stage.State{Directory: state, Cache: r.cfg.State, Context: ctx},
		Harness:       r.harness,
		Failed:        func() { cancel(nil) },
		Message:       r.job.Events.Message,
		Metrics:       r.addMetrics,
		Attempted:     r.attemptedMetrics,
		Draining:      r.draining,
		Snapshots:     r.snapshots,
		SnapshotEvery: r.cfg.SnapshotEvery,
		Now:           time.Now,
		Log:           r.log,
	})
	if err != nil {
		return err
	}
	if err := r.goOnMeasuring(job); err != nil {
		return errors.Join(err, job.Close())
	}
	if mean := r.cfg.Restarts.Every; mean > 0 && r.snapshots != "" {
		again := time.AfterFunc(time.Duration(rand.ExpFloat64()*float64(mean)*math.Pow(1.5, float64(n))), func() { cancel(errAgain) })
		defer again.Stop()
	}
	// A harness that does not listen any more would hold its tasks up: the job's end, early or not, ends the harnesses.
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = r.closePool() // release waits for it, and tells what it says
	})
	err = job.Run(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errAgain) {
		err = errAgain // what the tasks say are its consequences
	}
	cancel(nil)
	<-closed
	return errors.Join(err, job.Close(), os.RemoveAll(state))
}
