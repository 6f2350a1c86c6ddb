package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// openStage is what the open tasks of a stage in this worker share: its side inputs, and the numbers by which they are
// given different harnesses. It is there as long as one of them is.
type openStage struct {
	views *stage.Views
	tasks int // guarded by stages.mu, like slots
	slots []bool

	// Side inputs are broadcast to every task. One takes them, for all: were it two, each could wait for the other to take what
	// comes next in its own order.
	mu       sync.Mutex
	bringer  *taskConn     // who takes them; nil while nobody does
	complete []bool        // those of which all has come
	changed  chan struct{} // closed and replaced when one of the two has changed
}

// stages are those with open tasks.
type stages struct {
	plan  *plan.Plan
	store *shuffle.Store

	mu   sync.Mutex
	open map[int]*openStage
}

// enter finds the stage for one more task, and the lowest number that none of the others has.
func (s *stages) enter(number int) (_ *openStage, slot int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[number]
	if o == nil {
		planned := s.plan.Stages[number]
		views, err := stage.NewViews(s.plan, planned, s.store)
		if err != nil {
			return nil, 0, fmt.Errorf("stage %q: %w", planned.Name, err)
		}
		o = &openStage{views: views, complete: make([]bool, len(planned.SideInputs)), changed: make(chan struct{})}
		s.open[number] = o
	}
	o.tasks++
	slot = slices.Index(o.slots, false)
	if slot < 0 {
		slot = len(o.slots)
		o.slots = append(o.slots, false)
	}
	o.slots[slot] = true
	return o, slot, nil
}

// leave is for a task that is closed. The last one's leaving frees the side inputs: a task that comes later gets its own
// broadcast.
func (s *stages) leave(number, slot int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.open[number]
	o.slots[slot] = false
	if o.tasks--; o.tasks > 0 {
		return nil
	}
	delete(s.open, number)
	return o.views.Close()
}

// bring tells whether a task is the one that takes what comes on a side input; if another is, it waits until that one
// has all of it.
func (o *openStage) bring(ctx context.Context, t *taskConn, i int) (mine bool, err error) {
	for {
		o.mu.Lock()
		if o.complete[i] {
			o.mu.Unlock()
			return false, nil
		}
		if o.bringer == nil || o.bringer == t {
			o.bringer = t
			o.mu.Unlock()
			return true, nil
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// brought says that the task has brought all of a side input.
func (o *openStage) brought(i int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.complete[i] = true
	o.signal()
}

// withdraw is for a task that is closed: what it had brought a part of is forgotten, and another begins anew.
func (o *openStage) withdraw(t *taskConn) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bringer != t {
		return nil
	}
	var errs []error
	for i, complete := range o.complete {
		if !complete {
			errs = append(errs, o.views.Reset(i))
		}
	}
	o.bringer = nil
	o.signal()
	return errors.Join(errs...)
}

func (o *openStage) signal() {
	close(o.changed)
	o.changed = make(chan struct{})
}
