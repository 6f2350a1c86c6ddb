// Package job is a job's life: the states it goes through, and the event log that tells of them.
//
// The package is pure: no goroutine, socket, file or clock. [Next] decides what an event makes of a state, [Encode] and
// [Decode] turn the log's records into bytes and back, and [Life] is what a log's records add up to. Times are given in
// the records.
package job

import (
	"errors"
	"fmt"
	"slices"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// State is Beam's JobState.Enum (beam_job_api.proto).
type State = jobpb.JobState_Enum

// Event is what can happen to a job.
type Event int

const (
	// Submitted: a client called Run, and the job is handed to an engine.
	Submitted Event = iota
	// Running: the engine reports that the job runs.
	Running
	// CancelAsked: a client, or the server's own end, asks for the job's end.
	CancelAsked
	// DrainAsked: a client asks the job to stop reading, and to end when it has done what it has read.
	DrainAsked
	// Resumed: a client asks that a job which has failed goes on from what its engine has kept of it.
	Resumed
	// Done, Failed and Cancelled: the engine reports the end.
	Done
	Failed
	Cancelled
)

func (e Event) String() string {
	switch e {
	case Submitted:
		return "submitted"
	case Running:
		return "running"
	case CancelAsked:
		return "cancel asked"
	case DrainAsked:
		return "drain asked"
	case Resumed:
		return "resumed"
	case Done:
		return "done"
	case Failed:
		return "failed"
	case Cancelled:
		return "cancelled"
	}
	return fmt.Sprintf("event %d", int(e))
}

// ErrTransition is what [Next] and [Life.Apply] wrap when an event cannot happen in a state.
var ErrTransition = errors.New("illegal job state transition")

// transitions has, for each state, what each legal event makes of it. A terminal state has none but the requests to
// cancel or drain, which change nothing: a client cannot know that the job has ended just before. FAILED has one more, for what
// Beam has no request for.
var transitions = map[State]map[Event]State{
	jobpb.JobState_STOPPED: {
		Submitted:   jobpb.JobState_STARTING,
		CancelAsked: jobpb.JobState_CANCELLED,
	},
	jobpb.JobState_STARTING: {
		Running:     jobpb.JobState_RUNNING,
		CancelAsked: jobpb.JobState_CANCELLING,
		DrainAsked:  jobpb.JobState_DRAINING,
		Done:        jobpb.JobState_DONE,
		Failed:      jobpb.JobState_FAILED,
		Cancelled:   jobpb.JobState_CANCELLED,
	},
	jobpb.JobState_RUNNING: {
		Running:     jobpb.JobState_RUNNING, // by an engine that goes on with it for another server
		CancelAsked: jobpb.JobState_CANCELLING,
		DrainAsked:  jobpb.JobState_DRAINING,
		Done:        jobpb.JobState_DONE,
		Failed:      jobpb.JobState_FAILED,
		Cancelled:   jobpb.JobState_CANCELLED,
	},
	// An engine that was asked to drain a job reports its end as it does any other's.
	jobpb.JobState_DRAINING: {
		Running:     jobpb.JobState_DRAINING,
		CancelAsked: jobpb.JobState_CANCELLING,
		DrainAsked:  jobpb.JobState_DRAINING,
		Done:        jobpb.JobState_DRAINED,
		Failed:      jobpb.JobState_FAILED,
		Cancelled:   jobpb.JobState_CANCELLED,
	},
	// The engine's RUNNING may be under way when the request to cancel arrives, and the job may end by itself before
	// the request reaches the engine.
	jobpb.JobState_CANCELLING: {
		Running:     jobpb.JobState_CANCELLING,
		CancelAsked: jobpb.JobState_CANCELLING,
		Done:        jobpb.JobState_DONE,
		Failed:      jobpb.JobState_FAILED,
		Cancelled:   jobpb.JobState_CANCELLED,
	},
	jobpb.JobState_DONE:      {CancelAsked: jobpb.JobState_DONE, DrainAsked: jobpb.JobState_DONE},
	jobpb.JobState_DRAINED:   {CancelAsked: jobpb.JobState_DRAINED, DrainAsked: jobpb.JobState_DRAINED},
	jobpb.JobState_FAILED:    {CancelAsked: jobpb.JobState_FAILED, DrainAsked: jobpb.JobState_FAILED, Resumed: jobpb.JobState_STARTING},
	jobpb.JobState_CANCELLED: {CancelAsked: jobpb.JobState_CANCELLED, DrainAsked: jobpb.JobState_CANCELLED},
}

// Next is the state in which an event leaves a job. It may be the same state: then nothing happened that is worth a
// record. The error wraps [ErrTransition] when the event cannot happen in that state.
func Next(s State, e Event) (State, error) {
	next, ok := transitions[s][e]
	if !ok {
		return s, fmt.Errorf("%w: %v in state %v", ErrTransition, e, s)
	}
	return next, nil
}

// EventOf is the event that an engine's report of a state stands for (engine.Events.State). The error wraps
// [ErrTransition] for a state that is not an engine's to report.
func EventOf(reported State) (Event, error) {
	switch reported {
	case jobpb.JobState_RUNNING:
		return Running, nil
	case jobpb.JobState_DONE:
		return Done, nil
	case jobpb.JobState_FAILED:
		return Failed, nil
	case jobpb.JobState_CANCELLED:
		return Cancelled, nil
	}
	return 0, fmt.Errorf("%w: an engine does not report %v", ErrTransition, reported)
}

// Terminal tells whether a job in this state has ended: for good, unless it is FAILED and resumed. The states are those that
// beam_job_api.proto marks as terminal; UPDATED is among them although no job of Trestle reaches it.
func Terminal(s State) bool {
	return slices.Contains([]State{
		jobpb.JobState_DONE, jobpb.JobState_FAILED, jobpb.JobState_CANCELLED, jobpb.JobState_UPDATED, jobpb.JobState_DRAINED,
	}, s)
}

// follows tells whether some event leads from one state to another, different one, within a job's life: what brings it to life
// again has a record of its own.
func follows(from, to State) bool {
	if from == to || Terminal(from) {
		return false
	}
	for _, next := range transitions[from] {
		if next == to {
			return true
		}
	}
	return false
}
