package fnapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// serve starts a server and gives a way to dial it.
func serve(t *testing.T) (*Server, *grpc.ClientConn) {
	t.Helper()
	s := NewServer(slog.New(slog.DiscardHandler))
	g := grpc.NewServer(ServerOptions()...)
	s.Register(g)
	listener := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///fn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		_ = conn.Close()
		g.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, conn
}

// harness plays an SDK: the stock client, with its control and data streams open.
type harness struct {
	t       *testing.T
	ctx     context.Context
	conn    *grpc.ClientConn
	control fnpb.BeamFnControl_ControlClient
	data    fnpb.BeamFnData_DataClient
}

func dial(t *testing.T, conn *grpc.ClientConn, id string) *harness {
	t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), workerID, id))
	t.Cleanup(cancel)
	h := &harness{t: t, ctx: ctx, conn: conn}
	var err error
	if h.control, err = fnpb.NewBeamFnControlClient(conn).Control(ctx); err != nil {
		t.Fatal(err)
	}
	if h.data, err = fnpb.NewBeamFnDataClient(conn).Data(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

// instruction waits for the next instruction.
func (h *harness) instruction() *fnpb.InstructionRequest {
	h.t.Helper()
	r, err := h.control.Recv()
	if err != nil {
		h.t.Fatalf("control: %v", err)
	}
	return r
}

func (h *harness) answer(r *fnpb.InstructionResponse) {
	h.t.Helper()
	if err := h.control.Send(r); err != nil {
		h.t.Fatalf("control: %v", err)
	}
}

// done answers a ProcessBundle instruction.
func (h *harness) done(instruction string) {
	h.answer(&fnpb.InstructionResponse{InstructionId: instruction, Response: &fnpb.InstructionResponse_ProcessBundle{
		ProcessBundle: &fnpb.ProcessBundleResponse{RequiresFinalization: true},
	}})
}

func (h *harness) send(d ...*fnpb.Elements_Data) {
	h.t.Helper()
	if err := h.data.Send(&fnpb.Elements{Data: d}); err != nil {
		h.t.Fatalf("data: %v", err)
	}
}

// descriptor has a source "in" and a sink "out".
func descriptor(t *testing.T) *fnpb.ProcessBundleDescriptor {
	t.Helper()
	port, err := proto.Marshal(&fnpb.RemoteGrpcPort{CoderId: "c"})
	if err != nil {
		t.Fatal(err)
	}
	return &fnpb.ProcessBundleDescriptor{
		Id: "stage0",
		Transforms: map[string]*pipepb.PTransform{
			"in":  {Spec: &pipepb.FunctionSpec{Urn: urn.RunnerSource, Payload: port}},
			"out": {Spec: &pipepb.FunctionSpec{Urn: urn.RunnerSink, Payload: port}},
		},
	}
}

func start(t *testing.T, s *Session, spec BundleSpec) *Bundle {
	t.Helper()
	var err error
	if spec.Descriptor, err = s.AddDescriptor(descriptor(t)); err != nil {
		t.Fatal(err)
	}
	b, err := s.StartBundle(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func expect(t *testing.T, s *Server, w Worker) *Session {
	t.Helper()
	session, err := s.Expect(w)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// A bundle's elements go to the harness as they were sent, what comes back is received in order, and the bundle ends when
// the harness has both answered and ended its output, whichever comes first.
func TestBundle(t *testing.T) {
	for _, answerFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("answer first %t", answerFirst), func(t *testing.T) {
			server, conn := serve(t)
			session := expect(t, server, Worker{ID: "w", Endpoint: "host:1"})
			h := dial(t, conn, "w")
			var received strings.Builder
			b := start(t, session, BundleSpec{Sinks: []string{"out"}, Receive: func(_ context.Context, sink string, data []byte) error {
				received.WriteString(sink + ":" + string(data) + " ")
				return nil
			}})
			r := h.instruction()
			d, err := fnpb.NewBeamFnControlClient(conn).GetProcessBundleDescriptor(context.Background(),
				&fnpb.GetProcessBundleDescriptorRequest{ProcessBundleDescriptorId: r.GetProcessBundle().GetProcessBundleDescriptorId()})
			if err != nil {
				t.Fatal(err)
			}
			var port fnpb.RemoteGrpcPort
			if err := proto.Unmarshal(d.GetTransforms()["in"].GetSpec().GetPayload(), &port); err != nil {
				t.Fatal(err)
			}
			if port.GetApiServiceDescriptor().GetUrl() != "host:1" || port.GetCoderId() != "c" || d.GetStateApiServiceDescriptor().GetUrl() != "host:1" {
				t.Errorf("descriptor has ports %v and state at %v", &port, d.GetStateApiServiceDescriptor())
			}

			if err := b.Send("in", []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if err := b.End("in", []byte(", world")); err != nil {
				t.Fatal(err)
			}
			var sent strings.Builder
			for last := false; !last; {
				e, err := h.data.Recv()
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range e.GetData() {
					if d.GetInstructionId() != r.GetInstructionId() || d.GetTransformId() != "in" {
						t.Errorf("data is addressed to %s, %s", d.GetInstructionId(), d.GetTransformId())
					}
					sent.Write(d.GetData())
					last = d.GetIsLast()
				}
			}
			if sent.String() != "hello, world" {
				t.Errorf("the harness got %q", sent.String())
			}
			if answerFirst {
				h.done(r.GetInstructionId())
			}
			h.send(&fnpb.Elements_Data{InstructionId: r.GetInstructionId(), TransformId: "out", Data: []byte("a")},
				&fnpb.Elements_Data{InstructionId: r.GetInstructionId(), TransformId: "out", Data: []byte("b")})
			h.send(&fnpb.Elements_Data{InstructionId: r.GetInstructionId(), TransformId: "out", Data: []byte("c"), IsLast: true})
			if !answerFirst {
				h.done(r.GetInstructionId())
			}
			response, err := b.Wait()
			if err != nil {
				t.Fatal(err)
			}
			if !response.GetRequiresFinalization() || received.String() != "out:a out:b out:c " {
				t.Errorf("response %v, received %q", response, received.String())
			}
		})
	}
}

// A small bundle's input travels in its instruction, and its output in the response.
func TestEmbedded(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	var received []byte
	b := start(t, session, BundleSpec{Source: "in", Elements: []byte("hello"), Sinks: []string{"out", "empty"},
		Receive: func(_ context.Context, _ string, data []byte) error {
			received = append(received, data...)
			return nil
		}})
	r := h.instruction()
	sent := r.GetProcessBundle().GetElements().GetData()
	if len(sent) != 2 || string(sent[0].GetData()) != "hello" || sent[0].GetTransformId() != "in" || !sent[1].GetIsLast() {
		t.Errorf("sent %v", sent)
	}
	h.answer(&fnpb.InstructionResponse{InstructionId: r.GetInstructionId(), Response: &fnpb.InstructionResponse_ProcessBundle{
		ProcessBundle: &fnpb.ProcessBundleResponse{Elements: &fnpb.Elements{Data: []*fnpb.Elements_Data{
			{InstructionId: r.GetInstructionId(), TransformId: "out", Data: []byte("a")},
			{InstructionId: r.GetInstructionId(), TransformId: "out", Data: []byte("b")},
		}}},
	}})
	if _, err := b.Wait(); err != nil || string(received) != "ab" {
		t.Errorf("Wait: %v; received %q", err, received)
	}
}

// An error that the SDK reports fails the bundle while its elements are still being sent.
func TestUserError(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	b := start(t, session, BundleSpec{Sinks: []string{"out"}})
	h.answer(&fnpb.InstructionResponse{InstructionId: h.instruction().GetInstructionId(), Error: "boom"})
	<-b.Failed()
	if err := b.Send("in", []byte("x")); err == nil {
		t.Error("a failed bundle took more elements")
	}
	_, err := b.Wait()
	var user *HarnessError
	if !errors.As(err, &user) || user.Text != "boom" || user.Worker != "w" {
		t.Errorf("Wait: %v", err)
	}
}

// A failing receiver fails the bundle, and what the harness still sends for it is dropped.
func TestReceiveError(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	full := errors.New("disk full")
	b := start(t, session, BundleSpec{Sinks: []string{"out"}, Receive: func(context.Context, string, []byte) error { return full }})
	id := h.instruction().GetInstructionId()
	for range 3 * queued {
		h.send(&fnpb.Elements_Data{InstructionId: id, TransformId: "out", Data: []byte("x")})
	}
	if _, err := b.Wait(); !errors.Is(err, full) {
		t.Errorf("Wait: %v", err)
	}
	// The stream still works for the next bundle.
	b = start(t, session, BundleSpec{Sinks: []string{"out"}})
	id = h.instruction().GetInstructionId()
	h.send(&fnpb.Elements_Data{InstructionId: id, TransformId: "out", IsLast: true})
	h.done(id)
	if _, err := b.Wait(); err != nil {
		t.Errorf("next bundle: %v", err)
	}
}

// Elements for a transform that is no output of the bundle are refused.
func TestUnexpectedOutput(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	b := start(t, session, BundleSpec{Sinks: []string{"out"}})
	h.send(&fnpb.Elements_Data{InstructionId: h.instruction().GetInstructionId(), TransformId: "other", Data: []byte("x")})
	if _, err := b.Wait(); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("Wait: %v", err)
	}
}

// A lost control stream fails open bundles with the explanation that the harness's keeper gives.
func TestLostHarness(t *testing.T) {
	server, conn := serve(t)
	exit := errors.New("exit status 137")
	session := expect(t, server, Worker{ID: "w", Explain: func(cause error) error {
		if cause == nil {
			t.Error("Explain got no cause")
		}
		return exit
	}})
	h := dial(t, conn, "w")
	b := start(t, session, BundleSpec{Sinks: []string{"out"}})
	h.instruction()
	if err := h.control.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Wait(); !errors.Is(err, exit) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := session.StartBundle(context.Background(), BundleSpec{}); !errors.Is(err, exit) {
		t.Errorf("StartBundle: %v", err)
	}
}

// Closing a session ends the harness's streams without an error: that is how a harness is told to go.
func TestClose(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	<-session.Ready()
	session.Close(nil)
	if _, err := h.control.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("control stream ended with %v", err)
	}
	if !errors.Is(session.Err(), ErrClosed) {
		t.Errorf("session ended with %v", session.Err())
	}
	// The id is free again.
	expect(t, server, Worker{ID: "w"})
	if _, err := server.Expect(Worker{ID: "w"}); !errors.Is(err, ErrDuplicate) {
		t.Errorf("second Expect: %v", err)
	}
}

// A second data stream under a harness's id is refused, and the first goes on. Once the first has ended, the harness may
// open another.
func TestOneDataStream(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	bundle := func(data fnpb.BeamFnData_DataClient) {
		t.Helper()
		b := start(t, session, BundleSpec{Sinks: []string{"out"}})
		if err := b.Send("in", []byte("x")); err != nil {
			t.Fatal(err)
		}
		e, err := data.Recv()
		if err != nil || string(e.GetData()[0].GetData()) != "x" {
			t.Fatalf("received %v, %v", e, err)
		}
		id := h.instruction().GetInstructionId()
		if err := data.Send(&fnpb.Elements{Data: []*fnpb.Elements_Data{{InstructionId: id, TransformId: "out", IsLast: true}}}); err != nil {
			t.Fatal(err)
		}
		h.done(id)
		if _, err := b.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	bundle(h.data)
	other, err := fnpb.NewBeamFnDataClient(conn).Data(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Recv(); status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), "harness w ") {
		t.Errorf("second data stream: %v", err)
	}
	bundle(h.data)
	if err := h.data.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.data.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("a data stream that the harness closed: %v", err)
	}
	again, err := fnpb.NewBeamFnDataClient(conn).Data(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	bundle(again)
}

// What waits for a bundle's receiver is bounded by bytes too.
func TestQueuedBytes(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	received := make(chan int)
	b := start(t, session, BundleSpec{Sinks: []string{"out"}, Receive: func(ctx context.Context, _ string, data []byte) error {
		select {
		case received <- len(data):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}})
	id := h.instruction().GetInstructionId()
	const n = 8
	go func() {
		for i := range n {
			// What cannot be sent is not received.
			_ = h.data.Send(&fnpb.Elements{Data: []*fnpb.Elements_Data{
				{InstructionId: id, TransformId: "out", Data: make([]byte, queuedBytes), IsLast: i == n-1},
			}})
		}
	}()
	for range n {
		if got := <-received; got != queuedBytes {
			t.Errorf("received %d bytes", got)
		}
		if waiting := len(b.queue); waiting > 1 {
			t.Errorf("%d parts of %d bytes wait", waiting, queuedBytes)
		}
	}
	h.done(id)
	if _, err := b.Wait(); err != nil {
		t.Error(err)
	}
}

// A harness that nobody expects is told so, and one that does not say who it is.
func TestStrangers(t *testing.T) {
	_, conn := serve(t)
	h := dial(t, conn, "nobody")
	if _, err := h.control.Recv(); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("stranger's control stream: %v", err)
	}
	_, err := fnpb.NewProvisionServiceClient(conn).GetProvisionInfo(context.Background(), &fnpb.GetProvisionInfoRequest{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("provision without a worker id: %v", err)
	}
}

// State requests go to their bundle, one after the other; a failure is the answer.
func TestState(t *testing.T) {
	server, conn := serve(t)
	session := expect(t, server, Worker{ID: "w"})
	h := dial(t, conn, "w")
	stream, err := fnpb.NewBeamFnStateClient(conn).State(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, session, BundleSpec{State: func(_ context.Context, r *fnpb.StateRequest) (*fnpb.StateResponse, error) {
		if token := r.GetGet().GetContinuationToken(); len(token) > 0 {
			return nil, fmt.Errorf("no page %s", token)
		}
		return &fnpb.StateResponse{Response: &fnpb.StateResponse_Get{Get: &fnpb.StateGetResponse{Data: []byte("v")}}}, nil
	}})
	id := h.instruction().GetInstructionId()
	ask := func(id, instruction, token string) *fnpb.StateResponse {
		t.Helper()
		err := stream.Send(&fnpb.StateRequest{Id: id, InstructionId: instruction,
			Request: &fnpb.StateRequest_Get{Get: &fnpb.StateGetRequest{ContinuationToken: []byte(token)}}})
		if err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask("1", id, ""); r.GetId() != "1" || string(r.GetGet().GetData()) != "v" {
		t.Errorf("answer %v", r)
	}
	if r := ask("2", id, "7"); r.GetId() != "2" || r.GetError() != "no page 7" {
		t.Errorf("answer %v", r)
	}
	if r := ask("3", "other", ""); r.GetId() != "3" || !strings.Contains(r.GetError(), `"other"`) {
		t.Errorf("answer %v", r)
	}
	h.done(id)
	if _, err := b.Wait(); err != nil {
		t.Error(err)
	}
}

// Logs, provision info and worker status reach the other side.
func TestServices(t *testing.T) {
	server, conn := serve(t)
	logs := make(chan string, 2)
	session := expect(t, server, Worker{
		ID:        "w",
		Provision: &fnpb.ProvisionInfo{RetrievalToken: "token"},
		Logs:      func(e *fnpb.LogEntry) { logs <- e.GetMessage() },
	})
	h := dial(t, conn, "w")
	info, err := fnpb.NewProvisionServiceClient(conn).GetProvisionInfo(h.ctx, &fnpb.GetProvisionInfoRequest{})
	if err != nil || info.GetInfo().GetRetrievalToken() != "token" {
		t.Errorf("provision: %v, %v", info, err)
	}
	logging, err := fnpb.NewBeamFnLoggingClient(conn).Logging(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := logging.Send(&fnpb.LogEntry_List{LogEntries: []*fnpb.LogEntry{{Message: "a"}, {Message: "b"}}}); err != nil {
		t.Fatal(err)
	}
	if a, b := <-logs, <-logs; a != "a" || b != "b" {
		t.Errorf("logged %q, %q", a, b)
	}

	if _, err := session.Status(h.ctx); !errors.Is(err, ErrNoStatus) {
		t.Errorf("status of a harness that offers none: %v", err)
	}
	workerStatus, err := fnpb.NewBeamFnWorkerStatusClient(conn).WorkerStatus(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		r, err := workerStatus.Recv()
		if err == nil {
			err = workerStatus.Send(&fnpb.WorkerStatusResponse{Id: r.GetId(), StatusInfo: "idle"})
		}
		answered <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		text, err := session.Status(ctx)
		if errors.Is(err, ErrNoStatus) {
			continue // the stream is on its way
		}
		if err != nil || text != "idle" {
			t.Errorf("status: %q, %v", text, err)
		}
		break
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
