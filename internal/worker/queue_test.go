package worker

import (
	"strings"
	"testing"

	"trestle/internal/plan"
	"trestle/internal/worker/wire"
)

// What waits for a task is bounded, whatever the adapter sends: blocks by its credit, ends by the task's inputs.
func TestQueueIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		frame wire.Frame
		fits  int
		want  string
	}{
		"blocks": {wire.Frame{Type: wire.Process, Data: make([]byte, windowBytes/4-wire.BlockCharge)}, 4, "more than its credit"},
		"large":  {wire.Frame{Type: wire.Process, Data: make([]byte, 2*windowBytes)}, 1, "more than its credit"},
		"ends":   {wire.Frame{Type: wire.End}, 3, "4 ends of 3 inputs"},
	} {
		t.Run(name, func(t *testing.T) {
			task := &taskConn{arrived: make(chan struct{}, 1), stage: &plan.Stage{SideInputs: make([]plan.SideInput, 2)}}
			for range c.fits {
				if err := task.enqueue(&c.frame); err != nil {
					t.Fatal(err)
				}
			}
			if err := task.enqueue(&c.frame); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("one more: %v", err)
			}
			if len(task.queue) != c.fits {
				t.Errorf("%d frames wait, want %d", len(task.queue), c.fits)
			}
		})
	}
}
