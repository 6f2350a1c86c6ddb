package streaming

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"golang.org/x/sync/errgroup"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// Config is what a job needs. All fields are required, but for BundleBytes and Attempts.
type Config struct {
	Plan *plan.Plan
	// Parallelism is the number of tasks of a stage, but see stage.Tasks; KeyGroups how many slices the key space is cut into.
	Parallelism, KeyGroups int
	// Asked says that it was the job that asked for this parallelism: no stage gets more tasks.
	Asked bool
	// BundleBytes and Attempts are those of the tasks: see stage.Spec.
	BundleBytes, Attempts int
	// Store is the job's share of memory and spill space.
	Store *shuffle.Store
	// State is a folder for what tasks keep, in a folder each. Open, too, gives up when its context ends.
	State stage.State
	// Harness is the way to a harness of the environment for a stage's i-th task.
	Harness func(environment string, i int) stage.Harness
	// Failed ends the harnesses. It is called once a task has failed, while others may wait for a harness that does not
	// listen: Run returns when they have ended.
	Failed  func()
	Message func(jobpb.JobMessage_MessageImportance, string)
	// Metrics is what one attempt at a bundle measured, and whether it counts: see stage.Output.
	Metrics func(infos []*pipepb.MonitoringInfo, counts bool)
	// Attempted is the sum of that so far, over all runs of the job. Snapshots have it, for servers to come.
	Attempted func() ([]*pipepb.MonitoringInfo, error)
	// Draining is closed when sources are to give up what they have not read.
	Draining <-chan struct{}
	// Snapshots is the folder of the job's snapshots; "" when none are taken. SnapshotEvery is how often. A job goes on from
	// the last one that is there, whatever its parallelism was.
	Snapshots     string
	SnapshotEvery time.Duration
	// Now is the world's time.
	Now func() time.Time
	Log *slog.Logger
}

// Job is a running job.
type Job struct {
	cfg      Config
	stages   []*stageRun
	clock    *clock
	activity activity
	attempts atomic.Uint64 // numbers the attempts of the job's bundles
	digest   string        // of the plan; "" when no snapshots are taken
	snapshot uint64        // the number of the last snapshot
	kept     []uint64      // the snapshots that are to stay
	sums     sums          // of the last snapshot's files
	from     *manifest     // what the job goes on from; nil when it begins
	reports  chan report   // what tasks have written of the one that is being taken
	ended    chan struct{} // closed when all tasks are quiet, and all TestStreams are over

	mu   sync.Mutex
	left int // tasks that are not quiet, and the player
}

// stageRun is a stage of a running job.
type stageRun struct {
	plan  *plan.Stage
	tasks []*task
	views *stage.Views
}

// Open makes a job's tasks. The job is to be closed, whether it has run or not. The error wraps ErrRestore when the job has
// snapshots and cannot go on from them.
func Open(cfg Config) (*Job, error) {
	j := &Job{cfg: cfg, clock: newClock(cfg.Now, len(cfg.Plan.TestStreams) > 0), ended: make(chan struct{})}
	if !snapshottable(cfg.Plan) {
		j.cfg.Snapshots = ""
	}
	if err := j.restored(cfg.State.Wanted()); err != nil {
		return nil, err
	}
	j.reports = make(chan report)
	for _, s := range cfg.Plan.Stages {
		if err := j.stage(s); err != nil {
			return nil, errors.Join(j.unopened(fmt.Errorf("stage %q: %w", s.Name, err)), j.Close())
		}
	}
	j.connect()
	for _, s := range j.stages {
		for _, t := range s.tasks {
			t.told = make([]int64, 1+len(s.plan.SideInputs))
			for i := range t.told {
				t.told[i] = coder.MinTimestamp
			}
			if err := j.goOn(t); err != nil {
				return nil, errors.Join(j.unopened(err), j.Close())
			}
			j.left++
			j.activity.add(1)
			t.owed = 1
		}
	}
	if len(cfg.Plan.TestStreams) > 0 {
		j.left++
	}
	if j.left == 0 {
		// A pipeline of nothing but an empty composite: nobody is there to say that nothing more will come.
		close(j.ended)
	}
	return j, nil
}

// Close ends what is left of the job, which does not run any more.
func (j *Job) Close() error {
	var errs []error
	for _, s := range j.stages {
		for _, t := range s.tasks {
			if t.task != nil {
				errs = append(errs, t.task.Close())
			}
		}
		errs = append(errs, s.views.Close())
		for _, t := range s.tasks {
			errs = append(errs, t.inbox.spool.Close())
			if t.aside != nil {
				errs = append(errs, t.aside.Close())
			}
		}
	}
	return errors.Join(errs...)
}

// Run runs the job to its end, or to its first failure.
func (j *Job) Run(all context.Context) error {
	group, ctx := errgroup.WithContext(all)
	context.AfterFunc(ctx, func() {
		// Where nothing has failed, the group ends its context without a cause.
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			j.cfg.Failed()
		}
	})
	var tasks []stage.Task
	var measuring sync.WaitGroup
	for _, s := range j.stages {
		for _, t := range s.tasks {
			tasks = append(tasks, t.task)
			group.Go(func() error { return t.main(ctx) })
			if s.plan.Input.Splittable {
				group.Go(func() error { return t.checkpoints(ctx) })
			}
		}
	}
	if len(j.cfg.Plan.TestStreams) > 0 {
		group.Go(func() error { return j.play(ctx) })
	}
	group.Go(func() error { return j.drain(ctx) })
	if j.cfg.Snapshots != "" {
		group.Go(func() error { return j.snapshots(ctx) })
	}
	measuring.Go(func() { Measure(ctx, tasks) })
	err := group.Wait()
	measuring.Wait() // the group's context has ended
	if err != nil {
		return err
	}
	if j.cfg.Snapshots != "" && j.finalizes() {
		if err := j.lastSnapshot(all); err != nil {
			return fmt.Errorf("snapshot %d: %w", j.snapshot, err)
		}
	}
	return j.commit()
}

// commit tells the tasks of a job that has come to its end that all they did is safe.
func (j *Job) commit() error {
	for _, s := range j.stages {
		for _, t := range s.tasks {
			if err := t.task.Committed(context.Background(), math.MaxUint64); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain waits until the job is to be drained, and tells the tasks; or until it has ended.
func (j *Job) drain(ctx context.Context) error {
	select {
	case <-j.cfg.Draining:
		return j.toAll(ctx, event{kind: drain})
	case <-j.ended:
	case <-ctx.Done():
	}
	return nil
}

// toAll gives all tasks an event.
func (j *Job) toAll(ctx context.Context, e event) error {
	for _, s := range j.stages {
		for _, t := range s.tasks {
			if _, err := t.inbox.put(ctx, 0, e, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// quiet says that nothing more will come of a task, or of the player.
func (j *Job) quiet() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.left--; j.left == 0 {
		close(j.ended)
	}
}

// unquiet takes a task's word back: it has got something to do from another that is not quiet.
func (j *Job) unquiet() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left++
}

// stage opens a stage's tasks.
func (j *Job) stage(s *plan.Stage) error {
	views, err := stage.NewViews(j.cfg.Plan, s, j.cfg.Store)
	if err != nil {
		return err
	}
	made := &stageRun{plan: s, views: views}
	j.stages = append(j.stages, made)
	parallelism := stage.Tasks(s, j.cfg.Parallelism, j.cfg.KeyGroups, j.cfg.Asked)
	if s.Input.Kind == plan.Impulse || s.Input.Kind == plan.Played {
		parallelism = 1
	}
	for i := range parallelism {
		t := &task{
			job: j, stage: made, index: i, inbox: newInbox(j.cfg.Store, &j.activity),
			targets: make([][]target, len(j.cfg.Plan.Exchanges)), turn: make([]int, len(j.cfg.Plan.Exchanges)),
		}
		made.tasks = append(made.tasks, t)
		if t.task, err = j.open(t, parallelism); err != nil {
			return err
		}
	}
	if len(j.cfg.Plan.TestStreams) == 0 { // with one, the time at which something happens is part of the test
		made.share()
	}
	return nil
}

// open makes the task itself.
func (j *Job) open(t *task, parallelism int) (stage.StreamingTask, error) {
	s := t.stage.plan
	spec := stage.Spec{
		Plan:        j.cfg.Plan,
		Stage:       s,
		Index:       t.index,
		Parallelism: parallelism,
		KeyGroups:   j.cfg.KeyGroups,
		Store:       j.cfg.Store,
		Views:       t.stage.views,
		Out:         t,
		State:       j.cfg.State,
		BundleBytes: j.cfg.BundleBytes,
		Attempts:    j.cfg.Attempts,
		Ahead:       j.clock.ahead,
		Now:         j.clock.time,
		Restore:     j.parts(s.Index, t.index, parallelism),
		Log:         j.cfg.Log,
	}
	spec.State.Directory = filepath.Join(j.cfg.State.Directory, fmt.Sprintf("%d-%d", s.Index, t.index))
	if s.Environment != "" {
		spec.Harness = j.cfg.Harness(s.Environment, t.index)
	}
	if g := s.Input.Group; g != nil && g.Merging != nil {
		spec.MergeHarness = j.cfg.Harness(g.Merging.Environment, t.index)
	}
	made, err := stage.Open(spec)
	if err != nil {
		return nil, err
	}
	streaming, ok := made.(stage.StreamingTask)
	if !ok {
		return nil, errors.Join(errors.New("its tasks take no watermarks"), made.Close())
	}
	return streaming, nil
}

// connect joins senders to receivers.
func (j *Job) connect() {
	for _, s := range j.stages {
		for i := range s.plan.SideInputs {
			for _, t := range s.tasks[1:] {
				t.slot(1 + i) // from the stage's first task: see task.watermark
			}
		}
		if s.plan.Input.Kind == plan.Played {
			s.tasks[0].slot(stage.MainInput) // from the player
		}
	}
	for _, e := range j.cfg.Plan.Exchanges {
		to := j.stages[e.To]
		for i, from := range j.stages[e.From].tasks {
			switch {
			case e.Side >= 0:
				from.join(e.ID, to.tasks[0], 1+e.Side)
			case e.Kind == plan.Forward:
				from.join(e.ID, to.tasks[i%len(to.tasks)], stage.MainInput)
			default:
				for _, t := range to.tasks {
					from.join(e.ID, t, stage.MainInput)
				}
			}
		}
	}
}
