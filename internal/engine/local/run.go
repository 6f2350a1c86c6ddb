package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"golang.org/x/sync/errgroup"

	"trestle/internal/engine"
	"trestle/internal/engine/local/streaming"
	"trestle/internal/harness"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// run is one job.
type run struct {
	cfg         Config
	job         engine.Job
	parallelism int
	asked       bool // the job named it
	dir         string
	snapshots   string // the folder of its snapshots, and of what else the next server needs; "" when it has none
	kept        bool   // the job has failed, and its snapshots stay
	log         *slog.Logger

	ctx    context.Context // ends when the job is to end early; its cause says why
	cancel context.CancelCauseFunc
	done   chan struct{}

	draining  chan struct{} // closed when the job is to be drained
	drainOnce sync.Once

	giveBack func() // of the budget, what stores of state were lent
	store    *shuffle.Store
	pool     *harness.Pool // another after a restart, which nobody else sees: harnesses of a job are asked for by its tasks
	stages   []*stageRun
	attempts atomic.Uint64 // numbers the attempts of the job's bundles

	metrics measured
}

// stopTimeout is how long harnesses get to end by themselves when their job has ended.
const stopTimeout = 10 * time.Second

var (
	errCancelled = errors.New("the job was cancelled")
	errDetached  = errors.New("the job is left to the next server")
)

// Handle is the job's id, if it has snapshots.
func (r *run) Handle() string {
	if r.snapshots == "" {
		return ""
	}
	return r.job.ID
}

func (r *run) Cancel() { r.cancel(errCancelled) }

// Detach leaves the job to the next server, which goes on from its last snapshot.
func (r *run) Detach() { r.cancel(errDetached) }

// Drain lets a streaming plan's sources give up what they have not read. What a bounded plan reads ends by itself.
func (r *run) Drain() {
	r.drainOnce.Do(func() { close(r.draining) })
}

func (r *run) Done() <-chan struct{} { return r.done }

func (r *run) main() {
	defer close(r.done)
	r.job.Events.State(jobpb.JobState_RUNNING)
	err := r.execute()
	if cause := context.Cause(r.ctx); cause != nil {
		err = cause // the rest are its consequences
	}
	r.report(err, r.release(err))
	r.dropSnapshots(err)
}

// report tells how the job ended, once nothing of it is left.
func (r *run) report(err, left error) {
	if left != nil {
		r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("cleaning up after the job: %v", left))
	}
	if errors.Is(err, errDetached) {
		return // it goes on elsewhere
	}
	r.reportMetrics(true)
	switch {
	case err == nil:
		r.job.Events.State(jobpb.JobState_DONE)
	case errors.Is(err, errCancelled):
		r.job.Events.State(jobpb.JobState_CANCELLED)
	default:
		r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_ERROR, stage.Describe(r.job.Plan, err))
		if r.kept {
			r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, keptHint(r.snapshots, r.job.ID))
		}
		r.job.Events.State(jobpb.JobState_FAILED)
	}
}

// execute runs all tasks to their end, or to the first failure.
func (r *run) execute() error {
	if r.job.Plan.Streaming {
		return r.stream()
	}
	if err := r.makeFolder(); err != nil {
		return err
	}
	for _, s := range r.job.Plan.Stages {
		made, err := r.open(s)
		if err != nil {
			return err
		}
		r.stages = append(r.stages, made)
	}
	group, ctx := errgroup.WithContext(r.ctx)
	// A harness that does not listen any more would hold its tasks up: the job's end, early or not, ends the harnesses.
	context.AfterFunc(ctx, func() {
		_ = r.closePool() // release waits for it, and tells what it says
	})
	var tasks []stage.Task
	for _, s := range r.stages {
		for _, t := range s.tasks {
			tasks = append(tasks, t.task)
		}
	}
	var telling sync.WaitGroup
	telling.Go(func() { r.tellProgress(ctx) })
	telling.Go(func() { streaming.Measure(ctx, tasks) })
	defer telling.Wait()
	for _, s := range r.stages {
		if s.plan.Input.Splittable && len(s.tasks) > 1 {
			group.Go(func() error { return s.share(ctx) })
		}
		for _, t := range s.tasks {
			group.Go(func() error { return t.main(ctx) })
		}
	}
	return group.Wait()
}

func (r *run) makeFolder() error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("folder for the job's files: %w", err)
	}
	return nil
}

// release gives back everything that the job held, but for its snapshots.
func (r *run) release(err error) error {
	var errs []error
	for _, s := range r.stages {
		errs = append(errs, s.close())
	}
	errs = append(errs, r.closePool(), r.store.Close(), os.RemoveAll(r.dir))
	r.giveBack()
	if r.kept = r.keeps(err); r.kept {
		errs = append(errs, streaming.DropPending(r.snapshots), noteFailure(r.snapshots, err))
	}
	return errors.Join(errs...)
}

// keeps tells whether the job's snapshots stay now that it has ended: those of one that has failed do, since it may be resumed. One that
// has taken none has nothing to keep.
func (r *run) keeps(err error) bool {
	if r.snapshots == "" || err == nil || errors.Is(err, errCancelled) || errors.Is(err, errDetached) {
		return false
	}
	last, listed := streaming.Latest(r.snapshots)
	return last > 0 || listed != nil || errors.Is(err, streaming.ErrRestore)
}

// dropSnapshots removes the snapshots of a job whose end has been reported: a server that is killed before that goes on with
// the job, and one that is killed before they are gone leaves them to the next one's Sweep. They stay if the job is to go on, or may be
// resumed.
func (r *run) dropSnapshots(err error) {
	if r.snapshots == "" || r.kept || errors.Is(err, errDetached) {
		return
	}
	if err := os.RemoveAll(r.snapshots); err != nil {
		r.log.Warn("snapshots of a job that is over; the next server tries again", "error", err)
	}
}

func (r *run) closePool() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return r.pool.Close(ctx)
}

// logged passes on what a harness logged: warnings and worse to the job's messages, all of it to the server's log.
func (r *run) logged(worker string, entry *fnpb.LogEntry) {
	text, importance, tell := harness.Logged(entry)
	if tell {
		r.job.Events.Message(importance, text)
	}
	r.log.Debug(text, "worker", worker, "severity", entry.GetSeverity(), "location", entry.GetLogLocation())
}
