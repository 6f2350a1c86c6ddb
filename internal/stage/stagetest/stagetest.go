// Package stagetest is the conformance suite of the task contract: what an engine may rely on, and an SDK, whatever form
// the contract takes between engine and task (a call, a socket).
//
// Each case plans a small pipeline, opens tasks of one of its stages, and plays both sides: the engine, by the contract's
// calls and a recorder that is the task's output, and the SDK harness, by a script that speaks the Fn API (package sdk).
package stagetest

import (
	"strings"
	"testing"

	"trestle/internal/stage"
)

// Open makes a task as stage.Open does, in the form of the contract that is tested; it ends the test when it cannot. What
// it needs besides the task it gives back with t.Cleanup.
type Open func(t *testing.T, s stage.Spec) stage.Task

// Form is a form of the contract.
type Form struct {
	Open Open
	// Direct says that the engine calls the task: it has attempts to settle and asks for splits, it sees errors as values,
	// and each of the output's events as the task has it. Where something lies between, errors are texts for people, output
	// comes when it counts, and what a task measures comes at its end.
	Direct bool
	// Streaming says that it has the events of streaming plans.
	Streaming bool
	// Left fails a case that has left goroutines. They have time to end, since what stops them may not wait for them.
	Left func(t *testing.T)
}

// testCase is a case: a sentence, and the test of it.
type testCase struct {
	name string
	run  func(*testing.T, Open)
}

// streamingGroups are the groups of cases of streaming plans.
var streamingGroups = map[string]bool{"streaming": true, "stable": true, "pushback": true, "truncation": true, "finalization": true, "kept state": true}

// directly is for cases of what only a task that is called has.
const directly = "directly: "

// Run runs the suite. The cases run one after the other, because each looks for goroutines that are left behind.
func Run(t *testing.T, form Form) {
	for _, group := range []struct {
		name  string
		cases []testCase
	}{
		{"input", inputCases},
		{"groups", groupCases},
		{"panes", paneCases},
		{"merging", mergingCases},
		{"state", stateCases},
		{"kept state", cacheCases},
		{"timers", timerCases},
		{"streaming", streamingCases},
		{"stable", stableCases},
		{"pushback", pushbackCases},
		{"truncation", truncationCases},
		{"finalization", finalizationCases},
		{"outputs", outputCases},
		{"side inputs", sideInputCases},
		{"bundles", bundleCases},
		{"failures", failureCases},
		{"attempts", attemptCases},
		{"splits", splitCases},
		{"close", closeCases},
	} {
		if streamingGroups[group.name] && !form.Streaming {
			continue
		}
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				name, direct := strings.CutPrefix(c.name, directly)
				if direct && !form.Direct {
					continue
				}
				t.Run(name, func(t *testing.T) {
					t.Cleanup(func() { form.Left(t) }) // runs last
					c.run(t, form.Open)
				})
			}
		})
	}
}
