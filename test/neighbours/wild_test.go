package neighbours

import (
	"context"
	"math"
	"net"
	"sync"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/plantest"
)

// pool is a worker pool whose harnesses do what no SDK does.
type pool struct {
	fnpb.UnimplementedBeamFnExternalWorkerPoolServer
	behave  func(*wild)
	address string

	mu      sync.Mutex
	stop    map[string]context.CancelFunc
	harness sync.WaitGroup
}

// wild is a harness of the pool. What its calls say is nobody's business: the server may have thrown it out.
type wild struct {
	id      string
	ctx     context.Context // ends when the server has it stopped
	conn    *grpc.ClientConn
	control fnpb.BeamFnControl_ControlClient
	data    fnpb.BeamFnData_DataClient
	state   fnpb.BeamFnState_StateClient
}

// startPool starts a pool. When the test ends, all of its harnesses have returned.
func startPool(t *testing.T, behave func(*wild)) *pool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pool{behave: behave, address: l.Addr().String(), stop: map[string]context.CancelFunc{}}
	s := grpc.NewServer(grpc.WaitForHandlers(true)) // a late one would start a harness that nobody stops
	fnpb.RegisterBeamFnExternalWorkerPoolServer(s, p)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		for _, stop := range p.stop {
			stop()
		}
		p.mu.Unlock()
		p.harness.Wait()
	})
	return p
}

func (p *pool) StartWorker(_ context.Context, r *fnpb.StartWorkerRequest) (*fnpb.StartWorkerResponse, error) {
	conn, err := grpc.NewClient(r.GetControlEndpoint().GetUrl(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.mu.Lock()
	p.stop[r.GetWorkerId()] = cancel
	p.mu.Unlock()
	p.harness.Go(func() {
		defer conn.Close()
		defer cancel()
		p.behave(&wild{id: r.GetWorkerId(), ctx: ctx, conn: conn})
	})
	return &fnpb.StartWorkerResponse{}, nil
}

func (p *pool) StopWorker(_ context.Context, r *fnpb.StopWorkerRequest) (*fnpb.StopWorkerResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if stop := p.stop[r.GetWorkerId()]; stop != nil {
		stop()
	}
	return &fnpb.StopWorkerResponse{}, nil
}

// pipeline reads a pipeline as package plantest has it, with all environments in the pool.
func (p *pool) pipeline(t *testing.T, text string) *pipepb.Pipeline {
	t.Helper()
	made, err := plantest.Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return p.host(t, made)
}

func (p *pool) host(t *testing.T, made *pipepb.Pipeline) *pipepb.Pipeline {
	t.Helper()
	payload, err := proto.Marshal(&pipepb.ExternalPayload{Endpoint: &pipepb.ApiServiceDescriptor{Url: p.address}})
	if err != nil {
		t.Fatal(err)
	}
	for _, env := range made.GetComponents().GetEnvironments() {
		env.Urn, env.Payload = urn.EnvExternal, payload
	}
	return made
}

// as is the context of calls by which a harness says that it is some worker.
func (w *wild) as(worker string) context.Context {
	return metadata.AppendToOutgoingContext(w.ctx, "worker_id", worker)
}

// connect opens the three streams of a harness.
func (w *wild) connect() bool {
	var errs [3]error
	w.data, errs[0] = fnpb.NewBeamFnDataClient(w.conn).Data(w.as(w.id))
	w.state, errs[1] = fnpb.NewBeamFnStateClient(w.conn).State(w.as(w.id))
	w.control, errs[2] = fnpb.NewBeamFnControlClient(w.conn).Control(w.as(w.id))
	return errs == [3]error{}
}

// bundle is a bundle as a wild harness knows it.
type bundle struct {
	*wild
	id, source, sink string
	splits           bool // it makes the restrictions of a splittable DoFn
}

// each connects, and does with each bundle what it is told. It answers a bundle with an error when no answer is given, and
// all other instructions with nothing.
func (w *wild) each(do func(bundle) *fnpb.InstructionResponse) {
	w.serve(do, func(*fnpb.InstructionRequest) *fnpb.InstructionResponse { return &fnpb.InstructionResponse{} })
}

func (w *wild) serve(do func(bundle) *fnpb.InstructionResponse, other func(*fnpb.InstructionRequest) *fnpb.InstructionResponse) {
	if !w.connect() {
		return
	}
	var working sync.WaitGroup
	defer working.Wait()
	var sending sync.Mutex
	answer := func(id string, r *fnpb.InstructionResponse) {
		if r == nil {
			r = &fnpb.InstructionResponse{Error: "enough"}
		}
		r.InstructionId = id
		sending.Lock()
		defer sending.Unlock()
		_ = w.control.Send(r)
	}
	for {
		r, err := w.control.Recv()
		if err != nil {
			return
		}
		id := r.GetInstructionId()
		if r.GetProcessBundle() == nil {
			answer(id, other(r))
			continue
		}
		working.Go(func() { answer(id, do(w.open(id, r.GetProcessBundle().GetProcessBundleDescriptorId()))) })
	}
}

func (w *wild) open(id, descriptor string) bundle {
	b := bundle{wild: w, id: id}
	d, err := fnpb.NewBeamFnControlClient(w.conn).GetProcessBundleDescriptor(w.as(w.id),
		&fnpb.GetProcessBundleDescriptorRequest{ProcessBundleDescriptorId: descriptor})
	if err != nil {
		return b
	}
	for tid, tr := range d.GetTransforms() {
		switch tr.GetSpec().GetUrn() {
		case urn.RunnerSource:
			b.source = tid
		case urn.RunnerSink:
			b.sink = tid
		case urn.SDFSplitAndSize:
			b.splits = true
		}
	}
	return b
}

// send sends data of the bundle's.
func (b bundle) send(transform string, data []byte, last bool) {
	_ = b.data.Send(&fnpb.Elements{Data: []*fnpb.Elements_Data{{InstructionId: b.id, TransformId: transform, Data: data, IsLast: last}}})
}

// done is an answer to a bundle that went well.
func done(r *fnpb.ProcessBundleResponse) *fnpb.InstructionResponse {
	return &fnpb.InstructionResponse{Response: &fnpb.InstructionResponse_ProcessBundle{ProcessBundle: r}}
}
