package server

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/beam/urn"
)

// TestEngineOfAJob: a server of two engines has each job run by the one that its options name, and by the server's own choice where
// they name none. Which one was asked shows by its answer: the Flink is not there, which is said before the job is accepted.
func TestEngineOfAJob(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	flink := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	const none, local = "", "local"
	gone := "the Flink at " + flink + " cannot be reached from "
	for _, test := range []struct {
		server  string
		options map[string]any
		says    string // nothing: the job is accepted
	}{
		{none, nil, ""},
		{local, map[string]any{"beam:option:engine:v1": local}, ""},
		{local, map[string]any{"beam:option:engine:v1": "flink"}, gone},
		{local, map[string]any{"beam:option:experiments:v1": []any{"engine=flink"}}, gone},
		{"flink", nil, gone},
		{"flink", map[string]any{"beam:option:engine:v1": local}, ""},
		{"flink", map[string]any{"beam:option:experiments:v1": []any{"engine=local"}}, ""},
		{"flink", map[string]any{"beam:option:engine:v1": "spark"}, `this server has no engine "spark"; it has flink, local`},
		{"flink", map[string]any{"beam:option:engine:v1": 3}, "is not an engine's name"},
	} {
		err := prepareOn(t, Config{Engine: test.server, Flink: flink}, test.options)
		switch {
		case test.says == "" && err == nil:
		case test.says != "" && status.Code(err) == codes.InvalidArgument && strings.Contains(err.Error(), test.says):
		default:
			t.Errorf("server's engine %q, options %v: %v", test.server, test.options, err)
		}
	}
}

// prepareOn is what a server answers to the preparation of a small pipeline with some options.
func prepareOn(t *testing.T, cfg Config, options map[string]any) error {
	t.Helper()
	cfg.Listen, cfg.Data, cfg.Version, cfg.Log = "127.0.0.1:0", t.TempDir(), "test", slog.New(slog.DiscardHandler)
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	conn, err := grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	encoded, err := structpb.NewStruct(options)
	if err != nil {
		t.Fatal(err)
	}
	_, err = jobpb.NewJobServiceClient(conn).Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: impulse(), JobName: "small", PipelineOptions: encoded})
	return err
}

// impulse is the smallest pipeline that there is.
func impulse() *pipepb.Pipeline {
	return &pipepb.Pipeline{
		RootTransformIds: []string{"impulse"},
		Components: &pipepb.Components{
			Transforms: map[string]*pipepb.PTransform{"impulse": {
				UniqueName: "Impulse", Spec: &pipepb.FunctionSpec{Urn: urn.TransformImpulse}, Outputs: map[string]string{"out": "out"},
			}},
			Pcollections: map[string]*pipepb.PCollection{"out": {
				UniqueName: "out", CoderId: "bytes", WindowingStrategyId: "global", IsBounded: pipepb.IsBounded_BOUNDED,
			}},
			Coders: map[string]*pipepb.Coder{
				"bytes": {Spec: &pipepb.FunctionSpec{Urn: urn.CoderBytes}}, "window": {Spec: &pipepb.FunctionSpec{Urn: urn.CoderGlobalWindow}},
			},
			WindowingStrategies: map[string]*pipepb.WindowingStrategy{"global": {
				WindowFn: &pipepb.FunctionSpec{Urn: urn.WindowFnGlobal}, WindowCoderId: "window",
				Trigger:          &pipepb.Trigger{Trigger: &pipepb.Trigger_Default_{Default: &pipepb.Trigger_Default{}}},
				AccumulationMode: pipepb.AccumulationMode_DISCARDING, OutputTime: pipepb.OutputTime_END_OF_WINDOW,
				ClosingBehavior: pipepb.ClosingBehavior_EMIT_IF_NONEMPTY, OnTimeBehavior: pipepb.OnTimeBehavior_FIRE_ALWAYS, MergeStatus: pipepb.MergeStatus_NON_MERGING,
			}},
		},
	}
}
