package streaming

import (
	"sync"
	"time"
)

// clock is the job's processing time. It is the world's, unless a TestStream plays: then it stands still, and moves when
// the TestStream says so, by what it says. It never goes back, and is safe for concurrent use.
type clock struct {
	now func() time.Time

	mu   sync.Mutex
	held bool
	at   time.Time     // of a held clock
	skew time.Duration // of one that runs: how far ahead of the world's time it is
	last time.Time     // the latest answer
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
		at = c.now().Add(c.skew)
	}
	if at.After(c.last) {
		c.last = at
	}
	return c.last
}

// ahead is how far the clock is ahead of the world's time, by which SDKs go that set timers.
func (c *clock) ahead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.skew
	}
	return c.at.Sub(c.now())
}

// advance moves a held clock on by d.
func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// release lets a held clock go on with the world's.
func (c *clock) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		c.held, c.skew = false, c.at.Sub(c.now())
	}
}

// until is how long it takes for the time to come, if it comes by itself.
func (c *clock) until(t time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		return 0, false
	}
	return t.Sub(c.now().Add(c.skew)), true
}
