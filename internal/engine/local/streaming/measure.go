package streaming

import (
	"context"
	"sync"
	"time"

	"trestle/internal/stage"
)

// measureEvery is how often tasks' harnesses are asked what bundles under way have measured, should they fail; measureTimeout is how
// long one may take to answer.
const (
	measureEvery   = time.Second
	measureTimeout = time.Second
)

// Measure asks tasks now and then what their bundles have measured, until ctx ends.
func Measure(ctx context.Context, tasks []stage.Task) {
	ticker := time.NewTicker(measureEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		asking, cancel := context.WithTimeout(ctx, measureTimeout)
		var all sync.WaitGroup
		for _, t := range tasks {
			if m, ok := t.(stage.Measurer); ok {
				all.Go(func() { m.Measure(asking) })
			}
		}
		all.Wait()
		cancel()
	}
}
