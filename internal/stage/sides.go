package stage

import (
	"context"
	"fmt"
	"time"

	"trestle/internal/beam/coder"
)

// What tasks of a streaming plan do with their stage's side inputs.

// attach takes note of a task, and takes over what it begins with.
func (v *Views) attach(s Spec) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.live.attach(s)
}

// version is that of what can be read.
func (v *Views) version() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.live.version
}

// filling is what a task does to the side inputs that it shares.
type filling int

const (
	bringing filling = iota // blocks, which come to one task of a worker only
	saying                  // a watermark, which the others are told behind that task
	ticking                 // processing time, which all are told, in any order
)

// fill has a task add to the side inputs, if it is the one that does: the first one that brings or says something of them. It
// answers with the version after it; 0 when it does not.
func (v *Views) fill(task int, what filling, now time.Time, f func(*live) error) (version uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.live.owner < 0 && what != ticking {
		v.live.owner = task
	}
	switch {
	case v.live.owner == task:
	case what == bringing:
		return 0, fmt.Errorf("a block of a side input came to this task, and others to task %d", v.live.owner)
	default:
		return 0, nil
	}
	if !now.IsZero() {
		v.live.clock = max(v.live.clock, now.UnixMilli())
	}
	if err := f(v.live); err != nil {
		return 0, err
	}
	return v.live.version, nil
}

// wake is when something of the side inputs is due by processing time, for the task that has to see to it; else zero.
func (v *Views) wake(task int) (time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.live.owner != task {
		return time.Time{}, nil
	}
	return v.live.wakeAt(v.live.clocks)
}

// word is what the job has been told of a side input that is waited for, by all of its tasks.
type word struct {
	counts map[int]int64 // elements that wait, by task
	next   time.Time     // no word before
	pause  time.Duration
}

// waits takes note of how many elements wait for a side input at a task, and since when. due tells that the job is to be told
// so now; total is how many wait at all tasks.
func (v *Views) waits(side, task int, count int64, since, now time.Time) (total int64, due bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := &v.words[side]
	if w.counts == nil {
		w.counts = map[int]int64{}
	}
	w.counts[task] = count
	for _, n := range w.counts {
		total += n
	}
	if total == 0 {
		w.pause = 0
		return 0, false
	}
	if count == 0 || now.Before(since.Add(firstWord)) || now.Before(w.next) {
		return total, false
	}
	w.pause = min(max(2*w.pause, firstWord), lastPause)
	w.next = now.Add(w.pause)
	return total, true
}

// nextWord is when the job is to be told of a side input that has been waited for since a time.
func (v *Views) nextWord(side int, since time.Time) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := since.Add(firstWord)
	if next := v.words[side].next; next.After(at) {
		return next
	}
	return at
}

// newGate makes the gate of a task whose stage has side inputs, of a streaming plan.
func (t *task) newGate() error {
	if t.stream == nil || len(t.spec.Stage.SideInputs) == 0 {
		return nil
	}
	b, ok := t.runner.(*bundles)
	if !ok {
		return fmt.Errorf("a stage without an environment reads side input %s", t.spec.Stage.SideInputs[0].Tag)
	}
	if err := t.spec.Views.attach(t.spec); err != nil {
		return err
	}
	g, err := newGate(t.spec, b, t.stream.times.sides)
	if err != nil {
		return err
	}
	b.gate, t.stream.gate, t.stream.look = g, g, true
	return nil
}

// fill adds to the side inputs, and does what follows.
func (t *task) fill(ctx context.Context, what filling, f func(*live) error) error {
	g := t.stream.gate
	version, err := t.spec.Views.fill(t.spec.Index, what, t.stream.times.now, f)
	if err != nil || version <= g.version {
		return err
	}
	if err := t.readable(ctx, version); err != nil {
		return err
	}
	return t.stream.out.Readable(ctx, version)
}

// readable takes note of a version of the side inputs.
func (t *task) readable(ctx context.Context, version uint64) error {
	g := t.stream.gate
	if version <= g.version {
		return nil
	}
	// What is under way reads an older one.
	if err := t.runner.cut(ctx); err != nil {
		return err
	}
	g.version = version
	t.stream.look = true
	return nil
}

// release passes on what waited, if something may have become readable.
func (t *task) release(ctx context.Context) error {
	s := t.stream
	if s.gate == nil || !s.look {
		return nil
	}
	s.look = false
	return s.gate.release(ctx)
}

// forget says how far the task is, so that what nobody reads any more can go: what it holds, it still has to do with.
func (t *task) forget(ctx context.Context) error {
	s := t.stream
	if s.gate == nil || s.main == coder.MaxTimestamp {
		return nil // at the end of all, windows are over when their last timers have fired
	}
	if b := t.puttingOff(); b != nil {
		if some, err := b.later.some(); some || err != nil {
			return err
		}
	}
	if err := s.gate.ahead(ctx); err != nil {
		return err
	}
	return t.spec.Views.over(t.spec.Index, s.told)
}
