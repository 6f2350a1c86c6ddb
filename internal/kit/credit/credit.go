// Package credit holds senders back by bytes: a credit says how many may be under way to whoever takes them.
package credit

import (
	"context"
	"sync"
)

// Bytes bounds the bytes that are under way to the other end. It is safe for concurrent use.
type Bytes struct {
	limit int64

	mu       sync.Mutex
	underWay int64
	freed    chan struct{} // closed and replaced when credit comes back
}

// New makes a credit of so many bytes.
func New(limit uint64) *Bytes {
	return &Bytes{limit: int64(min(limit, 1<<40)), freed: make(chan struct{})}
}

// Take waits until what is charged so much may be sent: it is covered, or nothing is under way, so that what is larger
// than the credit goes alone. When ctx ends first, its cause is the error, and nothing was taken.
func (c *Bytes) Take(ctx context.Context, charge int64) error {
	for {
		c.mu.Lock()
		if c.underWay == 0 || c.underWay+charge <= c.limit {
			c.underWay += charge
			c.mu.Unlock()
			return nil
		}
		freed := c.freed
		c.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Idle waits until nothing is under way.
func (c *Bytes) Idle(ctx context.Context) error {
	for {
		c.mu.Lock()
		idle, freed := c.underWay == 0, c.freed
		c.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Give takes back what the other end says it has passed on. More than is under way is as much as is.
func (c *Bytes) Give(bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.underWay -= int64(min(bytes, uint64(c.underWay)))
	close(c.freed)
	c.freed = make(chan struct{})
}
