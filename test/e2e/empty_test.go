package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/graphx"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"

	"trestle/internal/server"
)

// TestEmptyFlatten: a Flatten of nothing is an empty collection, whoever reads it. The Go SDK does not make one, so its
// pipeline is changed before it is submitted: what was a source becomes a Flatten without inputs.
func TestEmptyFlatten(t *testing.T) {
	s := start(t, server.Config{})
	p, scope := beam.NewPipelineWithRoot()
	imp := beam.Impulse(scope)
	none := beam.ParDo(scope, never, imp)
	passert.Empty(scope, none)
	passert.Equals(scope, beam.ParDo(scope, withSide, beam.Create(scope, 5), beam.SideInput{Input: none}), 5)
	passert.Empty(scope, beam.ParDo(scope, sumValues, beam.GroupByKey(scope, beam.ParDo(scope, modThree, none))))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	workers, err := extworker.StartLoopback(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = workers.Stop(ctx) }()
	edges, _, err := p.Build()
	if err != nil {
		t.Fatal(err)
	}
	environment, err := graphx.CreateEnvironment(ctx, "beam:env:external:v1", workers.EnvironmentConfig)
	if err != nil {
		t.Fatal(err)
	}
	pipeline, err := graphx.Marshal(edges, &graphx.Options{Environment: environment})
	if err != nil {
		t.Fatal(err)
	}
	var changed int
	for _, tr := range pipeline.GetComponents().GetTransforms() {
		if tr.GetUniqueName() == "e2e.never" || tr.GetUniqueName() == "trestle/test/e2e.never" {
			tr.Spec = &pipepb.FunctionSpec{Urn: "beam:transform:flatten:v1"}
			tr.Inputs = nil
			tr.EnvironmentId = ""
			changed++
		}
	}
	if changed != 1 {
		for _, tr := range pipeline.GetComponents().GetTransforms() {
			t.Log(tr.GetUniqueName())
		}
		t.Fatalf("%d transforms were changed", changed)
	}
	if state := runPipeline(ctx, t, s, pipeline); state != jobpb.JobState_DONE {
		t.Errorf("the job ended as %v", state)
	}
}

func init() { register.Function2x0(never) }

func never(_ []byte, _ func(int)) {}

// runPipeline submits a pipeline proto that has nothing to stage, and answers with the state in which its job ends.
func runPipeline(ctx context.Context, t *testing.T, s *server.Server, p *pipepb.Pipeline) jobpb.JobState_Enum {
	t.Helper()
	client := jobs(t, s)
	for _, env := range p.GetComponents().GetEnvironments() {
		env.Dependencies = nil
	}
	prepared, err := client.Prepare(ctx, &jobpb.PrepareJobRequest{Pipeline: p, JobName: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	run, err := client.Run(ctx, &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.GetStateStream(ctx, &jobpb.GetJobStateRequest{JobId: run.GetJobId()})
	state := jobpb.JobState_UNSPECIFIED
	for err == nil {
		var event *jobpb.JobStateEvent
		if event, err = stream.Recv(); err == nil {
			state = event.GetState()
		}
	}
	return state
}
