package stage

import "trestle/internal/plan"

// lanes is how many tasks a stage with state or timers has for each of another. A harness waits for the answer to each of its state
// requests, tens of microseconds for a microsecond's work; a task has one bundle under way. With several, the requests of
// one go out while another waits, and travel together. A task with timers fires one of each key at a time, and works by turns with
// the harness: the others fill the gaps.
const lanes = 4

// Tasks is how many tasks an engine that has parallelism tasks of a stage should have of this one: more if they wait for
// state or timers, but no more than there are key groups, of which an idle task would have none; and as many as the job asked
// for, if it did.
func Tasks(s *plan.Stage, parallelism, keyGroups int, asked bool) int {
	if asked || s.Input.State == nil || len(s.Input.State.Kinds)+len(s.Input.State.Timers) == 0 {
		return parallelism
	}
	return max(parallelism, min(lanes*parallelism, keyGroups))
}
