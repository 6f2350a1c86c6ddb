package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// stageRun is a stage of a running job.
type stageRun struct {
	run        *run
	plan       *plan.Stage
	tasks      []*taskRun
	views      *stage.Views
	main       *input
	sides      []*input
	sideInputs sync.Mutex   // held by the task that fills the views
	ended      atomic.Int32 // how many tasks have ended
}

// taskRun is a task of a running job.
type taskRun struct {
	stage *stageRun
	index int
	task  stage.Task
	busy  atomic.Int64 // the size of the block that it is processing; 0 when it is idle

	mu      sync.Mutex // outputs come from any goroutine of the task
	attempt stage.Attempt
	sent    map[receiver]bool // who has blocks of the attempt
}

// receiver is where blocks of an attempt wait to be settled: a task with a keyed input, a queue, or a side input's.
type receiver interface {
	Settle(ctx context.Context, attempt stage.Attempt, keep bool) error
}

// open makes a stage's tasks.
func (r *run) open(s *plan.Stage) (*stageRun, error) {
	views, err := stage.NewViews(r.job.Plan, s, r.store)
	if err != nil {
		return nil, fmt.Errorf("stage %q: %w", s.Name, err)
	}
	made := &stageRun{run: r, plan: s, views: views}
	for _, side := range s.SideInputs {
		made.sides = append(made.sides, newInput(len(side.Exchanges), r.store.NewSpool(), false))
	}
	parallelism := stage.Tasks(s, r.parallelism, r.cfg.KeyGroups, r.asked)
	tasks := parallelism
	var queue *shuffle.Spool
	switch s.Input.Kind {
	case plan.Impulse:
		tasks = 1
	case plan.Elements:
		queue = r.store.NewSpool()
	}
	made.main = newInput(len(s.Input.Exchanges), queue, s.Input.Splittable)
	for i := range tasks {
		t := &taskRun{stage: made, index: i}
		spec := stage.Spec{
			Plan:        r.job.Plan,
			Stage:       s,
			Index:       i,
			Parallelism: parallelism,
			KeyGroups:   r.cfg.KeyGroups,
			Store:       r.store,
			Views:       views,
			Out:         t,
			BundleBytes: r.cfg.BundleBytes,
			Attempts:    r.cfg.Attempts,
			State: stage.State{
				Directory: filepath.Join(r.dir, "state", fmt.Sprintf("%d-%d", s.Index, i)), Cache: r.cfg.State, Context: r.ctx,
			},
			Log: r.log,
		}
		if s.Environment != "" {
			spec.Harness = r.harness(s.Environment, i)
		}
		if g := s.Input.Group; g != nil && g.Merging != nil {
			spec.MergeHarness = r.harness(g.Merging.Environment, i)
		}
		if t.task, err = stage.Open(spec); err != nil {
			return nil, errors.Join(err, made.close())
		}
		made.tasks = append(made.tasks, t)
	}
	return made, nil
}

// harness is the way to a harness of the environment for a stage's i-th task.
func (r *run) harness(environment string, i int) stage.Harness {
	return func(ctx context.Context) (*fnapi.Session, error) {
		return r.pool.Session(ctx, environment, i%r.pool.Workers(environment))
	}
}

// close ends what is left of the stage. It is idempotent.
func (s *stageRun) close() error {
	var errs []error
	for _, t := range s.tasks {
		errs = append(errs, t.task.Close())
	}
	errs = append(errs, s.views.Close())
	for _, in := range append(s.sides, s.main) {
		errs = append(errs, in.close())
	}
	return errors.Join(errs...)
}

// main drives a task through its life.
func (t *taskRun) main(ctx context.Context) error {
	s := t.stage
	for i := range s.sides {
		if err := t.sideInput(ctx, i); err != nil {
			return err
		}
	}
	if s.main.queue != nil {
		if err := t.drain(ctx, s.main, stage.MainInput); err != nil {
			return err
		}
	}
	if err := s.main.wait(ctx); err != nil {
		return err
	}
	if err := t.task.End(ctx, stage.MainInput); err != nil {
		return err
	}
	if err := t.task.Close(); err != nil {
		return err
	}
	if int(s.ended.Add(1)) == len(s.tasks) {
		return s.finish()
	}
	return nil
}

// sideInput makes a side input readable. One process is one worker: the first task to come fills the view for all.
func (t *taskRun) sideInput(ctx context.Context, i int) error {
	s := t.stage
	if err := s.sides[i].wait(ctx); err != nil {
		return err
	}
	s.sideInputs.Lock()
	defer s.sideInputs.Unlock()
	if err := t.drain(ctx, s.sides[i], stage.MainInput+1+i); err != nil {
		return err
	}
	return t.task.End(ctx, stage.MainInput+1+i)
}

// drain brings a queue's blocks to the task until the queue has ended.
func (t *taskRun) drain(ctx context.Context, in *input, number int) error {
	for {
		block, err := in.queue.Get(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stage %q: input: %w", t.stage.plan.Name, err)
		}
		t.busy.Store(int64(len(block)))
		err = t.task.Process(ctx, stage.Delivery{Input: number}, block)
		t.busy.Store(0)
		if err != nil {
			return err
		}
		in.processed(len(block))
	}
}

// finish is called when the stage's last task has ended: it ends the stage's exchanges and frees what it held.
func (s *stageRun) finish() error {
	r := s.run
	r.job.Events.Message(jobpb.JobMessage_JOB_MESSAGE_DETAILED,
		fmt.Sprintf("stage %d of %d done: %s", s.plan.Index+1, len(r.stages), s.plan.Name))
	for _, out := range s.plan.Outputs {
		for _, id := range out.Exchanges {
			e := r.job.Plan.Exchanges[id]
			to := r.stages[e.To]
			if e.Side >= 0 {
				to.sides[e.Side].senderEnded()
			} else {
				to.main.senderEnded()
			}
		}
	}
	return s.close()
}

// Emit is a task's output: see stage.Output.
func (t *taskRun) Emit(ctx context.Context, exchange, keyGroup int, block []byte) error {
	r := t.stage.run
	e := r.job.Plan.Exchanges[exchange]
	to := r.stages[e.To]
	switch {
	case e.Side >= 0:
		side := to.sides[e.Side]
		return side.put(ctx, t.sending(side), block)
	case e.Kind == plan.Keyed:
		owner := to.tasks[keyGroup*len(to.tasks)/r.cfg.KeyGroups].task
		return owner.Process(ctx, stage.Delivery{KeyGroup: keyGroup, Attempt: t.sending(owner)}, block)
	default:
		return to.main.put(ctx, t.sending(to.main), block)
	}
}

// sending is the task's attempt under way, of which a block goes to a receiver.
func (t *taskRun) sending(to receiver) stage.Attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.attempt == 0 {
		t.attempt = stage.Attempt(t.stage.run.attempts.Add(1))
		t.sent = map[receiver]bool{}
	}
	t.sent[to] = true
	return t.attempt
}

// Settle ends the attempt at each receiver.
func (t *taskRun) Settle(ctx context.Context, keep bool) error {
	t.mu.Lock()
	attempt, sent := t.attempt, t.sent
	t.attempt, t.sent = 0, nil
	t.mu.Unlock()
	for to := range sent {
		if err := to.Settle(ctx, attempt, keep); err != nil {
			return err
		}
	}
	return nil
}

// Quiet needs no answer here: a bounded task's End has returned.
func (t *taskRun) Quiet() {}

// Message is a task's message to the job's log.
func (t *taskRun) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	t.stage.run.job.Events.Message(importance, text)
}

// Metrics is what an attempt at one of the task's bundles measured.
func (t *taskRun) Metrics(infos []*pipepb.MonitoringInfo, counts bool) {
	t.stage.run.addMetrics(infos, counts)
}
