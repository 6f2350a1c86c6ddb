package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/graphx"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"

	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
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

	pipeline := portable(t, p)
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
	if state := runPipeline(t, s, pipeline); state != jobpb.JobState_DONE {
		t.Errorf("the job ended as %v", state)
	}
}

func init() { register.Function2x0(never) }

func never(_ []byte, _ func(int)) {}

// portable makes a pipeline's proto, for harnesses in this process, so that a test can change what the SDK would not.
func portable(t *testing.T, p *beam.Pipeline) *pipepb.Pipeline {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	workers, err := extworker.StartLoopback(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := workers.Stop(ctx); err != nil {
			t.Errorf("stop the workers: %v", err)
		}
	})
	edges, _, err := p.Build()
	if err != nil {
		t.Fatal(err)
	}
	environment, err := graphx.CreateEnvironment(ctx, urn.EnvExternal, workers.EnvironmentConfig)
	if err != nil {
		t.Fatal(err)
	}
	pipeline, err := graphx.Marshal(edges, &graphx.Options{Environment: environment})
	if err != nil {
		t.Fatal(err)
	}
	return pipeline
}

// TestTwoEnvironments: stages of one pipeline run in harnesses of different environments, before and after a GroupByKey,
// and with a side input from the other.
func TestTwoEnvironments(t *testing.T) {
	s := start(t, server.Config{})
	p, scope := beam.NewPipelineWithRoot()
	in := beam.CreateList(scope, numbers(30))
	passert.Equals(scope, beam.ParDo(scope, sumValues, beam.GroupByKey(scope, beam.ParDo(scope, modThree, in))),
		"0:135/10", "1:145/10", "2:155/10")
	passert.Equals(scope, beam.ParDo(scope, withSide, beam.Create(scope, 1), beam.SideInput{Input: in}), 436)
	pipeline := portable(t, p)
	components := pipeline.GetComponents()
	for id, env := range components.GetEnvironments() {
		other := proto.CloneOf(env)
		other.ResourceHints = map[string][]byte{urn.HintMinRAM: []byte("1000")}
		components.Environments["other"] = other
		moved := 0
		for _, tr := range components.GetTransforms() {
			if name := tr.GetUniqueName(); tr.GetEnvironmentId() == id &&
				(strings.HasSuffix(name, "e2e.modThree") || strings.HasSuffix(name, "e2e.withSide")) {
				tr.EnvironmentId = "other"
				moved++
			}
		}
		if moved != 2 {
			t.Fatalf("%d transforms were moved", moved)
		}
		break
	}
	if state := runPipeline(t, s, pipeline); state != jobpb.JobState_DONE {
		t.Errorf("the job ended as %v", state)
	}
}

// runPipeline submits a pipeline proto that has nothing to stage, and answers with the state in which its job ends.
func runPipeline(t *testing.T, s *server.Server, p *pipepb.Pipeline) jobpb.JobState_Enum {
	t.Helper()
	client := jobs(t, s)
	return lastState(t, client, submitPipeline(t, client, p))
}

// submitPipeline runs a pipeline proto that has nothing to stage, and answers with its job's id.
func submitPipeline(t *testing.T, client jobpb.JobServiceClient, p *pipepb.Pipeline) string {
	t.Helper()
	for _, env := range p.GetComponents().GetEnvironments() {
		env.Dependencies = nil
	}
	prepared, err := client.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: p, JobName: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	run, err := client.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
	if err != nil {
		t.Fatal(err)
	}
	return run.GetJobId()
}

// lastState is the state in which a job ends, or is after a minute.
func lastState(t *testing.T, client jobpb.JobServiceClient, id string) jobpb.JobState_Enum {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := client.GetStateStream(ctx, &jobpb.GetJobStateRequest{JobId: id})
	state := jobpb.JobState_UNSPECIFIED
	for err == nil {
		var event *jobpb.JobStateEvent
		if event, err = stream.Recv(); err == nil {
			state = event.GetState()
		}
	}
	return state
}
