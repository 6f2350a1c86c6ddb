package jobapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"trestle/internal/artifact"
	"trestle/internal/engine"
	"trestle/internal/job"
	"trestle/internal/kit/trailer"
	"trestle/internal/store/journal"
)

// entry is a job of the service: its event log, and what of it runs.
type entry struct {
	*eventLog

	control   sync.Mutex         // not held over a call to an engine; taken before the event log's
	startable bool               // it was prepared by this server, so its staging session is alive, and Run was not called
	claimed   bool               // Run was called, and may come to something
	asked     bool               // its end was asked for
	draining  bool               // it was asked to drain
	run       engine.Run         // nil until the engine has accepted it
	abandon   context.CancelFunc // ends a Start or an Attach; nil before there is one
	released  chan struct{}      // closed when nothing of the job runs any more; nil before something does
	polled    bool               // GetState was called since Run
	attaching bool               // an engine has it, and is being asked for it
	left      bool               // the run goes on without this server
	durable   func() error       // makes what Prepare has written durable; nil for a job of an earlier server
}

func (s *Service) newEntry(id, dir string) *entry {
	return &entry{eventLog: &eventLog{
		id: id, dir: dir, clock: s.cfg.Clock, log: s.cfg.Log, ended: make(chan struct{}),
		options: journal.Options{Log: s.cfg.Log, Wrap: s.cfg.wrap}, quota: s.cfg.quota,
	}}
}

// Run hands a prepared job to the engine. It answers once the artifacts are there and the job is durably STARTING; what
// goes wrong from then on makes the job FAILED, with a message. A job whose artifacts are not there stays as it was, and may
// be run again. A preparation id that says so is for a job that has FAILED, and is to go on: see [Resumption].
func (s *Service) Run(ctx context.Context, req *jobpb.RunJobRequest) (*jobpb.RunJobResponse, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	s.leave() // Close is not to wait for a client that stages
	if id, ok := strings.CutPrefix(req.GetPreparationId(), Resumption); ok {
		return s.resumed(ctx, id)
	}
	id, ok := strings.CutPrefix(req.GetPreparationId(), preparation)
	if !ok {
		return nil, trailer.Status(codes.NotFound, fmt.Sprintf("this server has not prepared %q", req.GetPreparationId()))
	}
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if err := e.claim(); err != nil {
		return nil, err
	}
	resolved, err := s.cfg.Staging.Resolved(ctx, e.id)
	if err != nil {
		return nil, s.unrun(e, codes.FailedPrecondition, fmt.Sprintf("job %s: its artifacts are not staged: %v", e.id, err))
	}
	p, err := e.pipeline()
	if err == nil {
		err = resolve(p, resolved)
	}
	if err == nil {
		err = e.staged(artifact.Digests(resolved))
	}
	if err != nil {
		return nil, s.unrun(e, codes.Internal, fmt.Sprintf("run job %s: %v", e.id, err))
	}
	if err := s.begin(e, p); err != nil {
		return nil, err
	}
	return &jobpb.RunJobResponse{JobId: e.id}, nil
}

// claim makes sure that a job is run once.
func (e *entry) claim() error {
	e.control.Lock()
	defer e.control.Unlock()
	if st := e.state(); st != jobpb.JobState_STOPPED {
		return trailer.Status(codes.FailedPrecondition, fmt.Sprintf("job %s was run before, and is %v; a prepared job runs once", e.id, st))
	}
	if !e.startable {
		return trailer.Status(codes.FailedPrecondition, fmt.Sprintf(
			"job %s is about to run already, or was prepared before the server was restarted; submit the pipeline again", e.id))
	}
	e.startable, e.claimed = false, true
	return nil
}

func (e *entry) unclaim() {
	e.control.Lock()
	defer e.control.Unlock()
	e.startable, e.claimed = true, false
}

// unrun gives a claim up, and is what Run answers with: what is wrong, unless that is only because the job was cancelled
// meanwhile, or the server is being stopped.
func (s *Service) unrun(e *entry, code codes.Code, text string) error {
	e.unclaim()
	if st := e.state(); st != jobpb.JobState_STOPPED {
		return trailer.Status(codes.FailedPrecondition, fmt.Sprintf("job %s does not run: it is %v, since before its artifacts were all there", e.id, st))
	}
	if s.ctx.Err() != nil { // which comes before Close lets go of what jobs need
		return errStopping
	}
	s.cfg.Log.Warn("a job does not run", "job", e.id, "error", text)
	return trailer.Status(code, text)
}

// begin makes the job STARTING and sees to it that it is started.
func (s *Service) begin(e *entry, p *pipepb.Pipeline) error {
	if err := s.enter(); err != nil {
		e.unclaim()
		return err
	}
	defer s.leave()
	ctx, abandon := context.WithCancel(s.ctx)
	e.control.Lock()
	_, _, err := e.happen(job.Submitted)
	if err == nil {
		e.abandon, e.released = abandon, make(chan struct{})
	}
	e.control.Unlock()
	if err != nil {
		abandon()
		return s.unrun(e, codes.Internal, fmt.Sprintf("run job %s: %v", e.id, err))
	}
	info := e.info()
	submission := Submission{
		ID: e.id, Name: info.GetJobName(), Pipeline: p, Options: info.GetPipelineOptions(), Events: events{e.eventLog},
	}
	go func() {
		defer close(e.released)
		defer abandon()
		run, err := s.cfg.Runner.Start(ctx, submission)
		if err != nil {
			e.refused(err)
		} else {
			_ = e.accepted(run.Handle()) // the run goes on; it is lost only if this server is, too
			s.follow(e, run)
		}
		s.finish(e)
	}()
	// The client is told of a job that outlives the machine; the engine need not wait for that.
	if err := errors.Join(e.durable(), e.sync()); err != nil {
		e.message(jobpb.JobMessage_JOB_MESSAGE_ERROR, fmt.Sprintf("The job is cancelled, because its log cannot be kept: %v", err))
		s.cancel(e)
		return trailer.Status(codes.Internal, fmt.Sprintf("run job %s: %v", e.id, err))
	}
	return nil
}

// wait waits until nothing of the job runs any more; false when ctx is done before.
func (e *entry) wait(ctx context.Context) bool {
	e.control.Lock()
	released := e.released
	e.control.Unlock()
	if released == nil {
		return true
	}
	select {
	case <-released:
		return true
	default:
	}
	select {
	case <-released:
		return true
	case <-ctx.Done():
		return false
	}
}

// refused ends a job that no engine took.
func (e *entry) refused(err error) {
	e.control.Lock()
	asked := e.asked
	e.control.Unlock()
	if asked {
		e.end(job.Cancelled)
		return
	}
	e.message(jobpb.JobMessage_JOB_MESSAGE_ERROR, err.Error())
	e.end(job.Failed)
}

// end brings a job to its end that an engine has not reported, unless it did.
func (e *entry) end(ev job.Event) {
	if job.Terminal(e.state()) {
		return
	}
	if _, _, err := e.happen(ev); err != nil && !errors.Is(err, job.ErrTransition) {
		e.log.Error("end a job", "job", e.id, "error", err)
	}
}

// follow waits for a run's end.
func (s *Service) follow(e *entry, run engine.Run) {
	e.control.Lock()
	e.run, e.attaching = run, false
	asked, left := e.asked, e.left
	e.drain()
	e.control.Unlock()
	switch {
	case left: // before there was a run
		run.Detach()
	case asked:
		run.Cancel()
	}
	<-run.Done()
	if !job.Terminal(e.state()) && !s.detached(e) {
		e.message(jobpb.JobMessage_JOB_MESSAGE_ERROR, "The engine's run ended, and it told no result.")
		e.end(job.Failed)
	}
}

// detach leaves a run to its engine, for the next server to attach to; false when the run cannot be left.
func (s *Service) detach(e *entry) bool {
	if _, ok := s.cfg.Runner.(Attacher); !ok {
		return false
	}
	e.control.Lock()
	if e.left {
		e.control.Unlock()
		return true
	}
	run := e.run
	// One that is being submitted may have been taken already.
	known := run == nil && e.handle() != "" || run != nil && run.Handle() != ""
	left := (e.attaching || known) && !e.asked
	e.left = left
	e.control.Unlock()
	if left && run != nil {
		run.Detach()
	}
	return left
}

func (s *Service) detached(e *entry) bool {
	e.control.Lock()
	defer e.control.Unlock()
	return e.left
}

// finish releases what the service holds for a job that has ended.
func (s *Service) finish(e *entry) {
	s.cfg.Staging.Forget(e.id)
	if err := e.seal(); err != nil {
		s.cfg.Log.Error("close a job's event log", "job", e.id, "error", err)
	}
	e.control.Lock()
	e.run = nil
	e.control.Unlock()
}

// cancel asks for a job's end, and returns the state that it is in.
func (s *Service) cancel(e *entry) job.State {
	e.control.Lock()
	st, changed, err := e.happen(job.CancelAsked)
	if err != nil {
		s.cfg.Log.Error("cancel a job", "job", e.id, "error", err)
	}
	first := changed && st == jobpb.JobState_CANCELLING
	run, abandon := e.run, e.abandon
	e.asked = e.asked || first
	e.control.Unlock()
	switch {
	case first && run != nil:
		run.Cancel()
	case first && abandon != nil:
		abandon()
	case changed && st == jobpb.JobState_CANCELLED:
		// It never ran.
		s.finish(e)
	}
	return st
}

// Cancel asks for a job's end. A job that has ended answers with its state.
func (s *Service) Cancel(_ context.Context, req *jobpb.CancelJobRequest) (*jobpb.CancelJobResponse, error) {
	e, err := s.find(req.GetJobId())
	if err != nil {
		return nil, err
	}
	return &jobpb.CancelJobResponse{State: s.cancel(e)}, nil
}

// Drain asks a job to stop reading, and to end when it has done what it has read. A job that has ended answers with its
// state.
func (s *Service) Drain(_ context.Context, req *jobpb.DrainJobRequest) (*jobpb.DrainJobResponse, error) {
	e, err := s.find(req.GetJobId())
	if err != nil {
		return nil, err
	}
	e.control.Lock()
	defer e.control.Unlock()
	if e.run != nil {
		if _, ok := e.run.(engine.Drainer); !ok {
			return nil, trailer.Status(codes.Unimplemented, fmt.Sprintf("job %s: its engine cannot drain jobs; cancel the job instead", e.id))
		}
	}
	st, changed, err := e.happen(job.DrainAsked)
	if err != nil {
		return nil, trailer.Status(codes.FailedPrecondition, fmt.Sprintf("drain job %s: %v", e.id, err))
	}
	if changed && st == jobpb.JobState_DRAINING {
		e.draining = true
		e.drain()
	}
	return &jobpb.DrainJobResponse{State: st}, nil
}

// drain passes a request to drain on to the run, once there is one. The caller holds control.
func (e *entry) drain() {
	run, ok := e.run.(engine.Drainer)
	switch {
	case !e.draining || e.run == nil:
	case ok:
		run.Drain()
	default:
		e.message(jobpb.JobMessage_JOB_MESSAGE_WARNING, "The job's engine cannot drain jobs: it goes on until it ends, or is cancelled.")
	}
}

// pipeline is the pipeline as it was submitted.
func (e *entry) pipeline() (*pipepb.Pipeline, error) {
	e.mu.Lock()
	ref := e.life.Pipeline
	e.mu.Unlock()
	// The name comes from a file, and is to lead nowhere else.
	path := filepath.Join(e.dir, filepath.Base(ref.File))
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the job's pipeline: %w", err)
	}
	if int64(len(b)) != ref.Size || sha256.Sum256(b) != ref.SHA256 {
		return nil, fmt.Errorf("read the job's pipeline: %s is not what was written", path)
	}
	p := new(pipepb.Pipeline)
	if err := proto.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("read the job's pipeline: %s: %w", path, err)
	}
	return p, nil
}

// resolve gives environments their staged dependencies.
func resolve(p *pipepb.Pipeline, byEnvironment map[string][]*pipepb.ArtifactInformation) error {
	for id, dependencies := range byEnvironment {
		env, ok := p.GetComponents().GetEnvironments()[id]
		if !ok {
			return fmt.Errorf("artifacts were staged for an environment %q, which the pipeline has not", id)
		}
		// The staging service's are not ours to change, and the pipeline is the runner's.
		env.Dependencies = make([]*pipepb.ArtifactInformation, len(dependencies))
		for i, d := range dependencies {
			env.Dependencies[i] = proto.CloneOf(d)
		}
	}
	return nil
}
