package stage

import (
	"context"
	"sync"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/fnapi"
)

// Measurer is a task whose attempts at bundles may have measured something before they fail. Those with a harness are.
type Measurer interface {
	// Measure asks the harness what the bundle under way has measured, should its attempt fail: a harness says nothing of a
	// bundle that has failed (InstructionResponse in beam_fn_api.proto has the error alone then), or when it is killed. It may
	// be called at any time, from any goroutine, and returns when the harness has answered, or cannot, or ctx ends. An engine
	// calls it now and then.
	Measure(ctx context.Context)
}

// Measure implements Measurer.
func (t *task) Measure(ctx context.Context) {
	if b, ok := t.runner.(*bundles); ok {
		b.measured.ask(ctx)
	}
}

// measured is what the bundle that is open has measured, as far as its harness has said.
type measured struct {
	mu     sync.Mutex
	bundle *fnapi.Bundle // nil while none is open
	infos  []*pipepb.MonitoringInfo
}

func (m *measured) begin(b *fnapi.Bundle) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bundle = b
}

func (m *measured) ask(ctx context.Context) {
	m.mu.Lock()
	asked := m.bundle
	m.mu.Unlock()
	if asked == nil {
		return
	}
	response, err := asked.Progress(ctx)
	if err != nil || len(response.GetMonitoringInfos()) == 0 {
		return // it has just ended, or the SDK cannot say so: that leaves nothing to count, and is no reason to fail the bundle
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bundle == asked {
		m.infos = response.GetMonitoringInfos()
	}
}

// end answers with what the harness said last.
func (m *measured) end() []*pipepb.MonitoringInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	infos := m.infos
	m.bundle, m.infos = nil, nil
	return infos
}

// lost adds what an attempt that has failed, or was given up, had measured to what the job has attempted.
func (b *bundles) lost() {
	if infos := b.measured.end(); len(infos) > 0 {
		b.spec.Out.Metrics(infos, false)
	}
}
