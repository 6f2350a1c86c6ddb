package local

import (
	"sync"

	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// lent is what the stores of state take of the budget of all jobs' data: as much as their cache may have, while a job runs that
// has such stores. They share the cache, so several jobs take it once.
type lent struct {
	mu   sync.Mutex
	jobs int
	back func()
}

// lend takes the cache's share for a job with this plan; what it returns gives it back, and is called once.
func (l *lent) lend(p *plan.Plan, cache *kv.Cache, budget *shuffle.Budget) (back func()) {
	if !p.KeepsState() {
		return func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs++; l.jobs == 1 {
		l.back = budget.Lend(cache.Limit())
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.jobs--; l.jobs == 0 {
			l.back()
		}
	}
}
