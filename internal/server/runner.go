package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/artifact"
	"trestle/internal/engine"
	"trestle/internal/job"
	"trestle/internal/jobapi"
	"trestle/internal/plan"
	"trestle/internal/store/blob"
)

// runner turns pipelines into plans and gives them to an engine: jobapi.Runner.
type runner struct {
	engines []engine.Engine // the first is the one for jobs that name none
	plan    plan.Options
	// staging is the artifact store, where it may fail on its own.
	staging blob.Bucket
}

// Check finds everything that would keep the pipeline from running.
func (r *runner) Check(ctx context.Context, p *pipepb.Pipeline, options *structpb.Struct) error {
	chosen, err := r.choose(options)
	errs := []error{err}
	how, err := r.planning(chosen, options)
	errs = append(errs, err)
	planned, err := plan.Build(p, how)
	errs = append(errs, err)
	dependencies := map[string][]*pipepb.ArtifactInformation{}
	for id, env := range p.GetComponents().GetEnvironments() {
		dependencies[id] = env.GetDependencies()
	}
	errs = append(errs, artifact.Check(dependencies))
	asking, stop := context.WithCancel(ctx)
	defer stop()
	staging := make(chan error, 1)
	go func() { staging <- r.checkStaging(asking, dependencies) }()
	tasks, err := job.Parallelism(options)
	errs = append(errs, err)
	_, err = job.Attempts(options)
	errs = append(errs, err)
	if chosen != nil {
		errs = append(errs, chosen.Check(ctx, p, planned, tasks))
	}
	if errors.Join(errs...) != nil {
		defer time.AfterFunc(storeGrace, stop).Stop()
	}
	err = <-staging
	if asking.Err() == nil || ctx.Err() != nil { // else it was not heard, and the pipeline is refused without it
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// storeGrace is how long a refusal waits for what is wrong with the artifact store besides: one that is silent is given up after
// half a minute only, and an engine that cannot be reached is to be named within five seconds.
const storeGrace = 250 * time.Millisecond

// checkStaging asks the artifact store whether it answers: not every SDK shows why staging has failed.
func (r *runner) checkStaging(ctx context.Context, dependencies map[string][]*pipepb.ArtifactInformation) error {
	for _, infos := range dependencies {
		if r.staging == nil || len(infos) == 0 {
			continue
		}
		if _, err := r.staging.Stat(ctx, "none"); err != nil && !blob.IsNotFound(err) {
			return fmt.Errorf("the artifact store (--staging) cannot be used: %w", err)
		}
		return nil
	}
	return nil
}

// choose finds the engine that a job's options name.
func (r *runner) choose(options *structpb.Struct) (engine.Engine, error) {
	name, err := job.Engine(options)
	if name == "" || err != nil {
		return r.engines[0], err
	}
	return r.named(name)
}

// planning is how a job is planned for an engine.
func (r *runner) planning(on engine.Engine, options *structpb.Struct) (plan.Options, error) {
	how := r.plan
	streaming, err := job.Streaming(options)
	if s, ok := on.(engine.Streamer); ok && s.Streams() {
		how.Streams, how.Streaming = true, how.Streaming || streaming
	}
	return how, err
}

func (r *runner) named(name string) (engine.Engine, error) {
	var names []string
	for _, e := range r.engines {
		if e.Name() == name {
			return e, nil
		}
		names = append(names, e.Name())
	}
	return nil, fmt.Errorf("pipeline option %s: this server has no engine %q; it has %s", job.EngineOption, name, strings.Join(names, ", "))
}

// Start plans the pipeline and submits it.
func (r *runner) Start(ctx context.Context, s jobapi.Submission) (engine.Run, error) {
	chosen, err := r.choose(s.Options)
	if err != nil {
		return nil, err
	}
	how, err := r.planning(chosen, s.Options)
	if err != nil {
		return nil, err
	}
	p, err := plan.Build(s.Pipeline, how)
	if err != nil {
		return nil, err
	}
	tasks, err := job.Parallelism(s.Options)
	if err != nil {
		return nil, err
	}
	attempts, err := job.Attempts(s.Options)
	if err != nil {
		return nil, err
	}
	dependencies := map[string][]*pipepb.ArtifactInformation{}
	for id, env := range s.Pipeline.GetComponents().GetEnvironments() {
		dependencies[id] = env.GetDependencies()
	}
	for _, wish := range plan.Wishes(p) {
		s.Events.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, wish)
	}
	run, err := chosen.Submit(ctx, engine.Job{
		ID:           s.ID,
		Name:         s.Name,
		Pipeline:     s.Pipeline,
		Plan:         p,
		Planned:      how,
		Options:      s.Options,
		Dependencies: dependencies,
		Parallelism:  tasks,
		Attempts:     attempts,
		Events:       namedEvents{s.Events, chosen.Name()},
	})
	if err != nil {
		return nil, err
	}
	return withName(run, chosen.Name()), nil
}

// withName lets a run's handle say which engine has it.
func withName(run engine.Run, name string) engine.Run {
	if drainer, ok := run.(engine.Drainer); ok {
		return struct {
			named
			engine.Drainer
		}{named{run, name}, drainer}
	}
	return named{run, name}
}

// named is a run whose handle says which engine has it.
type named struct {
	engine.Run
	engine string
}

func (n named) Handle() string {
	if handle := n.Run.Handle(); handle != "" {
		return n.engine + ":" + handle
	}
	return ""
}

// namedEvents does so with the handle of a run that is about to be.
type namedEvents struct {
	engine.Events
	engine string
}

func (n namedEvents) Handle(handle string) error { return n.Events.Handle(n.engine + ":" + handle) }

// Resumable tells why a job that has failed cannot go on; nil if Attach may try.
func (r *runner) Resumable(handle string) error {
	name, handle, _ := strings.Cut(handle, ":")
	e, err := r.named(name)
	if err != nil {
		return fmt.Errorf("it ran on an engine that this server was not started with: %w", err)
	}
	resumer, ok := e.(engine.Resumer)
	if !ok {
		return fmt.Errorf("the engine %q keeps nothing of a job that has failed", name)
	}
	return resumer.Resumable(handle)
}

// Attach finds a run again after a restart of the server.
func (r *runner) Attach(ctx context.Context, handle string, events engine.Events) (engine.Run, error) {
	name, handle, _ := strings.Cut(handle, ":")
	e, err := r.named(name)
	if err != nil {
		return nil, fmt.Errorf("the job runs on an engine that this server was not started with: %w", err)
	}
	run, err := e.Attach(ctx, handle, events)
	if err != nil {
		return nil, err
	}
	return withName(run, name), nil
}
