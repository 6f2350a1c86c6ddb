package streaming

import (
	"sync"
	"time"
)

// clock is the job's processing time. It is the world's, unless a TestStream plays: then it stands still, and moves when
// the TestStream says so. It never goes back, and is safe for concurrent use.
type clock struct {
	now func() time.Time

	mu    sync.Mutex
	held  bool
	at    time.Time     // of a held clock
	ahead time.Duration // of the world's time
	last  time.Time     // the latest answer
}

func newClock(now func() time.Time, held bool) *clock {
	return &clock{now: now, held: held, at: now()}
}

// time is what time it is.
func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.at
	if !c.held {
		at = c.now().Add(c.ahead)
	}
	if at.After(c.last) {
		c.last = at
	}
	return c.last
}

// advance moves a held clock on by d, from what the world's time is now: an SDK that sets a timer goes by its own clock,
// and a moment later than the event to which it answers.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	if c.ahead < 0 {
		c.ahead = 1<<63 - 1
	}
	c.at = c.now().Add(c.ahead)
}

// release lets a held clock go on with the world's.
func (c *clock) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
}

// until is how long it takes for the time to come, if it comes by itself.
func (c *clock) until(t time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		return 0, false
	}
	return t.Sub(c.now().Add(c.ahead)), true
}
