package blob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// limit ends an operation's context when nothing has moved for a while. The clock runs from newLimit on.
type limit struct {
	patience time.Duration
	ctx      context.Context
	cancel   context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
}

// silence is the cause with which a limit ends a context.
type silence struct{ patience time.Duration }

func (s silence) Error() string {
	return fmt.Sprintf("nothing has moved for %v: check that the store is up and can be reached from this host", s.patience)
}

func newLimit(ctx context.Context, patience time.Duration) (context.Context, *limit) {
	l := &limit{patience: patience}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.timer = time.AfterFunc(patience, func() { l.cancel(silence{patience}) })
	return l.ctx, l
}

// pause stops the clock: what happens now is not the store's business.
func (l *limit) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
}

// resume starts the clock anew, unless the operation is over.
func (l *limit) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() == nil {
		l.timer.Reset(l.patience)
	}
}

// end releases the context. The operation is over.
func (l *limit) end() {
	l.pause()
	l.cancel(nil)
}

// explain says that it was the limit that ended the operation, where it was: the driver says "context canceled".
func (l *limit) explain(err error) error {
	var cause silence
	if errors.As(context.Cause(l.ctx), &cause) {
		return cause
	}
	return err
}
