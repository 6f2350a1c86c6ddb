package stage_test

import (
	"testing"

	"go.uber.org/goleak"

	"trestle/internal/stage"
	"trestle/internal/stage/stagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
