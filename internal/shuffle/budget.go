package shuffle

import (
	"sync"
	"sync/atomic"
)

// Budget bounds the memory that shuffles hold. A server has one, shared by the stores of all of its jobs. It is safe for
// concurrent use.
//
// Nobody waits for a budget: a structure that is refused moves its own memory to disk instead. So that each can always go
// on, it may hold a little whatever the budget says, and by that much for each open structure Used may exceed Limit: a
// grouper or a spool 2 MiB and a block for the disk (a spool one for each open attempt), a grouper that is iterated also
// the block buffers of a merge (4 MiB, or two blocks), pages and tables the block that is being filled (an eighth of one
// when memory is short); and each its largest record.
type Budget struct {
	limit int64
	used  atomic.Int64
	peak  atomic.Int64
}

// NewBudget returns a budget of the given bytes. Zero or less makes everything spill at its floor.
func NewBudget(bytes int64) *Budget { return &Budget{limit: max(bytes, 0)} }

// Limit is the number of bytes that the budget was made with.
func (b *Budget) Limit() int64 { return b.limit }

// Used is the number of bytes held now, by all structures of all stores.
func (b *Budget) Used() int64 { return b.used.Load() }

// Peak is the most that was held at a time.
func (b *Budget) Peak() int64 { return b.peak.Load() }

// Lend takes n bytes, whether or not they fit, for something that is no shuffle and as large. What it returns gives them back, and
// is called once.
func (b *Budget) Lend(n int64) (back func()) {
	b.force(n)
	return func() { b.release(n) }
}

// try takes n bytes if they fit.
func (b *Budget) try(n int64) bool {
	for {
		used := b.used.Load()
		if used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			b.notePeak(used + n)
			return true
		}
	}
}

// force takes n bytes whether or not they fit.
func (b *Budget) force(n int64) { b.notePeak(b.used.Add(n)) }

func (b *Budget) release(n int64) { b.used.Add(-n) }

func (b *Budget) notePeak(used int64) {
	for p := b.peak.Load(); used > p && !b.peak.CompareAndSwap(p, used); p = b.peak.Load() {
	}
}

// account is what one structure holds of a budget. Once closed it holds nothing, and what is still charged to it or
// released from it (by a reader that has not noticed the close) is ignored.
type account struct {
	budget *Budget
	floor  int64

	mu     sync.Mutex
	held   int64
	closed bool
}

// try charges n bytes if the budget has them or the structure is below its floor.
func (a *account) try(n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return true
	}
	if !a.budget.try(n) {
		if a.held+n > a.floor {
			return false
		}
		a.budget.force(n)
	}
	a.held += n
	return true
}

// force charges n bytes that the structure cannot do without.
func (a *account) force(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.budget.force(n)
		a.held += n
	}
}

func (a *account) release(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.budget.release(n)
		a.held -= n
	}
}

func (a *account) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.closed = true
		a.budget.release(a.held)
		a.held = 0
	}
}
