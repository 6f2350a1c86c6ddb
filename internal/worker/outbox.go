package worker

import (
	"context"
	"errors"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/kit/credit"
	"trestle/internal/plan"
	"trestle/internal/worker/wire"
)

// holdBytes is how much a bundle's output is held back until the bundle has succeeded: enough for most bundles, so that
// the worker can try them again by itself; little enough for each task of a host to have it.
const holdBytes = 4 << 20

// errSent is why a failed bundle is not tried again here.
var errSent = errors.New("a part of what the bundle had put out is with the engine already, which restarts the task")

// outbox is a task's stage.Output: it passes blocks on to the adapter as far as its credit goes.
type outbox struct {
	writer *wire.Writer
	credit *credit.Bytes
	report *report
	plan   *plan.Plan

	mu   sync.Mutex // held over a send: blocks of a key group stay in order
	held []heldBlock
	size int
	sent bool // a part of the bundle under way is with the engine
}

type heldBlock struct {
	exchange, keyGroup int
	data               []byte
}

func (o *outbox) Emit(ctx context.Context, exchange, keyGroup int, block []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.sent && o.size+len(block) <= holdBytes {
		o.held = append(o.held, heldBlock{exchange, keyGroup, append([]byte(nil), block...)})
		o.size += len(block)
		return nil
	}
	if err := o.release(ctx); err != nil {
		return err
	}
	o.sent = true
	return o.send(ctx, exchange, keyGroup, block)
}

// release sends what is held.
func (o *outbox) release(ctx context.Context) error {
	for _, b := range o.held {
		if err := o.send(ctx, b.exchange, b.keyGroup, b.data); err != nil {
			return err
		}
	}
	o.held, o.size = nil, 0
	return nil
}

func (o *outbox) send(ctx context.Context, exchange, keyGroup int, block []byte) error {
	f := wire.Frame{Type: wire.Emit, Numbers: [4]uint32{uint32(exchange), uint32(keyGroup)}, Data: block}
	if len(block) > wire.MaxBlock {
		return newTooLarge(o.plan, exchange, len(block))
	}
	if err := o.credit.Take(ctx, f.Charge()); err != nil {
		return err
	}
	return o.writer.Write(f)
}

func (o *outbox) Settle(ctx context.Context, keep bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !keep {
		if o.sent {
			return errSent
		}
		o.held, o.size = nil, 0
		return nil
	}
	o.sent = false
	return o.release(ctx)
}

// Quiet needs no frame: the main input's ended says as much.
func (o *outbox) Quiet() {}

func (o *outbox) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	o.report.message(importance, text)
}

func (o *outbox) Metrics(infos []*pipepb.MonitoringInfo, counts bool) {
	o.report.measured(infos, counts)
}
