// Package engine is what the job server knows of an engine: it takes a plan, and answers with a run.
package engine

import (
	"context"
	"errors"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/plan"
)

// ErrLost is what Attach's error wraps when the engine no longer has the run.
var ErrLost = errors.New("the engine no longer has this run")

// Engine runs plans. Its methods may be called concurrently.
type Engine interface {
	// Name is what a user types: "local", "flink", "spark".
	Name() string
	// Check tells why the engine would refuse a job with this pipeline and parallelism (0 lets the engine choose) now, as
	// far as that can be known within a few seconds: all reasons at once, for the user to read. The plan is nil when there
	// can be none, for reasons that the user reads as well.
	Check(ctx context.Context, p *pipepb.Pipeline, planned *plan.Plan, parallelism int) error
	// Submit starts a job and returns once the engine has accepted it, or with the reason why it did not; nothing
	// of a refused job is left behind. The run does not end with ctx.
	Submit(ctx context.Context, job Job) (Run, error)
	// Attach finds a run again by the handle of an earlier server's Submit, or of one that did not return. ErrLost when the
	// engine no longer has it.
	Attach(ctx context.Context, handle string, events Events) (Run, error)
}

// Resumer is an engine that keeps of a run that has FAILED what it can go on from: its Attach goes on with that, too.
type Resumer interface {
	// Resumable tells why a run that has failed cannot go on; nil if Attach may try.
	Resumable(handle string) error
}

// Streamer is an engine that runs streaming plans of all kinds: bounded pipelines that are to run as streams, too.
type Streamer interface {
	Streams() bool
}

// Job is what an engine gets.
type Job struct {
	// ID is unique among all jobs of the server, and fit for a file name.
	ID string
	// Name is the user's.
	Name string
	// Pipeline is what was planned, as the SDK sent it but for resolved dependencies; Planned are the options of that.
	Pipeline *pipepb.Pipeline
	Planned  plan.Options
	Plan     *plan.Plan
	// Options are the pipeline options as the SDK sent them; harnesses get them unchanged.
	Options *structpb.Struct
	// Dependencies are each environment's artifacts, in the form in which the retrieval service knows them.
	Dependencies map[string][]*pipepb.ArtifactInformation
	// Parallelism is the number of tasks of a stage; 0 lets the engine choose.
	Parallelism int
	// Attempts is how often a bundle is tried before its failure is the job's; 0 lets the engine choose.
	Attempts int
	Events   Events
}

// Events is where an engine reports. Its methods may be called from any goroutine; they do not block on readers.
type Events interface {
	// State reports a change of the engine's own state: RUNNING, then exactly one of DONE, FAILED, CANCELLED. A
	// FAILED is preceded by a message of importance ERROR that says why.
	State(jobpb.JobState_Enum)
	// Message reports something for a person to read.
	Message(jobpb.JobMessage_MessageImportance, string)
	// Metrics replaces the job's metrics: the sums over all bundles so far.
	Metrics(attempted, committed []*pipepb.MonitoringInfo)
	// Handle tells what the run's handle will be, before a Submit whose run may be there although it does not return: it was
	// cut off, or the server killed. It is durable when Handle returns; after an error, nothing is to be submitted.
	Handle(string) error
}

// Drainer is a run that can be drained.
type Drainer interface {
	// Drain asks the run to stop reading, to do what it has read, and to end. It returns at once; the end is reported
	// through Events, as DONE if nothing else happens.
	Drain()
}

// Run is a job on an engine.
type Run interface {
	// Handle is durable: Attach takes it after a restart of the server. It is empty when the run cannot outlive the
	// server.
	Handle() string
	// Detach ends the server's part in a run that has a handle, which goes on: nothing more is reported, and Done is
	// closed.
	Detach()
	// Cancel asks the run to end. It returns at once; the end is reported through Events as CANCELLED, unless the
	// run ended before.
	Cancel()
	// Done is closed when the run has ended, or was detached, and holds nothing here any more: no process, file or goroutine.
	Done() <-chan struct{}
}
