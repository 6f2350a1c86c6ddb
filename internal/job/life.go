package job

import (
	"errors"
	"fmt"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// Life is what the records of a job's log add up to. The zero Life is that of an empty log.
type Life struct {
	// Info has the job's id, name and options; its state is not kept.
	Info     *jobpb.JobInfo
	Pipeline PipelineRef
	State    State
	// Prepared and Changed are when the job was prepared, and when it came into its State.
	Prepared, Changed time.Time
	// Handle is the engine's; "" when none has accepted the job.
	Handle string
	// Artifacts are the sha256 in hex of what its harnesses were given out of the store; nil when the log does not say.
	Artifacts []string
	// Messages is how many messages the log has.
	Messages int
	// Errors is how many of them are of importance ERROR, since the job was prepared or resumed last.
	Errors int
	// States is how many states the log has, STOPPED among them.
	States int
}

// Apply adds the log's next record. The error wraps [ErrTransition] when a state cannot follow the one before it, and
// tells when the log does not begin with its one Prepared. A refused record changes nothing.
func (l *Life) Apply(r Record) error {
	first := l.State == jobpb.JobState_UNSPECIFIED
	prepared, ok := r.(*Prepared)
	switch {
	case first && !ok:
		return fmt.Errorf("the event log begins with %T, not with the job's preparation", r)
	case !first && ok:
		return errors.New("the event log has the job's preparation twice")
	}
	switch r := r.(type) {
	case *Prepared:
		l.Info, l.Pipeline, l.State = prepared.Info, prepared.Pipeline, jobpb.JobState_STOPPED
		l.Prepared, l.Changed, l.States = r.Time.AsTime(), r.Time.AsTime(), 1
	case *StateChange:
		if !follows(l.State, r.GetState()) {
			return fmt.Errorf("%w: from %v to %v", ErrTransition, l.State, r.GetState())
		}
		l.State, l.Changed = r.GetState(), r.GetTimestamp().AsTime()
		l.States++
	case *Again:
		next, err := Next(l.State, Resumed)
		if err != nil {
			return err
		}
		if r.GetState() != next {
			return fmt.Errorf("%w: from %v to %v", ErrTransition, l.State, r.GetState())
		}
		l.State, l.Changed, l.Errors = next, r.GetTimestamp().AsTime(), 0
		l.States++
	case *Message:
		l.Messages++
		if r.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_ERROR {
			l.Errors++
		}
	case *Accepted:
		l.Handle = r.Handle
	case *Staged:
		l.Artifacts = append([]string{}, r.SHA256...)
	}
	return nil
}

// StateEvent is the state that a record brings, for a state stream; nil when it brings none.
func StateEvent(r Record) *jobpb.JobStateEvent {
	switch r := r.(type) {
	case *Prepared:
		return &jobpb.JobStateEvent{State: jobpb.JobState_STOPPED, Timestamp: r.Time}
	case *StateChange:
		return r.JobStateEvent
	case *Again:
		return r.JobStateEvent
	}
	return nil
}
