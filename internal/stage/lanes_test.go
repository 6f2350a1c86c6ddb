package stage

import (
	"testing"

	"trestle/internal/beam/urn"
	"trestle/internal/plan"
)

// TestTasks: a stage with state has several tasks for each of another, unless the job asked for a number.
func TestTasks(t *testing.T) {
	state := &plan.Stage{Input: plan.Input{State: &plan.State{Kinds: map[string]string{"s": urn.UserStateBag}}}}
	timers := &plan.Stage{Input: plan.Input{State: &plan.State{}}}
	for _, c := range []struct {
		what                   string
		stage                  *plan.Stage
		parallelism, keyGroups int
		asked                  bool
		want                   int
	}{
		{"no state", &plan.Stage{}, 2, 128, false, 2},
		{"timers only", timers, 2, 128, false, 2},
		{"state", state, 2, 128, false, 8},
		{"state, as the job asked", state, 2, 128, true, 2},
		{"more than key groups", state, 50, 128, false, 128},
	} {
		if got := Tasks(c.stage, c.parallelism, c.keyGroups, c.asked); got != c.want {
			t.Errorf("%s: %d tasks, want %d", c.what, got, c.want)
		}
	}
}
