package local

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	run   *run
	plan  *plan.Stage
	tasks []*taskRun
	views *stage.Views
	main  *input
	sides []*input
	queue *shuffle.Spool // of a stage that takes elements; shared by its tasks: an idle one takes the next block
	ended atomic.Int32   // how many tasks have ended
}

// input is an input of a stage: it has ended when all of its senders have.
type input struct {
	senders atomic.Int32
	ended   chan struct{}
}

func newInput(senders int) *input {
	in := &input{ended: make(chan struct{})}
	in.senders.Store(int32(senders))
	if senders == 0 {
		close(in.ended)
	}
	return in
}

// senderEnded says that one sender will send no more, and tells whether it was the last.
func (in *input) senderEnded() bool {
	if in.senders.Add(-1) > 0 {
		return false
	}
	close(in.ended)
	return true
}

func (in *input) wait(ctx context.Context) error {
	select {
	case <-in.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// taskRun is a task of a running job.
type taskRun struct {
	stage *stageRun
	index int
	task  stage.Task
}

// open makes a stage's tasks.
func (r *run) open(s *plan.Stage) (*stageRun, error) {
	views, err := stage.NewViews(r.job.Plan, s, r.store)
	if err != nil {
		return nil, fmt.Errorf("stage %q: %w", s.Name, err)
	}
	made := &stageRun{run: r, plan: s, views: views, main: newInput(len(s.Input.Exchanges))}
	for _, side := range s.SideInputs {
		made.sides = append(made.sides, newInput(len(side.Exchanges)))
	}
	parallelism := r.parallelism
	switch s.Input.Kind {
	case plan.Impulse:
		parallelism = 1
	case plan.Elements:
		made.queue = r.store.NewSpool()
	}
	for i := range parallelism {
		t := &taskRun{stage: made, index: i}
		spec := stage.Spec{
			Plan:        r.job.Plan,
			Stage:       s,
			Index:       i,
			Parallelism: r.parallelism,
			KeyGroups:   r.cfg.KeyGroups,
			Store:       r.store,
			Views:       views,
			Out:         t,
			Log:         r.log,
		}
		if s.Environment != "" {
			spec.Harness = func(ctx context.Context) (*fnapi.Session, error) {
				return r.pool.Session(ctx, s.Environment, i%r.pool.Workers(s.Environment))
			}
		}
		if t.task, err = stage.Open(spec); err != nil {
			return nil, errors.Join(err, made.close())
		}
		made.tasks = append(made.tasks, t)
	}
	return made, nil
}

// close ends what is left of the stage. It is idempotent.
func (s *stageRun) close() error {
	var errs []error
	for _, t := range s.tasks {
		errs = append(errs, t.task.Close())
	}
	errs = append(errs, s.views.Close())
	if s.queue != nil {
		errs = append(errs, s.queue.Close())
	}
	return errors.Join(errs...)
}

// main drives a task through its life.
func (t *taskRun) main(ctx context.Context) error {
	s := t.stage
	for i, side := range s.sides {
		if err := side.wait(ctx); err != nil {
			return err
		}
		if err := t.task.End(ctx, stage.MainInput+1+i); err != nil {
			return err
		}
	}
	if s.queue != nil {
		if err := t.drain(ctx); err != nil {
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

// drain brings the queue's blocks to the task until the queue has ended.
func (t *taskRun) drain(ctx context.Context) error {
	for {
		block, err := t.stage.queue.Get(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("stage %q: input: %w", t.stage.plan.Name, err)
		}
		if err := t.task.Process(ctx, stage.MainInput, 0, block); err != nil {
			return err
		}
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
			} else if to.main.senderEnded() && to.queue != nil {
				to.queue.Seal()
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
		// One process, one worker: any task takes the side input's blocks for all.
		return to.tasks[0].task.Process(ctx, stage.MainInput+1+e.Side, 0, block)
	case e.Kind == plan.Keyed:
		owner := keyGroup * len(to.tasks) / r.cfg.KeyGroups
		return to.tasks[owner].task.Process(ctx, stage.MainInput, keyGroup, block)
	default:
		return to.queue.Put(ctx, block)
	}
}

// Quiet needs no answer here: a bounded task's End has returned.
func (t *taskRun) Quiet() {}

// Message is a task's message to the job's log.
func (t *taskRun) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	t.stage.run.job.Events.Message(importance, text)
}

// Metrics is what one of the task's bundles measured.
func (t *taskRun) Metrics(infos []*pipepb.MonitoringInfo) { t.stage.run.addMetrics(infos) }
