package harness

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
	"trestle/internal/fnapi"
	"trestle/internal/harness/process"
)

// worker is one harness, from its start to its end. One goroutine, run, is its whole life.
type worker struct {
	pool        *Pool
	id          string
	environment string
	index       int // of the environment
	declared    *pipepb.Environment
	endpoint    string // of all services, as the harness reaches it; set by start

	settled chan struct{}  // closed when session or err is set
	session *fnapi.Session // nil when the start failed
	err     error

	launched chan struct{} // closed when the start has come to its end, well or not
	mu       sync.Mutex
	instance instance // nil before that, and when it failed

	heard  atomic.Int64 // when it last logged, Unix nanoseconds; 0 before
	errors process.Tail // what it logged as errors: a boot program's reason for giving up is nowhere else
}

// instance is a harness as its environment knows it.
type instance interface {
	// gone is closed when the harness is known to have ended; nil when that cannot be known from here.
	gone() <-chan struct{}
	// ended is the error that the end means, once gone is closed.
	ended(connected bool) error
	// lost is the error that a broken control stream means. It may wait for up to exitWait.
	lost(cause error) error
	// waiting says what is awaited, for a person, and how much longer a harness that was started at began may take to
	// connect.
	waiting(began time.Time) (what string, left time.Duration)
	// late is the error for having waited so long without a connection.
	late(waited time.Duration) error
	// kill ends it at once, as a crash would, if it can be reached, and says otherwise that it is to be taken for lost.
	kill() (lost bool)
	// stop ends it, and returns when it has ended or cannot be reached. When hurry ends, it is given no time any more.
	stop(hurry context.Context) error
}

// over says whether the worker is of no use any more.
func (w *worker) over() bool {
	select {
	case <-w.settled:
	default:
		return false
	}
	if w.session == nil {
		return true
	}
	select {
	case <-w.session.Done():
		return true
	default:
		return false
	}
}

func (w *worker) run() {
	began := time.Now()
	session, inst, err := w.start()
	if err == nil {
		err = w.await(session, inst)
	}
	if err == nil {
		w.session = session
		close(w.settled)
		err = w.watch(session, inst)
	} else {
		w.err = err
		if !errors.Is(err, ErrClosed) {
			w.err = &StartError{Environment: w.environment, Began: began, Err: err}
		}
		close(w.settled)
	}
	if inst != nil {
		// The harness ends before its session does: what it logs at its end still arrives.
		if err := inst.stop(w.pool.grace); err != nil {
			w.pool.leave(err)
		}
	}
	if session != nil {
		session.Close(err)
	}
}

// start announces the harness to the Fn API's server and starts it.
func (w *worker) start() (*fnapi.Session, instance, error) {
	defer close(w.launched)
	r, err := resolve(w.declared, 0, w.pool.host)
	if err != nil {
		return nil, nil, err
	}
	w.endpoint = w.pool.cfg.Endpoint
	if r.engine != nil {
		if w.endpoint, err = r.engine.Reach(w.endpoint); err != nil {
			return nil, nil, err
		}
	}
	session, err := w.pool.cfg.Server.Expect(fnapi.Worker{
		ID:        w.id,
		Endpoint:  w.endpoint,
		Provision: w.provision(),
		Logs:      w.logged,
		Explain:   w.explain,
	})
	if err != nil {
		return nil, nil, err
	}
	var inst instance
	switch {
	case r.process != nil:
		inst, err = w.startProcess(r)
	case r.docker != nil:
		inst, err = w.startContainer(r)
	default:
		inst, err = w.startExternal(r)
	}
	if err != nil {
		return session, nil, err
	}
	w.mu.Lock()
	w.instance = inst
	w.mu.Unlock()
	return session, inst, nil
}

// logged passes on what the harness, or its boot program, logs through the Fn API.
func (w *worker) logged(e *fnpb.LogEntry) {
	w.heard.Store(time.Now().UnixNano())
	if e.GetSeverity() >= fnpb.LogEntry_Severity_ERROR {
		for line := range strings.Lines(e.GetMessage()) {
			w.errors.Add(strings.TrimRight(line, "\r\n"))
		}
	}
	w.pool.cfg.Logs(w.environment, w.id, e)
}

// active is the last sign of life: a line that was written at the time given, or a log entry.
func (w *worker) active(wrote time.Time) time.Time {
	if logged := time.Unix(0, w.heard.Load()); logged.After(wrote) {
		return logged
	}
	return wrote
}

// patience is how much longer a harness that was started at began and last wrote a line at wrote may take to connect.
func (w *worker) patience(began, wrote time.Time) time.Duration {
	limit := w.pool.cfg.Timeouts.Process
	return min(limit-time.Since(w.active(wrote)), installing*limit-time.Since(began))
}

// provision is what the harness learns from GetProvisionInfo. Of the capabilities that a runner can declare, Trestle has
// the one that lets small output come with a bundle's response.
func (w *worker) provision() *fnpb.ProvisionInfo {
	cfg := &w.pool.cfg
	here := func() *pipepb.ApiServiceDescriptor { return &pipepb.ApiServiceDescriptor{Url: w.endpoint} }
	return &fnpb.ProvisionInfo{
		PipelineOptions:    cfg.Options,
		RetrievalToken:     cfg.RetrievalToken,
		StatusEndpoint:     here(),
		LoggingEndpoint:    here(),
		ArtifactEndpoint:   here(),
		ControlEndpoint:    here(),
		Dependencies:       cfg.Dependencies[w.environment],
		RunnerCapabilities: []string{urn.RunnerControlResponseElements},
		Metadata:           map[string]string{"job_id": cfg.Job, "job_name": cfg.JobName},
	}
}

// await returns when the harness has connected, or why it will not.
func (w *worker) await(session *fnapi.Session, inst instance) error {
	began := time.Now()
	progress := time.NewTicker(w.pool.cfg.Timeouts.Progress)
	defer progress.Stop()
	_, left := inst.waiting(began)
	limit := time.NewTimer(left)
	defer limit.Stop()
	for {
		select {
		case <-session.Ready():
			return nil
		case <-session.Done():
			return session.Err()
		case <-inst.gone():
			return inst.ended(false)
		case <-w.pool.ctx.Done():
			return ErrClosed
		case <-progress.C:
			what, _ := inst.waiting(began)
			w.pool.cfg.Message(jobpb.JobMessage_JOB_MESSAGE_BASIC, fmt.Sprintf(
				"waiting for worker %s of environment %q to connect, for %v now: %s",
				w.id, w.environment, time.Since(began).Round(time.Second), what))
		case <-limit.C:
			_, left := inst.waiting(began)
			if left <= 0 {
				return inst.late(time.Since(began))
			}
			limit.Reset(left)
		}
	}
}

// watch returns when the harness is of no use any more, with the reason, and has the session end for that reason.
func (w *worker) watch(session *fnapi.Session, inst instance) error {
	var kill <-chan time.Time
	if mean := w.pool.cfg.Kills; mean > 0 {
		timer := time.NewTimer(time.Duration(rand.ExpFloat64() * float64(mean)))
		defer timer.Stop()
		kill = timer.C
	}
	for {
		select {
		case <-session.Done():
			return session.Err()
		case <-inst.gone():
			err := inst.ended(true)
			session.Close(err)
			return err
		case <-w.pool.ctx.Done():
			return ErrClosed
		case <-kill:
			w.pool.cfg.Message(jobpb.JobMessage_JOB_MESSAGE_DEBUG, fmt.Sprintf("worker %s is killed, as the server was asked to do now and then", w.id))
			if inst.kill() {
				session.Close(inst.lost(errKilled))
			}
		}
	}
}

// errKilled stands for the broken connection of a worker that cannot be killed.
var errKilled = errors.New("the server was asked to break it")

// explain is the session's question why the control stream broke.
func (w *worker) explain(cause error) error {
	if w.pool.ctx.Err() != nil {
		return ErrClosed
	}
	// A harness may have come and gone before what starts it has returned.
	timer := time.NewTimer(launchWait)
	defer timer.Stop()
	select {
	case <-w.launched:
	case <-timer.C:
	}
	w.mu.Lock()
	inst := w.instance
	w.mu.Unlock()
	if inst == nil {
		return cause
	}
	return inst.lost(cause)
}

// launchWait is how long a broken stream waits for the start that is still under way to come to its end, and for a container engine
// to tell of a container's: on a busy host it answers in seconds.
const launchWait = 10 * time.Second

// leave keeps an error for Close.
func (p *Pool) leave(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.leftovers) < 16 { // of a pool that restarts workers for long, the first ones tell enough
		p.leftovers = append(p.leftovers, err)
	}
}
