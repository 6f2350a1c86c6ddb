package stage_test

import (
	"testing"

	"trestle/internal/stage"
	"trestle/internal/stage/stagetest"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// TestConformance runs the suite of the task contract against the tasks of this package, called directly.
func TestConformance(t *testing.T) {
	conformance(t, 0)
}

// TestConformanceWithLongKeys is the same where all keys are long.
func TestConformanceWithLongKeys(t *testing.T) { conformance(t, -1) }

func conformance(t *testing.T, whole int) {
	stagetest.Run(t, stagetest.Form{Direct: true, Streaming: true, Left: left, Open: func(t *testing.T, s stage.Spec) stage.Task {
		s.State.WholeKeys = whole
		task, err := stage.Open(s)
		if err != nil {
			t.Fatal(err)
		}
		return task
	}})
}

func left(t *testing.T) { leaks.None(t) }
