package streaming

import (
	"context"
	"sync"
)

// activity counts what is left to do at the current watermarks and time: events in inboxes, and those whose consequences
// have not been passed on yet. It is safe for concurrent use.
type activity struct {
	mu    sync.Mutex
	count int
	still chan struct{} // closed when the count gets to 0; nil while nobody waits
}

// add counts n more; what follows from something is added before that is taken off.
func (a *activity) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count += n
	if a.count == 0 && a.still != nil {
		close(a.still)
		a.still = nil
	}
}

// wait waits until nothing is left to do.
func (a *activity) wait(ctx context.Context) error {
	a.mu.Lock()
	if a.count == 0 {
		a.mu.Unlock()
		return nil
	}
	if a.still == nil {
		a.still = make(chan struct{})
	}
	still := a.still
	a.mu.Unlock()
	select {
	case <-still:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
