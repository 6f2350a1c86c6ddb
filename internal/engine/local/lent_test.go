package local

import (
	"testing"

	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// TestLent: the stores of state take their cache's share of the budget once, however many jobs have some, and as long as one does.
func TestLent(t *testing.T) {
	budget, cache := shuffle.NewBudget(64<<20), kv.NewCache(8<<20)
	defer cache.Close()
	stateful := &plan.Plan{Stages: []*plan.Stage{{}, {Input: plan.Input{State: &plan.State{}}}}}
	var l lent
	want := func(what string, bytes int64) {
		t.Helper()
		if used := budget.Used(); used != bytes {
			t.Errorf("%s: %d bytes are taken, want %d", what, used, bytes)
		}
	}
	none := l.lend(&plan.Plan{Stages: []*plan.Stage{{}}}, cache, budget)
	want("a job without state", 0)
	one := l.lend(stateful, cache, budget)
	want("one with", cache.Limit())
	two := l.lend(&plan.Plan{Streaming: true}, cache, budget)
	want("two", cache.Limit())
	one()
	none()
	want("one is over", cache.Limit())
	two()
	want("all are", 0)
}
