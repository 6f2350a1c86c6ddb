package fnapi

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

const descriptorSeparator = "|"

// Session is one harness, from Expect until it is closed or lost. Its methods may be called concurrently.
type Session struct {
	server *Server
	worker Worker

	ctx    context.Context // ends with the session; its cause is the session's error
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed when the control stream is there

	control controlStream
	data    dataStream
	status  statusStream

	mu          sync.Mutex
	connected   bool
	descriptors map[string]*fnpb.ProcessBundleDescriptor
	bundles     map[string]*Bundle // open, by instruction id
}

func newSession(server *Server, w Worker) *Session {
	s := &Session{
		server:      server,
		worker:      w,
		ready:       make(chan struct{}),
		descriptors: map[string]*fnpb.ProcessBundleDescriptor{},
		bundles:     map[string]*Bundle{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.control.init()
	s.data.init(w.ID)
	s.status.init()
	return s
}

// ID is the worker id.
func (s *Session) ID() string { return s.worker.ID }

// Ready is closed when the harness has opened its control stream.
func (s *Session) Ready() <-chan struct{} { return s.ready }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.ctx.Done() }

// Err is why the session ended, and nil while it has not.
func (s *Session) Err() error { return context.Cause(s.ctx) }

// Close ends the session: open bundles fail with cause, streams end, and the server forgets the worker id. The first
// cause counts; nil stands for ErrClosed.
func (s *Session) Close(cause error) {
	if cause == nil {
		cause = ErrClosed
	}
	s.cancel(cause)
	s.server.forget(s)
}

// lost ends the session because the control stream broke.
func (s *Session) lost(cause error) {
	if s.ctx.Err() != nil {
		return
	}
	cause = fmt.Errorf("harness %s is gone: %w", s.worker.ID, cause)
	if s.worker.Explain != nil {
		cause = s.worker.Explain(cause)
	}
	s.Close(cause)
}

// AddDescriptor makes a stage's descriptor known to the harness, with this server's endpoint in its data and state
// ports, and returns the id to start bundles with. Adding the same id again is free. d is not changed.
func (s *Session) AddDescriptor(d *fnpb.ProcessBundleDescriptor) (string, error) {
	id := s.worker.ID + descriptorSeparator + d.GetId()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.descriptors[id] != nil {
		return id, nil
	}
	endpoint := &pipepb.ApiServiceDescriptor{Url: s.worker.Endpoint}
	d = proto.CloneOf(d)
	d.Id = id
	d.StateApiServiceDescriptor = endpoint
	d.TimerApiServiceDescriptor = endpoint
	for tid, t := range d.GetTransforms() {
		if u := t.GetSpec().GetUrn(); u != urn.RunnerSource && u != urn.RunnerSink {
			continue
		}
		var port fnpb.RemoteGrpcPort
		if err := proto.Unmarshal(t.GetSpec().GetPayload(), &port); err != nil {
			return "", fmt.Errorf("descriptor %s: port of transform %s: %w", id, tid, err)
		}
		port.ApiServiceDescriptor = endpoint
		payload, err := proto.Marshal(&port)
		if err != nil {
			return "", fmt.Errorf("descriptor %s: port of transform %s: %w", id, tid, err)
		}
		t.Spec.Payload = payload
	}
	s.descriptors[id] = d
	return id, nil
}

func (s *Session) descriptorByID(id string) *fnpb.ProcessBundleDescriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.descriptors[id]
}

func (s *Session) bundle(instruction string) *Bundle {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bundles[instruction]
}

func (s *Session) addBundle(b *Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles[b.id] = b
}

func (s *Session) removeBundle(b *Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bundles, b.id)
}

func (s *Session) nextInstruction() string {
	return "i" + strconv.FormatInt(s.server.next.Add(1), 10)
}
