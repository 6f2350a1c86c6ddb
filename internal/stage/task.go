package stage

import (
	"context"
	"errors"
	"fmt"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/shuffle"
)

// Task is one parallel instance of a stage. An engine drives it through these events and nothing else: it is the task
// contract in process (docs/protocols/task.md). Calls may come from any goroutine, several at once: the task takes them one
// by one, but for Close, which ends the one under way. The order of calls is the engine's affair. An error from any call
// is final: the engine closes the task. Tasks of streaming plans are a [StreamingTask].
type Task interface {
	// Process brings a block of records. A side input's blocks reach each worker once, through any one of its tasks of
	// the stage. The block stays the caller's once Process has returned. Process may block: that is back-pressure.
	Process(ctx context.Context, from Delivery, block []byte) error
	// Settle says what became of an attempt: its blocks count from now on, or they are to be forgotten. No more blocks
	// of it follow.
	Settle(ctx context.Context, attempt Attempt, keep bool) error
	// End says that nothing more will arrive on the input. A side input's End makes it readable, and comes before the
	// first block of a main input of elements, and before the main input's End in any case. The main input's End
	// returns when the task has emitted all that follows from its input.
	End(ctx context.Context, input int) error
	// Close releases everything: an open bundle is abandoned, files are deleted. It is idempotent, and returns when
	// no call is under way any more.
	Close() error
}

// Attempt tells which try at a bundle a block was sent by, so that the blocks of a failed one can be forgotten. Attempt 0
// is for blocks that are never taken back: an engine that restarts whole tasks sends nothing else.
type Attempt = shuffle.Attempt

// Delivery is where a block belongs.
type Delivery struct {
	// Input is MainInput, or 1 + the index of a side input.
	Input int
	// KeyGroup is the block's key group, of a keyed input; otherwise it is 0.
	KeyGroup int
	// Attempt is not 0 on keyed inputs only: such a block counts once its attempt has been settled.
	Attempt Attempt
}

// Output is the engine's side of the contract. Its methods may be called from any goroutine of the task.
type Output interface {
	// Emit passes a block on through an exchange, named by its id in the plan. Blocks of one key group are passed on
	// in the order of the calls. The block stays the task's once Emit has returned. Emit may block: that is
	// back-pressure.
	Emit(ctx context.Context, exchange, keyGroup int, block []byte) error
	// Settle ends a bundle: what has been emitted since the last Settle counts (keep), or is to be forgotten, because the
	// bundle has failed and is tried again. An engine that cannot take blocks back answers with an error, and restarts
	// the task in its own way.
	Settle(ctx context.Context, keep bool) error
	// Quiet says that nothing more can come of this task: its input has ended and no residual is left.
	Quiet()
	// Message is for a person to read, in the job's event log.
	Message(importance jobpb.JobMessage_MessageImportance, text string)
	// Metrics brings what one attempt at a bundle measured, to be added to the job's. Whether it counts is as Settle said of what
	// it put out: if so, it is added to the job's committed and attempted metrics, and otherwise to the latter only. Of an
	// attempt that failed it is what the harness had last said while it worked, which may be nothing.
	Metrics(infos []*pipepb.MonitoringInfo, counts bool)
}

// MainInput is the index of a stage's main input; its side inputs follow in the order of the plan.
const MainInput = 0

// task implements Task.
type task struct {
	spec   Spec
	intake intake
	runner runner
	stream *stream // nil unless the plan is a streaming one

	ctx    context.Context // ends with Close, or with State.Context
	cancel context.CancelCauseFunc
	busy   sync.Mutex // held by the call under way: Close waits for it
	closed bool
	failed error // of an earlier call: it is the answer to every later one
}

var errClosed = errors.New("task closed")

// call runs one event of the contract: it ends early when the task is closed meanwhile.
func (t *task) call(ctx context.Context, what string, f func(context.Context) error) error {
	return t.brief(what, func() error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		defer context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })()
		return f(ctx)
	})
}

// brief runs an event that waits for nobody: Close waits for it.
func (t *task) brief(what string, f func() error) error {
	t.busy.Lock()
	defer t.busy.Unlock()
	if t.closed {
		return t.errorf(what, errClosed)
	}
	if t.failed != nil {
		return t.failed
	}
	if err := f(); err != nil {
		t.failed = t.errorf(what, err)
	}
	return t.failed
}

func (t *task) errorf(what string, err error) error {
	return taskError{fmt.Errorf("stage %q, task %d: %s: %w", t.spec.Stage.Name, t.spec.Index, what, err), t.spec.Stage.Name}
}

func (t *task) Process(ctx context.Context, from Delivery, block []byte) error {
	if g, ok := t.intake.(*groups); ok && from.Input == MainInput && t.stream == nil {
		// These blocks are small and many, and only put away: a context of their own would cost more than that.
		return t.brief("process", func() error { return g.process(ctx, from, block) })
	}
	return t.call(ctx, "process", func(ctx context.Context) error {
		if from.Input != MainInput && t.stream == nil {
			return t.spec.Views.add(from.Input-1, block)
		}
		if t.stream == nil {
			return t.intake.process(ctx, from, block)
		}
		if from.Input != MainInput {
			if from.Input > len(t.stream.times.sides) {
				return fmt.Errorf("a block for input %d, which the stage does not have", from.Input)
			}
			if err := t.fill(ctx, bringing, func(l *live) error { return l.add(from.Input-1, block) }); err != nil {
				return err
			}
			if err := t.advance(ctx); err != nil {
				return err
			}
			return t.tell(ctx)
		}
		process := t.intake.process
		if q := t.stream.stable; q != nil {
			process = func(_ context.Context, from Delivery, block []byte) error { return q.add(from, block) }
		}
		if err := process(ctx, from, block); err != nil {
			return err
		}
		return t.tell(ctx)
	})
}

func (t *task) Settle(ctx context.Context, attempt Attempt, keep bool) error {
	return t.call(ctx, "settle", func(context.Context) error { return t.intake.settle(attempt, keep) })
}

func (t *task) End(ctx context.Context, input int) error {
	return t.call(ctx, "end of input", func(ctx context.Context) error {
		if input != MainInput {
			return t.spec.Views.end(input - 1)
		}
		if err := t.intake.end(ctx); err != nil {
			return err
		}
		if err := t.runner.finish(ctx); err != nil {
			return err
		}
		t.spec.Out.Quiet()
		return nil
	})
}

func (t *task) Close() error {
	t.cancel(errClosed)
	t.busy.Lock()
	defer t.busy.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := errors.Join(t.runner.abandon(), t.intake.close())
	if t.stream != nil && t.stream.gate != nil {
		err = errors.Join(err, t.stream.gate.waits.close())
	}
	if t.stream != nil && t.stream.stable != nil {
		err = errors.Join(err, t.stream.stable.close())
	}
	return err
}
