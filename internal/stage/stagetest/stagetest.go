// Package stagetest is the conformance suite of the task contract: what an engine may rely on, and an SDK, whatever form
// the contract takes between engine and task (a call, a socket).
//
// Each case plans a small pipeline, opens tasks of one of its stages, and plays both sides: the engine, by the contract's
// calls and a recorder that is the task's output, and the SDK harness, by a script that speaks the Fn API (package sdk).
package stagetest

import (
	"testing"

	"go.uber.org/goleak"

	"trestle/internal/stage"
)

// Open makes a task as stage.Open does, in the form of the contract that is tested; it ends the test when it cannot. What
// it needs besides the task it gives back with t.Cleanup.
type Open func(t *testing.T, s stage.Spec) stage.Task

// testCase is a case: a sentence, and the test of it.
type testCase struct {
	name string
	run  func(*testing.T, Open)
}

// Run runs the suite. The cases run one after the other, because each looks for goroutines that are left behind.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name  string
		cases []testCase
	}{
		{"input", inputCases},
		{"groups", groupCases},
		{"merging", mergingCases},
		{"state", stateCases},
		{"timers", timerCases},
		{"streaming", streamingCases},
		{"outputs", outputCases},
		{"side inputs", sideInputCases},
		{"bundles", bundleCases},
		{"failures", failureCases},
		{"attempts", attemptCases},
		{"splits", splitCases},
		{"close", closeCases},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Cleanup(func() { goleak.VerifyNone(t) }) // runs last
					c.run(t, open)
				})
			}
		})
	}
}
