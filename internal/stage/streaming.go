package stage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"trestle/internal/beam/coder"
)

// StreamingTask is the part of the task contract that only tasks of streaming plans get (plan.Plan.Streaming): [Open]
// answers with one for these. Inputs never end there: a watermark of coder.MaxTimestamp says that nothing more will
// arrive, so End and Settle are not called, and blocks are delivered when the bundle that sent them counts (attempt 0).
//
// The engine makes these calls one at a time, in the order in which things happened: a watermark comes behind the blocks
// that were sent before it. Each returns when all that the task has to do at once has been done; what it emitted
// meanwhile counts as Output.Settle says. Calls may take as long as the user's code does: that is back-pressure.
type StreamingTask interface {
	Task
	// Watermark says that no record before the time, in milliseconds, will arrive on the input: what is due by event time
	// happens now. Watermarks of an input never go back: one that does is an error. The same again is nothing.
	Watermark(ctx context.Context, input int, millis int64) error
	// Clock says what time it is, for processing time, which tasks take from nowhere else; synchronized processing time
	// is the same. What is due happens now. An engine calls it before the first block, when the time that WakeAt named has
	// come, and otherwise as often as it wants timers to know the time. It never goes back.
	Clock(ctx context.Context, now time.Time) error
	// Flush finishes the bundle that is open, if one is: all that follows from what arrived so far has then been emitted,
	// and the output watermark told. An engine calls it when nothing more waits for the task, and when a record has waited
	// for as long as it may; a bundle that is full is finished without it.
	Flush(ctx context.Context) error
	// Readable says that another task of the stage on this worker has told the version of the side inputs, which the two
	// share (StreamingOutput.Readable).
	Readable(ctx context.Context, version uint64) error
	// Drain says that the job is to end soon, without losing what it has taken: sources give up what they have not read,
	// and what waits for processing time does so no longer once the inputs' watermarks are at their end.
	Drain(ctx context.Context) error
	// Snapshot flushes, and writes what the task keeps into the directory, which is empty and the engine's: files that are
	// not changed any more, most of them hard links to what earlier snapshots have under the same name and size. The task
	// goes on after it. The directory is not forced to disk. Snapshots are numbered upwards.
	Snapshot(ctx context.Context, id uint64, directory string) error
	// Committed says that a snapshot is safe: what was waiting for that (bundle finalization) happens now. Later snapshots
	// cover earlier ones, and math.MaxUint64, which stands for the end of the job, covers all.
	Committed(ctx context.Context, id uint64) error
}

// StreamingOutput is the engine's side of the contract for tasks of streaming plans, which are given one as Spec.Out.
//
// Output.Quiet comes, once, when all inputs' watermarks are at coder.MaxTimestamp and nothing is left that could follow:
// no residual, timer or buffered element. It is behind the output watermark of coder.MaxTimestamp. Nothing but Close is
// to follow then, though Clock, Flush, Snapshot and Committed do no harm.
type StreamingOutput interface {
	Output
	// Watermark says that no record before the time will be emitted through any exchange: the minimum of the main input's
	// watermark and of all holds (buffered elements, timers' output timestamps, residuals, bundles under way). It comes
	// behind all blocks that it is true of, and when these count; it never goes back.
	Watermark(ctx context.Context, millis int64) error
	// Readable says that windows of the stage's side inputs have become readable. The engine tells all other tasks of the stage
	// on this worker (StreamingTask.Readable), by the way by which it brings them the watermarks of side inputs. Versions grow.
	Readable(ctx context.Context, version uint64) error
	// WakeAt asks for a Clock at this time or soon after; the latest call counts. The zero time asks for none.
	WakeAt(at time.Time)
}

// Restore is a part of an earlier snapshot that has something of what the task owns.
type Restore struct {
	// Directory is what Snapshot has filled. The task links or copies what it needs: it may be gone once Open has returned.
	Directory string
	// Index and Parallelism are those of the task that made it: it has what that one owned.
	Index, Parallelism int
}

// timed is an intake in which things become due.
type timed interface {
	// advance does all that is due. Nothing of the runner's is under way when it returns, or hold tells of it.
	advance(ctx context.Context, t times) error
	// hold is the earliest timestamp of what may still come out of what is kept; coder.MaxTimestamp when nothing is.
	hold() (int64, error)
	// wake is when the next thing is due by processing time; zero when nothing is.
	wake() (time.Time, error)
	// snapshot writes what is kept.
	snapshot(directory string) error
}

// times is how far time has come for a task.
type times struct {
	input    int64 // the main input's watermark
	sides    []int64
	now      time.Time
	draining bool
}

// stream is the state of a task of a streaming plan.
type stream struct {
	out   StreamingOutput
	times times
	told  int64     // the output watermark
	woken time.Time // what WakeAt was told
	quiet bool
	main  int64 // the main input's watermark; times.input may be behind it
	ended bool  // the main input has
	gate  *gate // nil unless the stage has side inputs
	// stable is nil unless the stage's main input is to be stable.
	stable *stable
	look   bool // what waits may pass
}

var errNotStreaming = errors.New("the plan is not a streaming one")

func newStream(s Spec) (*stream, error) {
	if !s.Plan.Streaming {
		return nil, nil
	}
	out, ok := s.Out.(StreamingOutput)
	if !ok {
		return nil, errors.New("the engine cannot run streaming plans: its output takes no watermarks")
	}
	st := &stream{out: out, told: coder.MinTimestamp, main: coder.MinTimestamp, times: times{input: coder.MinTimestamp}}
	for range s.Stage.SideInputs {
		st.times.sides = append(st.times.sides, coder.MinTimestamp)
	}
	return st, nil
}

// streaming runs an event of a streaming plan, and tells what has changed by it.
func (t *task) streaming(ctx context.Context, what string, f func(context.Context) error) error {
	return t.call(ctx, what, func(ctx context.Context) error {
		if t.stream == nil {
			return errNotStreaming
		}
		if err := f(ctx); err != nil {
			return err
		}
		return t.tell(ctx)
	})
}

func (t *task) Watermark(ctx context.Context, input int, millis int64) error {
	return t.streaming(ctx, "watermark", func(ctx context.Context) error {
		at := &t.stream.main
		if q := t.stream.stable; q != nil {
			at = &q.arrived
		}
		if input != MainInput {
			if input > len(t.stream.times.sides) {
				return fmt.Errorf("of input %d, which the stage does not have", input)
			}
			at = &t.stream.times.sides[input-1]
		}
		if millis < *at || millis > coder.MaxTimestamp {
			return fmt.Errorf("of input %d: from %d to %d: a watermark does not go back, nor past the end of time", input, *at, millis)
		}
		if *at == millis {
			return nil
		}
		*at = millis
		if q := t.stream.stable; q != nil && q.left == 0 {
			t.stream.main = q.arrived
		}
		if input != MainInput {
			t.stream.look = true
			if err := t.fill(ctx, saying, func(l *live) error { return l.watermark(input-1, millis) }); err != nil {
				return err
			}
		}
		return t.advance(ctx)
	})
}

// Readable implements StreamingTask.
func (t *task) Readable(ctx context.Context, version uint64) error {
	return t.streaming(ctx, "side inputs", func(ctx context.Context) error {
		if t.stream.gate == nil {
			return errors.New("the stage has none")
		}
		if err := t.readable(ctx, version); err != nil {
			return err
		}
		return t.advance(ctx)
	})
}

func (t *task) Clock(ctx context.Context, now time.Time) error {
	return t.streaming(ctx, "clock", func(ctx context.Context) error {
		if now.Before(t.stream.times.now) {
			return fmt.Errorf("it went back from %v to %v", t.stream.times.now, now)
		}
		t.stream.times.now = now
		if t.stream.gate != nil {
			if err := t.fill(ctx, ticking, (*live).tick); err != nil {
				return err
			}
		}
		if err := t.advance(ctx); err != nil {
			return err
		}
		return t.letThrough(ctx, 0) // what the snapshot has that the task began with
	})
}

func (t *task) Flush(ctx context.Context) error {
	return t.streaming(ctx, "flush", t.flush)
}

// flush finishes the bundle under way, and does what is due by what it has set, until nothing is under way.
func (t *task) flush(ctx context.Context) error {
	for {
		if err := t.runner.cut(ctx); err != nil {
			return err
		}
		if err := t.advance(ctx); err != nil || !t.runner.busy() {
			return err
		}
	}
}

func (t *task) Drain(ctx context.Context) error {
	return t.streaming(ctx, "drain", func(ctx context.Context) error {
		t.stream.times.draining = true
		return t.advance(ctx)
	})
}

func (t *task) Snapshot(ctx context.Context, id uint64, directory string) error {
	return t.streaming(ctx, "snapshot", func(ctx context.Context) error {
		if err := t.flush(ctx); err != nil {
			return err
		}
		if err := writeFormat(directory); err != nil {
			return err
		}
		if in, ok := t.intake.(interface{ snapshot(directory string) error }); ok {
			if err := in.snapshot(directory); err != nil {
				return err
			}
		}
		if b, ok := t.runner.(*bundles); ok {
			b.covered(id)
		}
		if b := t.puttingOff(); b != nil {
			if err := b.later.snapshot(directory); err != nil {
				return err
			}
		}
		if q := t.stream.stable; q != nil {
			if err := q.snapshot(directory); err != nil {
				return err
			}
			q.reached(id)
		}
		if t.stream.gate == nil {
			return nil
		}
		if err := t.stream.gate.waits.snapshot(directory); err != nil {
			return err
		}
		return t.spec.Views.snapshot(t.spec.Index, directory)
	})
}

func (t *task) Committed(ctx context.Context, id uint64) error {
	return t.streaming(ctx, "committed", func(ctx context.Context) error {
		if b, ok := t.runner.(*bundles); ok {
			b.committed(ctx, id)
		}
		return t.letThrough(ctx, id)
	})
}

// reach is how far event time has come for what the task does: not past elements of a stage with state or timers that wait
// for a side input, lest timers overtake them.
func (t *task) reach() {
	s := t.stream
	if _, ok := t.intake.(*stateful); ok && s.gate != nil {
		s.times.input = max(s.times.input, min(s.main, s.gate.waits.hold()))
		return
	}
	s.times.input = s.main
}

// advance does what is due: what waited for a side input comes first.
func (t *task) advance(ctx context.Context) error {
	if err := t.release(ctx); err != nil {
		return err
	}
	if s := t.stream; s.main == coder.MaxTimestamp && !s.ended {
		s.ended = true
		if err := t.intake.end(ctx); err != nil {
			return err
		}
		if err := t.runner.cut(ctx); err != nil {
			return err
		}
	}
	t.reach()
	if in, ok := t.intake.(timed); ok {
		if err := in.advance(ctx, t.stream.times); err != nil {
			return err
		}
	}
	if b := t.puttingOff(); b != nil {
		return b.resume(ctx, t.stream.times)
	}
	return nil
}

// puttingOff is the task's runner if it may put work off; nil otherwise.
func (t *task) puttingOff() *bundles {
	if b, ok := t.runner.(*bundles); ok && b.later != nil {
		return b
	}
	return nil
}

// tell tells the output watermark, the next wake-up and the end, as far as they have changed, and what has been dropped.
func (t *task) tell(ctx context.Context) error {
	s := t.stream
	if in, ok := t.intake.(dropper); ok {
		if infos := in.dropped().report(); infos != nil {
			s.out.Metrics(infos, true)
		}
	}
	hold, wake := coder.MaxTimestamp, time.Time{}
	if in, ok := t.intake.(timed); ok {
		var err error
		if hold, err = in.hold(); err != nil {
			return err
		}
		if wake, err = in.wake(); err != nil {
			return err
		}
	}
	if b := t.puttingOff(); b != nil {
		held, err := b.later.hold()
		if err != nil {
			return err
		}
		hold = min(hold, held)
		at, err := b.later.wake()
		if err != nil {
			return err
		}
		if wake.IsZero() || !at.IsZero() && at.Before(wake) {
			wake = at
		}
	}
	if s.gate != nil {
		hold = min(hold, s.gate.waits.hold())
		if err := s.gate.tell(s.times.now); err != nil {
			return err
		}
		if at := s.gate.wake(); wake.IsZero() || !at.IsZero() && at.Before(wake) {
			wake = at
		}
	}
	if t.runner.busy() {
		hold = min(hold, s.told) // what is under way may put out whatever was possible when it came
	}
	if to := min(s.times.input, hold); to > s.told {
		if err := s.out.Watermark(ctx, to); err != nil {
			return err
		}
		s.told = to
	}
	if err := t.forget(ctx); err != nil {
		return err
	}
	alarm := wake
	if s.gate != nil {
		// Others of the stage may need a side input's pane when this task is quiet.
		at, err := t.spec.Views.wake(t.spec.Index)
		if err != nil {
			return err
		}
		if alarm.IsZero() || !at.IsZero() && at.Before(alarm) {
			alarm = at
		}
	}
	if !alarm.Equal(s.woken) {
		s.out.WakeAt(alarm)
		s.woken = alarm
	}
	if s.told == coder.MaxTimestamp && wake.IsZero() && !s.quiet {
		s.quiet = true
		s.out.Quiet()
	}
	return nil
}
