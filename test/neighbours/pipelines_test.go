package neighbours

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"trestle/internal/beam/urn"
)

// TestPipelines: what no SDK sends, or few do, is refused with a reason, or runs to an end.
func TestPipelines(t *testing.T) {
	n := settle(t)
	p := startPool(t, func(w *wild) { w.each(func(bundle) *fnpb.InstructionResponse { return nil }) })
	for _, c := range []struct {
		name   string
		change func(*pipepb.Pipeline)
		// refused is what the refusal says; when it is empty, the job runs, and ends as it is told.
		refused string
		ends    jobpb.JobState_Enum
	}{
		{"nothing at all", func(p *pipepb.Pipeline) { proto.Reset(p) }, "no root transforms", 0},
		{"roots that are not there", func(p *pipepb.Pipeline) { p.RootTransformIds = []string{"", "none", "none"} }, "none", 0},
		{"no components", func(p *pipepb.Pipeline) { p.Components = nil }, "I", 0},
		{"transforms of nothing", func(p *pipepb.Pipeline) {
			for id := range p.Components.Transforms {
				p.Components.Transforms[id] = &pipepb.PTransform{}
			}
		}, "", jobpb.JobState_DONE}, // composites that are empty

		{"a composite without sub-transforms", func(p *pipepb.Pipeline) {
			p.Components.Transforms["empty"] = &pipepb.PTransform{UniqueName: "empty", Spec: &pipepb.FunctionSpec{Urn: "my:composite:v1"},
				Inputs: map[string]string{"in": "i"}, Outputs: map[string]string{"out": "i"}}
			p.RootTransformIds = append(p.RootTransformIds, "empty")
		}, "", jobpb.JobState_FAILED},
		{"a composite in itself", func(p *pipepb.Pipeline) {
			p.Components.Transforms["loop"] = &pipepb.PTransform{UniqueName: "loop", Subtransforms: []string{"loop"}}
			p.RootTransformIds = append(p.RootTransformIds, "loop")
		}, "loop", 0},
		{"composites ten thousand deep", func(p *pipepb.Pipeline) {
			for i := range 10000 {
				p.Components.Transforms[fmt.Sprint("c", i)] = &pipepb.PTransform{UniqueName: fmt.Sprint("c", i), Subtransforms: []string{fmt.Sprint("c", i+1)}}
			}
			p.Components.Transforms["c10000"] = p.Components.Transforms["P"]
			delete(p.Components.Transforms, "P")
			p.RootTransformIds = []string{"I", "c0", "G", "Q"}
		}, "", jobpb.JobState_FAILED},
		{"a thousand ParDos in a row", func(p *pipepb.Pipeline) {
			last := "p"
			for i := range 1000 {
				id, out := fmt.Sprint("row", i), fmt.Sprint("row", i, "out")
				tr := proto.CloneOf(p.Components.Transforms["P"])
				tr.UniqueName, tr.Inputs, tr.Outputs = id, map[string]string{"in": last}, map[string]string{"out": out}
				pc := proto.CloneOf(p.Components.Pcollections["p"])
				pc.UniqueName = out
				for tag := range p.Components.Transforms["P"].GetInputs() {
					tr.Inputs = map[string]string{tag: last}
				}
				p.Components.Transforms[id], p.Components.Pcollections[out], last = tr, pc, out
				p.RootTransformIds = append(p.RootTransformIds, id)
			}
		}, "", jobpb.JobState_FAILED},
		{"coders a thousand deep", func(p *pipepb.Pipeline) {
			for i := range 1000 {
				p.Components.Coders[fmt.Sprint("c", i)] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: urn.CoderIterable}, ComponentCoderIds: []string{fmt.Sprint("c", i+1)}}
			}
			p.Components.Coders["c1000"] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: urn.CoderBytes}}
			p.Components.Coders["deep"] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: urn.CoderKV}, ComponentCoderIds: []string{"c1000", "c0"}}
			p.Components.Pcollections["p"].CoderId = "deep"
		}, "deeper", 0},
		{"a coder in itself", func(p *pipepb.Pipeline) {
			p.Components.Coders["loop"] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: urn.CoderKV}, ComponentCoderIds: []string{"loop", "loop"}}
			p.Components.Pcollections["p"].CoderId = "loop"
		}, "contains itself", 0},
		{"windowing that is not there", func(p *pipepb.Pipeline) { p.Components.WindowingStrategies = nil }, "window", 0},
		{"environments that are not there", func(p *pipepb.Pipeline) { p.Components.Environments = nil }, "environment", 0},
		{"environments of nothing", func(p *pipepb.Pipeline) {
			for id := range p.Components.Environments {
				p.Components.Environments[id] = &pipepb.Environment{}
			}
		}, "environment", 0},
		{"environments of garbage", func(p *pipepb.Pipeline) {
			for _, env := range p.Components.Environments {
				env.Payload = []byte("garbage")
			}
		}, "environment", 0},
		{"payloads of garbage", func(p *pipepb.Pipeline) {
			for _, tr := range p.Components.Transforms {
				tr.Spec.Payload = []byte("garbage")
			}
		}, "P", 0},
		{"a name of a megabyte", func(p *pipepb.Pipeline) {
			for _, tr := range p.Components.Transforms {
				tr.UniqueName = strings.Repeat("n", 1<<20) + tr.UniqueName
			}
		}, "", jobpb.JobState_FAILED},
		{"multimap state", func(p *pipepb.Pipeline) {
			state(p, &pipepb.StateSpec{
				Spec: &pipepb.StateSpec_MultimapSpec{MultimapSpec: &pipepb.MultimapStateSpec{KeyCoderId: "bytes", ValueCoderId: "bytes"}}})
		}, "P", jobpb.JobState_FAILED},
		{"state of no kind", func(p *pipepb.Pipeline) { state(p, &pipepb.StateSpec{}) }, "P", 0},
		{"artifacts of no kind", func(p *pipepb.Pipeline) {
			for _, env := range p.Components.Environments {
				env.Dependencies = []*pipepb.ArtifactInformation{{}, {TypeUrn: "x", TypePayload: []byte("\xff"), RoleUrn: "y"}}
			}
		}, "artifact", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			made := p.pipeline(t, grouping)
			c.change(made)
			id, err := n.submit(t.Context(), c.name, made)
			switch {
			case err != nil && c.refused == "":
				t.Errorf("refused: %v", err)
			case err != nil:
				if s := status.Convert(err); s.Code() != codes.InvalidArgument && s.Code() != codes.FailedPrecondition || !strings.Contains(s.Message(), c.refused) {
					t.Errorf("%v; want it to be refused, and that it says %q", err, c.refused)
				}
			case c.refused != "" && c.ends == 0:
				t.Errorf("it runs: %v", n.end(t, id))
			default:
				if o := n.end(t, id); o.state != c.ends {
					t.Errorf("it ended as %v: %s", o.state, o.errors)
				}
			}
			n.quiet(t)
		})
	}
}

// state gives the pipeline's DoFn a state.
func state(p *pipepb.Pipeline, spec *pipepb.StateSpec) {
	tr := p.Components.Transforms["P"]
	var payload pipepb.ParDoPayload
	if proto.Unmarshal(tr.Spec.Payload, &payload) == nil {
		payload.StateSpecs = map[string]*pipepb.StateSpec{"s": spec}
		tr.Spec.Payload, _ = proto.Marshal(&payload)
	}
}

// TestMutants sends pipelines of which some bytes were changed on the way. Each is refused, or its job comes to an end.
func TestMutants(t *testing.T) {
	n := settle(t)
	p := startPool(t, func(w *wild) { w.each(func(bundle) *fnpb.InstructionResponse { return nil }) })
	var whole [][]byte
	for _, text := range []string{grouping, splitting, siding} {
		b, err := proto.Marshal(p.pipeline(t, text))
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, b)
	}
	rapid.Check(t, func(rt *rapid.T) {
		b := slices.Clone(rapid.SampledFrom(whole).Draw(rt, "pipeline"))
		for range rapid.IntRange(1, 4).Draw(rt, "changes") {
			b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
		}
		made := new(pipepb.Pipeline)
		if proto.Unmarshal(b, made) != nil {
			return
		}
		// A mutant of the pool's address would be waited for.
		for _, id := range slices.Sorted(maps.Keys(made.GetComponents().GetEnvironments())) {
			if made.Components.Environments[id].GetUrn() != urn.EnvExternal {
				return
			}
		}
		if id, err := n.submit(t.Context(), "mutant", p.host(t, made)); err == nil {
			n.end(t, id)
		}
	})
	n.quiet(t)
}

// TestClients: what a client sends that makes no sense is refused, and what it begins and leaves is forgotten.
func TestClients(t *testing.T) {
	n := settle(t)
	ctx := t.Context()
	large, err := structpb.NewStruct(map[string]any{"beam:option:x:v1": strings.Repeat("x", 30<<20), "": nil, "beam:option:parallelism:v1": "many"})
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"no pipeline": func() error {
			_, err := n.jobs.Prepare(ctx, &jobpb.PrepareJobRequest{JobName: "\n\t\u0000"})
			return err
		},
		"absurd options": func() error {
			_, err := n.jobs.Prepare(ctx, &jobpb.PrepareJobRequest{Pipeline: &pipepb.Pipeline{}, PipelineOptions: large})
			return err
		},
		"an unknown job": func() error {
			_, err := n.jobs.Run(ctx, &jobpb.RunJobRequest{PreparationId: "prepared:../../etc"})
			return err
		},
		"a job twice": func() error {
			_, err := n.jobs.Run(ctx, &jobpb.RunJobRequest{PreparationId: "prepared:" + n.id})
			return err
		},
		"unknown state":   func() error { _, err := n.jobs.GetState(ctx, &jobpb.GetJobStateRequest{JobId: "\xc3\xa9"}); return err },
		"unknown metrics": func() error { _, err := n.jobs.GetJobMetrics(ctx, &jobpb.GetJobMetricsRequest{}); return err },
		"unknown cancel":  func() error { _, err := n.jobs.Cancel(ctx, &jobpb.CancelJobRequest{JobId: "."}); return err },
	} {
		if err := call(); err == nil || status.Code(err) == codes.Internal || status.Code(err) == codes.Unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := startPool(t, func(w *wild) { w.each(func(bundle) *fnpb.InstructionResponse { return nil }) })
	for name, first := range map[string]*jobpb.ArtifactResponseWrapper{
		"an unknown token": {StagingToken: "none"},
		"the quiet job's":  {StagingToken: n.id},
		"not a beginning":  {Response: &jobpb.ArtifactResponseWrapper_GetArtifactResponse{GetArtifactResponse: &jobpb.GetArtifactResponse{Data: bytes.Repeat([]byte("x"), 1<<20)}}},
	} {
		stream, err := jobpb.NewArtifactStagingServiceClient(n.conn).ReverseArtifactRetrievalService(ctx)
		if err == nil {
			err = stream.Send(first)
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if err == nil {
			t.Errorf("staging with %s was taken", name)
		}
	}
	// A client that goes away in the middle, and one that never comes back.
	made := p.pipeline(t, grouping)
	for _, env := range made.GetComponents().GetEnvironments() {
		env.Dependencies = []*pipepb.ArtifactInformation{{TypeUrn: "beam:artifact:type:file:v1", TypePayload: []byte("\n\x04/x/y"), RoleUrn: "beam:artifact:role:staging_to:v1", RolePayload: []byte("\n\x01y")}}
	}
	prepared, err := n.jobs.Prepare(ctx, &jobpb.PrepareJobRequest{Pipeline: made})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := jobpb.NewArtifactStagingServiceClient(n.conn).ReverseArtifactRetrievalService(ctx)
	if err == nil {
		err = stream.Send(&jobpb.ArtifactResponseWrapper{StagingToken: prepared.GetStagingSessionToken()})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.jobs.Run(ctx, &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("run without its artifacts: %v", err)
	}
	n.quiet(t)
}
