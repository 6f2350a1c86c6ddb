package artifact

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// attempt is one stream's try at staging.
type attempt struct {
	// ctx ends with the stream, or when the session is forgotten or another stream takes over.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// done is closed when the attempt is over and its outcome is in the session.
	done chan struct{}

	mu sync.Mutex
	// doing is what the client was last asked for; moved is when it last sent something.
	doing string
	moved time.Time
	bytes int64
}

func newAttempt(ctx context.Context) *attempt {
	ctx, cancel := context.WithCancelCause(ctx)
	return &attempt{ctx: ctx, cancel: cancel, done: make(chan struct{}), moved: time.Now()}
}

// asks notes what the client is asked for.
func (a *attempt) asks(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doing, a.moved, a.bytes = what, time.Now(), 0
}

// moves notes that the client has sent n bytes of it.
func (a *attempt) moves(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moved = time.Now()
	a.bytes += int64(n)
}

// wait returns nil when the attempt is over, or an error that says where it stands when ctx has ended or the attempt
// stands still.
func (a *attempt) wait(ctx context.Context) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case <-a.done:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("staging is still under way, %s: %w", a.stands(), context.Cause(ctx))
		case <-timer.C:
		}
		a.mu.Lock()
		left := patience - time.Since(a.moved)
		a.mu.Unlock()
		if left <= 0 {
			return errors.New("staging stands still: " + a.stands())
		}
		timer.Reset(left)
	}
}

// stands tells how far the attempt is, for a person.
func (a *attempt) stands() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.doing == "" {
		return "the client has not been asked for anything yet"
	}
	return fmt.Sprintf("the client was asked to %s and has sent %d bytes of it, the last %v ago",
		a.doing, a.bytes, time.Since(a.moved).Round(time.Second))
}
