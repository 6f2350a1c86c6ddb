package server

import (
	"context"
	"errors"
	"fmt"
	"sort"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/artifact"
	"trestle/internal/engine"
	"trestle/internal/harness"
	"trestle/internal/job"
	"trestle/internal/jobapi"
	"trestle/internal/plan"
)

// runner turns pipelines into plans and gives them to an engine: jobapi.Runner.
type runner struct {
	engine engine.Engine
	plan   plan.Options
}

// Check finds everything that would keep the pipeline from running.
func (r *runner) Check(_ context.Context, p *pipepb.Pipeline, options *structpb.Struct) error {
	_, err := plan.Build(p, r.plan)
	errs := []error{err}
	environments := p.GetComponents().GetEnvironments()
	ids := make([]string, 0, len(environments))
	for id := range environments {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	for _, id := range ids {
		if err := harness.Check(environments[id]); err != nil {
			errs = append(errs, fmt.Errorf("environment %s: %w", id, err))
		}
	}
	dependencies := map[string][]*pipepb.ArtifactInformation{}
	for id, env := range environments {
		dependencies[id] = env.GetDependencies()
	}
	errs = append(errs, artifact.Check(dependencies))
	_, err = job.Parallelism(options)
	return errors.Join(append(errs, err)...)
}

// Start plans the pipeline and submits it.
func (r *runner) Start(ctx context.Context, s jobapi.Submission) (engine.Run, error) {
	p, err := plan.Build(s.Pipeline, r.plan)
	if err != nil {
		return nil, err
	}
	tasks, err := job.Parallelism(s.Options)
	if err != nil {
		return nil, err
	}
	dependencies := map[string][]*pipepb.ArtifactInformation{}
	for id, env := range s.Pipeline.GetComponents().GetEnvironments() {
		dependencies[id] = env.GetDependencies()
	}
	return r.engine.Submit(ctx, engine.Job{
		ID:           s.ID,
		Name:         s.Name,
		Plan:         p,
		Options:      s.Options,
		Dependencies: dependencies,
		Parallelism:  tasks,
		Events:       s.Events,
	})
}

// Attach finds a run again after a restart of the server.
func (r *runner) Attach(ctx context.Context, handle string, events engine.Events) (engine.Run, error) {
	return r.engine.Attach(ctx, handle, events)
}
