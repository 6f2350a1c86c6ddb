package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
)

// stateful is the intake of a stage whose first transform has state or timers. Elements come in bundles of many keys;
// timers fire in bundles of their own, one of a key at a time, so that each sees what the one before has changed.
//
// Bounded input is gathered until all of a key's is there; then keys are processed some at a time, all of their timers
// fire, and what was kept of them goes. Unbounded input is processed as it comes.
type stateful struct {
	spec    Spec
	state   *plan.State
	runner  *bundles
	kept    *kept
	gather  *shuffle.Grouper // nil when the plan is a streaming one
	buf     []byte
	taken   int // bytes of the bundle under way
	reached int64
	drops   drops
}

func newStateful(s Spec, r runner) (*stateful, error) {
	b, ok := r.(*bundles)
	if !ok {
		return nil, errors.New("a stage with state has no environment")
	}
	in := &stateful{spec: s, state: s.Stage.Input.State, runner: b, reached: coder.MinTimestamp, drops: drops{transform: s.Stage.Input.State.Transform}}
	var err error
	if in.kept, err = newKept(s); err != nil {
		return nil, err
	}
	if err := in.kept.restore(); err != nil {
		return nil, err
	}
	if err := in.kept.marked(&in.reached); err != nil {
		return nil, errors.Join(err, in.kept.close())
	}
	b.keepFor(in.kept)
	if !s.Plan.Streaming {
		in.gather = s.Store.NewGrouper(s.KeyGroups)
	}
	return in, nil
}

func (s *stateful) process(ctx context.Context, from Delivery, block []byte) error {
	if s.gather != nil {
		return s.gather.Add(from.Attempt, from.KeyGroup, block)
	}
	err := shuffle.EachEntry(block, func(e shuffle.Entry) error {
		late, err := s.late(e)
		if err != nil {
			return err
		}
		if late {
			s.drops.late++
			return nil
		}
		return s.take(ctx, e)
	})
	if err != nil {
		return err
	}
	return s.send(ctx)
}

func (s *stateful) settle(attempt Attempt, keep bool) error {
	if s.gather == nil {
		return errors.New("blocks arrive settled in a streaming plan")
	}
	return s.gather.Settle(attempt, keep)
}

// late tells whether an element comes too late to be processed: its window is over.
func (s *stateful) late(e shuffle.Entry) (bool, error) {
	end, err := s.kept.strategy.MaxTimestamp(e.Window)
	if err != nil {
		return false, fmt.Errorf("window of an element: %w", err)
	}
	return end+s.kept.lateness < s.reached || s.state.Sorted && e.Timestamp+s.kept.lateness < s.reached, nil
}

// take takes an element for the bundle under way, or keeps it until its turn comes.
func (s *stateful) take(ctx context.Context, e shuffle.Entry) error {
	_, size, err := coder.Pane(e.Value)
	if err != nil {
		return fmt.Errorf("pane of an element: %w", err)
	}
	if s.state.Sorted {
		if err := s.kept.wait(e); err != nil || s.kept.size() < sendBytes {
			return err
		}
		return s.kept.commit()
	}
	if s.state.Expiration != "" {
		s.kept.mu.Lock()
		s.kept.touch(e.Key, e.Window)
		s.kept.mu.Unlock()
	}
	s.buf = appendElement(s.buf, e, size)
	if len(s.buf) < min(sendBytes, s.spec.BundleBytes) {
		return nil
	}
	return s.send(ctx)
}

// appendElement appends a record; its value begins with a pane of the size.
func appendElement(b []byte, e shuffle.Entry, pane int) []byte {
	b = append(coder.AppendTimestamp(b, e.Timestamp), 0, 0, 0, 1)
	b = append(append(b, e.Window...), e.Value[:pane]...)
	return append(append(b, e.Key...), e.Value[pane:]...)
}

// send passes gathered elements to the harness, and ends the bundle when it has as much as it may.
func (s *stateful) send(ctx context.Context) error {
	if s.state.Sorted {
		return s.kept.commit()
	}
	if len(s.buf) > 0 {
		if err := s.runner.process(ctx, s.buf); err != nil {
			return err
		}
		s.taken += len(s.buf)
		s.buf = s.buf[:0]
	}
	if s.taken < s.spec.BundleBytes && s.kept.size() < s.spec.BundleBytes {
		return nil
	}
	return s.cut(ctx)
}

func (s *stateful) cut(ctx context.Context) error {
	s.taken = 0
	return s.runner.cut(ctx)
}

// keysBytes is about how much input of bounded keys is processed before they are brought to their end: what is kept of them, for
// small records several times as much, stays in memory then.
const keysBytes = 512 << 10

// end processes what was gathered.
func (s *stateful) end(ctx context.Context) error {
	if s.gather == nil {
		return nil
	}
	sorted, err := s.gather.Seal()
	if err != nil {
		return err
	}
	var key []byte
	seen := 0
	for {
		more, err := sorted.Next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if seen >= min(keysBytes, s.spec.BundleBytes) && !slices.Equal(key, sorted.Key()) {
			if err := s.finishKeys(ctx); err != nil {
				return err
			}
			seen = 0
		}
		key = append(key[:0], sorted.Key()...)
		for {
			value, timestamp, ok, err := sorted.NextValue()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			seen += len(key) + len(value)
			if err := s.take(ctx, shuffle.Entry{Key: key, Window: sorted.Window(), Timestamp: timestamp, Value: value}); err != nil {
				return err
			}
		}
	}
	return s.finishKeys(ctx)
}

// finishKeys brings the keys that have been processed so far to their end: all of their input is there.
func (s *stateful) finishKeys(ctx context.Context) error {
	if err := s.send(ctx); err != nil {
		return err
	}
	if err := s.cut(ctx); err != nil {
		return err
	}
	if err := s.advance(ctx, times{input: coder.MaxTimestamp, draining: true}); err != nil {
		return err
	}
	return s.kept.forgetAll()
}

// passed is the time before which everything is due when the watermark has come to millis: a record of that time may still
// come, unless it is the end of all.
func passed(millis int64) int64 {
	if millis == coder.MaxTimestamp {
		return never
	}
	return millis
}

// advance does what is due, one step after the other, until nothing is.
func (s *stateful) advance(ctx context.Context, t times) error {
	s.reached = max(s.reached, t.input)
	ended := t.input == coder.MaxTimestamp
	now := -never
	if !t.now.IsZero() {
		now = t.now.UnixMilli() + 1
	}
	if ended && t.draining {
		now = never
	}
	for {
		k := s.kept
		if !k.events.any(passed(t.input)) && !k.clocks.any(now) && !k.expiries.any(passed(t.input)) && !k.sortedInput.any(passed(t.input)) {
			return nil
		}
		// What came before comes before: its bundle ends first.
		if err := s.cut(ctx); err != nil {
			return err
		}
		did, err := s.step(ctx, passed(t.input), now, ended)
		if err != nil || !did {
			return err
		}
	}
}

// step does the next thing that is due, and tells whether there was one.
func (s *stateful) step(ctx context.Context, before, now int64, ended bool) (did bool, err error) {
	k := s.kept
	if s.state.Sorted {
		if did, err = s.release(ctx, before); did || err != nil {
			return did, err
		}
	}
	// What is set for later than its window lasts goes with that, however far the watermark leaps.
	over, err := k.head(k.expiries)
	if err != nil {
		return false, err
	}
	due, err := k.due(k.events, min(before, max(over, over+1)))
	if err == nil && len(due) == 0 {
		if now == never {
			// Nobody waits for the clock any more: it goes from one timer to the next.
			if now, err = k.head(k.clocks); err != nil {
				return false, err
			}
			now = max(now, now+1)
		}
		due, err = k.due(k.clocks, now)
	}
	if err != nil {
		return false, err
	}
	if len(due) > 0 {
		return true, s.runner.fire(ctx, due, nil)
	}
	if ended {
		// At the end of all input, what lasts until then ends when the last timer has fired. A window that was over before
		// takes its processing-time timers along, as it does at any other time.
		at, err := k.head(k.clocks)
		if err != nil {
			return false, err
		}
		if at != never {
			before = min(before, coder.EndOfGlobalWindow)
		}
	}
	timer, err := k.head(k.events)
	if err != nil {
		return false, err
	}
	windows, err := k.expired(min(before, timer))
	if err != nil || len(windows) == 0 {
		return false, err
	}
	for i := 0; s.state.Expiration != "" && i < len(windows); i++ {
		t, err := k.expiration(windows[i])
		if err != nil {
			return false, err
		}
		due = append(due, t)
	}
	return true, s.runner.fire(ctx, due, windows)
}

// release processes the elements whose turn has come: all that can be before them is there, and timers before them have
// fired.
func (s *stateful) release(ctx context.Context, before int64) (did bool, err error) {
	timer, err := s.kept.head(s.kept.events)
	if err != nil {
		return false, err
	}
	if before = min(before, timer); before != never {
		before -= s.kept.lateness
	}
	err = s.kept.ripe(before, func(record []byte) error {
		did = true
		return s.runner.process(ctx, record)
	})
	if err != nil || !did {
		return did, err
	}
	return true, s.cut(ctx)
}

func (s *stateful) dropped() *drops { return &s.drops }

func (s *stateful) hold() (int64, error) {
	hold := coder.MaxTimestamp
	for _, h := range []*heads{s.kept.holds, s.kept.events, s.kept.sortedInput} {
		at, err := s.kept.head(h)
		if err != nil {
			return 0, err
		}
		hold = min(hold, at)
	}
	if len(s.buf) > 0 {
		hold = min(hold, s.reached)
	}
	return hold, nil
}

func (s *stateful) wake() (time.Time, error) { return s.kept.wakeAt(s.kept.clocks) }

func (s *stateful) snapshot(directory string) error {
	if err := s.kept.mark(s.reached); err != nil {
		return err
	}
	return s.kept.snapshot(directory)
}

func (s *stateful) close() error {
	err := s.kept.close()
	if s.gather != nil {
		err = errors.Join(err, s.gather.Close())
	}
	return err
}
