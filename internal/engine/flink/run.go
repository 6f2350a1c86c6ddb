package flink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/engine"
)

const (
	// pollFirst and pollLast bound how often Flink is asked for a job's state: after each hundredth of the time that it has
	// taken (pollPart), so that its end is noticed with as little delay for its length.
	pollFirst = 50 * time.Millisecond
	pollLast  = 500 * time.Millisecond
	pollPart  = 100
	// reportsEvery is how often the tasks' reports are read. Flink itself gets them with a TaskManager's heartbeat, every 10 s
	// by default, and when a task ends. What is read between makes the end be noticed late ([run.settled]), so that jobs
	// of less than this are not asked.
	reportsEvery = 10 * time.Second
	// tellEvery is how often a job that waits, or runs, says so.
	tellEvery = 5 * time.Second
	// patience is how long Flink may not answer before its jobs are taken for lost: a JobManager that is restarted, or moves
	// to another host, takes a minute or two.
	patience = 10 * time.Minute
	// arrival is how long Flink may take to have a job that it was asked to run, and whose answer was not heard: a server that is
	// started again may be quicker than the adapter's main method.
	arrival = 10 * time.Second
	// lastPatience is how long it is asked for what it knows besides of a job that has ended.
	lastPatience = time.Minute
)

// The states of a job of Flink's that last.
const (
	finished = "FINISHED"
	canceled = "CANCELED"
	failed   = "FAILED"
)

// run follows a job of Flink's.
type run struct {
	engine *Engine
	id     string
	events engine.Events
	done   chan struct{}
	ctx    context.Context // ends when the job is left to itself
	detach context.CancelFunc

	mu        sync.Mutex
	cancelled bool
	cancelNow chan struct{} // closed by Cancel

	reports  reports
	arrives  time.Time // until then Flink need not know the job yet; zero once it has
	running  bool
	read     time.Time // when the reports were
	silent   time.Time // since when Flink has not answered; zero while it does
	told     time.Time // when the last message of how it stands was
	restarts map[int64]bool
}

// follow watches a job until it has ended. It may take as long as arrives until Flink knows it.
func (e *Engine) follow(id string, events engine.Events, arrives time.Duration) engine.Run {
	r := &run{
		engine: e, id: id, events: events, done: make(chan struct{}), cancelNow: make(chan struct{}),
		reports: newReports(events, e.cfg.Log), restarts: map[int64]bool{}, told: time.Now(), read: time.Now(),
	}
	if arrives > 0 {
		r.arrives = time.Now().Add(arrives)
	}
	r.ctx, r.detach = context.WithCancel(context.Background())
	go r.main()
	return r
}

func (r *run) Handle() string { return r.engine.handle(r.id) }

// Detach leaves the job to Flink.
func (r *run) Detach() {
	r.detach()
	<-r.done
}

func (r *run) Done() <-chan struct{} { return r.done }

// Cancel asks Flink to cancel the job, as soon as Flink can be asked.
func (r *run) Cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.cancelled {
		r.cancelled = true
		close(r.cancelNow)
	}
}

func (r *run) wasCancelled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cancelled
}

// main asks Flink for the job's state until it is one that lasts.
func (r *run) main() {
	defer close(r.done)
	defer r.detach()
	began, asked := time.Now(), false
	for r.ctx.Err() == nil {
		cancelled := r.wasCancelled()
		if cancelled && !asked {
			asked = r.askToCancel()
		}
		state, err := r.engine.rest.state(r.ctx, r.id)
		switch {
		case r.ctx.Err() != nil:
			return
		case notFound(err) && time.Now().Before(r.arrives):
			r.silent = time.Time{}
		case notFound(err):
			r.unknown()
			return
		case err != nil:
			if r.unreachable(err) {
				return
			}
		case state == finished || state == canceled || state == failed:
			r.settled(state)
			return
		default:
			r.silent, r.arrives = time.Time{}, time.Time{}
			r.watch(state)
		}
		r.wait(pauseAfter(time.Since(began)), cancelled)
	}
}

// pauseAfter is how long not to ask for the state of a job that has been followed for some time.
func pauseAfter(age time.Duration) time.Duration {
	return min(max(age/pollPart, pollFirst), pollLast)
}

// wait lets a while pass, or less when there is something to do. That the job was cancelled is none any more when it is known,
// whether or not Flink has taken the request: one that does not answer is not asked without a pause.
func (r *run) wait(pause time.Duration, cancelled bool) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	cancel := r.cancelNow
	if cancelled {
		cancel = nil
	}
	select {
	case <-timer.C:
	case <-cancel:
	case <-r.ctx.Done():
	}
}

// askToCancel tells whether Flink has taken the request.
func (r *run) askToCancel() bool {
	err := r.engine.rest.call(r.ctx, callTimeout, "cancel the job", http.MethodPatch, "/jobs/"+r.id+"?mode=cancel", nil, nil)
	if err != nil && !notFound(err) { // which the next look at the state says as well
		r.engine.cfg.Log.Warn("cancel a job", "job", r.id, "error", err)
	}
	return err == nil
}

// unknown ends a job that Flink does not know.
func (r *run) unknown() {
	why := "its JobManager was restarted without high availability, or the job has ended longer ago than Flink keeps what it knows of such (jobstore.expiration-time, an hour by default)"
	text := fmt.Sprintf("the Flink at %s does not know the job %s any more: %s", r.engine.rest.base, r.id, why)
	if !r.arrives.IsZero() {
		text = fmt.Sprintf("the Flink at %s does not know the job %s: it never came to have it, or %s; submit it again if it is not done", r.engine.rest.base, r.id, why)
	}
	if r.wasCancelled() {
		r.events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, text)
		r.events.State(jobpb.JobState_CANCELLED)
		return
	}
	r.fail(text)
}

// unreachable deals with a Flink that does not answer; true when it is given up.
func (r *run) unreachable(err error) bool {
	now := time.Now()
	if r.silent.IsZero() {
		r.silent = now
	}
	if silence := now.Sub(r.silent); silence > patience {
		r.fail(fmt.Sprintf("the Flink has not answered for %v; whether the job still runs there as %s is not known: %v", silence.Round(time.Second), r.id, err))
		return true
	}
	if now.Sub(r.told) > tellEvery {
		r.told = now
		r.events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("%v; asking again for %v", err, (patience-now.Sub(r.silent)).Round(time.Second)))
	}
	return false
}

// settled tells how a job has ended, when what Flink says of it besides is of its end as well.
func (r *run) settled(state string) {
	for r.ctx.Err() == nil {
		seen, err := r.engine.rest.graphState(r.ctx, r.id)
		if err == nil && seen == state {
			break
		}
		if notFound(err) {
			break
		}
		if err != nil && r.unreachable(err) {
			return
		}
		r.wait(pollFirst, true)
	}
	if !r.insist(r.readReports) {
		return
	}
	switch state {
	case finished:
		r.events.State(jobpb.JobState_DONE)
	case canceled:
		if !r.wasCancelled() {
			r.events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("The job was cancelled in Flink at %s.", r.engine.rest.base))
		}
		r.events.State(jobpb.JobState_CANCELLED)
	case failed:
		text := "Flink says that the job has failed, and does not say why"
		var all []exception
		var err error
		if !r.insist(func() error { all, err = r.engine.rest.exceptions(r.ctx, r.id); return err }) {
			return
		}
		if err != nil {
			text = fmt.Sprintf("the job has failed, and why could not be found out: %v", err)
		} else if len(all) > 0 {
			text = explain(all[0])
			if strings.Contains(all[0].Trace, "NoResourceAvailable") {
				text += r.slotsNow()
			}
		}
		r.fail(text)
	}
}

// insist asks Flink about a job that has ended until it has answered, if only that it cannot say, or for lastPatience: how the job
// has ended is known. False when Flink is given up, or the job left to it.
func (r *run) insist(ask func() error) bool {
	for end := time.Now().Add(lastPatience); r.ctx.Err() == nil; {
		err := ask()
		var status *statusError
		if err == nil || errors.As(err, &status) || time.Now().After(end) {
			return true
		}
		if r.unreachable(err) {
			return false
		}
		r.wait(pollFirst, true)
	}
	return false
}

func (r *run) fail(text string) {
	r.events.Message(jobpb.JobMessage_JOB_MESSAGE_ERROR, text)
	r.events.State(jobpb.JobState_FAILED)
}

// watch tells how a job that has not ended stands.
func (r *run) watch(state string) {
	due := time.Since(r.told) >= tellEvery
	if r.running && !due {
		return
	}
	t, err := r.engine.rest.tasks(r.ctx, r.id)
	if err != nil {
		return // the next look at the state says so
	}
	if t.Running+t.Finished > 0 && !r.running {
		r.running = true
		r.events.State(jobpb.JobState_RUNNING)
	}
	if !due {
		return
	}
	r.told = time.Now()
	if time.Since(r.read) >= reportsEvery {
		r.read = time.Now()
		_ = r.readReports() // which is said; they are read again
		r.tellRestarts()
	}
	switch {
	case state == "RUNNING" && r.running:
		r.events.Message(jobpb.JobMessage_JOB_MESSAGE_DETAILED, fmt.Sprintf("%.0f %% done: %d of %d tasks", 100*float64(t.Finished)/float64(max(1, t.Total)), t.Finished, t.Total))
	case state == "RUNNING" || state == "CREATED":
		r.tellWaiting()
	default:
		r.events.Message(jobpb.JobMessage_JOB_MESSAGE_DETAILED, "Flink's state of the job is "+state)
	}
}

// tellWaiting says why a job may not have begun.
func (r *run) tellWaiting() {
	cluster, err := r.engine.rest.overview(r.ctx)
	if err != nil {
		return // the next look at the state says so
	}
	r.events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf(
		"No task runs yet: Flink at %s has %d TaskManagers with %d slots, of which %d are free, and runs %d jobs. A job needs at least one free slot.",
		r.engine.rest.base, cluster.TaskManagers, cluster.Slots, cluster.Free, cluster.Running))
}

// slotsNow is what to add to the failure of a job that got no slot.
func (r *run) slotsNow() string {
	cluster, err := r.engine.rest.overview(r.ctx)
	if err != nil {
		return fmt.Sprintf("\nHow many slots there are could not be found out: %v", err)
	}
	return fmt.Sprintf("\nFlink at %s has %s with %s, of which %d are free, and runs %s. A job needs at least one free slot.",
		r.engine.rest.base, count(cluster.TaskManagers, "TaskManager"), count(cluster.Slots, "slot"), cluster.Free, count(cluster.Running, "other job"))
}

// tellRestarts says what made tasks fail that Flink has started anew.
func (r *run) tellRestarts() {
	all, err := r.engine.rest.exceptions(r.ctx, r.id)
	if err != nil {
		return // the next look at the state says so
	}
	for _, e := range all {
		if !r.restarts[e.Timestamp] {
			r.restarts[e.Timestamp] = true
			r.events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, "A task failed, and Flink starts it again: "+explain(e))
		}
	}
}
