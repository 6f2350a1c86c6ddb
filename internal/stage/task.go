package stage

import (
	"context"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// Task is one parallel instance of a stage. An engine drives it through these events and nothing else; it is the task
// contract in process (docs/protocols/task.md). Calls are serialised by the engine, but for Close, which may come at any
// time from any goroutine. An error from any call is final: the engine closes the task.
type Task interface {
	// Process brings a block of records for an input (an index as in Inputs). For a keyed input, keyGroup is the
	// block's key group; otherwise it is 0. The block stays the caller's once Process has returned. Process may
	// block: that is back-pressure.
	Process(ctx context.Context, input, keyGroup int, block []byte) error
	// Watermark says that no record before t (milliseconds of event time) will arrive on the input any more.
	Watermark(ctx context.Context, input int, t int64) error
	// ProcessingTime brings the clock.
	ProcessingTime(ctx context.Context, now time.Time) error
	// End says that nothing more will arrive on the input. A side input's End makes it readable. The main input's End
	// comes after every side input's, and returns when the task has emitted all that follows from its input.
	End(ctx context.Context, input int) error
	// Close releases everything: open bundles are abandoned, files deleted. It is idempotent and returns when done.
	Close() error
}

// Output is the engine's side of the contract. Its methods may be called from any goroutine of the task.
type Output interface {
	// Emit passes a block on through an output's exchange (an index as in Exchanges). Blocks of one key group are
	// passed on in the order of the calls. The block stays the task's once Emit has returned. Emit may block: that is
	// back-pressure.
	Emit(ctx context.Context, exchange, keyGroup int, block []byte) error
	// Watermark is the task's output watermark, holds included.
	Watermark(t int64)
	// WakeAt asks for a ProcessingTime call at t or soon after; a later call replaces it.
	WakeAt(t time.Time)
	// Quiet says that nothing more can come of this task: input watermarks at MAX, no residual and no timer left.
	Quiet()
	// Message is for a person to read, in the job's event log.
	Message(importance jobpb.JobMessage_MessageImportance, text string)
	// Metrics brings what one bundle measured: it is added to the job's.
	Metrics(infos []*pipepb.MonitoringInfo)
}
