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
	stagetest.Run(t, stagetest.Form{Direct: true, Streaming: true, Open: func(t *testing.T, s stage.Spec) stage.Task {
		task, err := stage.Open(s)
		if err != nil {
			t.Fatal(err)
		}
		return task
	}})
}
