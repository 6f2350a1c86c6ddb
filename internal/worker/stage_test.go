package worker

import (
	"context"
	"testing"
	"testing/synctest"
)

// Two tasks of a stage get its side inputs in different orders: neither waits for the other for ever.
func TestSideInputsInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := &openStage{complete: make([]bool, 2), changed: make(chan struct{})}
		one, other := &taskConn{}, &taskConn{}
		bring := func(task *taskConn, side int) <-chan bool {
			result := make(chan bool, 1)
			go func() {
				if mine, err := o.bring(ctx, task, side); err == nil {
					result <- mine
				}
			}()
			synctest.Wait()
			return result
		}
		first := bring(one, 0)
		waits := bring(other, 1)
		second := bring(one, 1)
		if len(first) == 0 || len(second) == 0 || !<-first || !<-second {
			t.Fatal("the task that has begun with one side input does not take the other: the tasks wait for each other")
		}
		if len(waits) > 0 {
			t.Fatal("both tasks take side inputs")
		}
		o.brought(0)
		o.brought(1)
		synctest.Wait()
		if len(waits) == 0 || <-waits {
			t.Error("the other task takes a side input that is complete")
		}
	})
}
