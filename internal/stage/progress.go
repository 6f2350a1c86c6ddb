package stage

import (
	"context"

	"trestle/internal/beam/metric"
)

// Progresser is a task that knows how far it is with the bundle that it is working at.
type Progresser interface {
	// Progress is the fraction, from 0 to 1, of the bundle's known work that is done; ok is false when the harness does
	// not say. It may be called at any time, from any goroutine.
	Progress(ctx context.Context) (fraction float64, ok bool)
}

// Progress implements Progresser. A harness that cannot answer is as good as one that does not say.
func (t *task) Progress(ctx context.Context) (float64, bool) {
	b, ok := t.runner.(*bundles)
	if !ok {
		return 0, false
	}
	b.asking.Lock()
	asked := b.offered
	b.asking.Unlock()
	if asked == nil {
		return 0, false
	}
	response, err := asked.bundle.Progress(ctx)
	if err != nil {
		return 0, false
	}
	fraction, ok, err := metric.Progress(response.GetMonitoringInfos())
	if err != nil {
		t.spec.Log.Warn("progress of a bundle", "stage", t.spec.Stage.Name, "error", err)
		return 0, false
	}
	return fraction, ok
}
