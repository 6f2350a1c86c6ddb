package worker

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/fnapi"
	"trestle/internal/harness"
	"trestle/internal/plan"
)

// askedPool is a worker pool that tells which workers it was asked for, and starts none.
type askedPool struct {
	fnpb.UnimplementedBeamFnExternalWorkerPoolServer
	asked chan string
}

func (p askedPool) StartWorker(_ context.Context, r *fnpb.StartWorkerRequest) (*fnpb.StartWorkerResponse, error) {
	p.asked <- r.GetWorkerId()
	return &fnpb.StartWorkerResponse{}, nil
}

// A worker has the harnesses of all stages started before any task wants one: as many of an environment as tasks may run side by
// side, or as it has.
func TestHarnessesAreStartedInAdvance(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := askedPool{asked: make(chan string, 16)}
	server := grpc.NewServer()
	fnpb.RegisterBeamFnExternalWorkerPoolServer(server, asked)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	payload, err := proto.Marshal(&pipepb.ExternalPayload{Endpoint: &pipepb.ApiServiceDescriptor{Url: listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	environment := func(capabilities ...string) *pipepb.Environment {
		return &pipepb.Environment{Urn: urn.EnvExternal, Payload: payload, Capabilities: capabilities}
	}
	fn := fnapi.NewServer(slog.New(slog.DiscardHandler))
	defer fn.Close()
	w := &Worker{
		cfg:  Config{Tasks: 2},
		plan: &plan.Plan{Stages: []*plan.Stage{{Environment: "one"}, {}, {Environment: "many"}, {Environment: "one"}}},
		pool: harness.NewPool(harness.Config{
			Server: fn, Endpoint: "127.0.0.1:1", Job: "job", Cores: 3, Scratch: t.TempDir(),
			Environments: map[string]*pipepb.Environment{"many": environment(), "one": environment(urn.ProtocolMultiCore), "unused": environment()},
		}),
	}
	w.startHarnesses()
	var got []string
	limit := time.NewTimer(5 * time.Minute)
	defer limit.Stop()
	for len(got) < 3 {
		select {
		case id := <-asked.asked:
			got = append(got, id)
		case <-limit.C:
			t.Fatalf("asked for %v only", got)
		}
	}
	if err := w.pool.Close(t.Context()); err != nil && !errors.Is(err, harness.ErrClosed) {
		t.Error(err)
	}
	for len(asked.asked) > 0 { // whatever was asked for besides has been by now
		got = append(got, <-asked.asked)
	}
	slices.Sort(got)
	if want := []string{"job-e0-w0", "job-e0-w1", "job-e1-w0"}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
}
