package fnapi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
)

type workerStatus struct {
	fnpb.UnimplementedBeamFnWorkerStatusServer
	server *Server
}

// WorkerStatus holds the stream on which a harness answers questions about what it is doing.
func (w *workerStatus) WorkerStatus(stream fnpb.BeamFnWorkerStatus_WorkerStatusServer) error {
	s, err := w.server.caller(stream.Context())
	if err != nil {
		return err
	}
	s.status.open(stream)
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			s.status.answer(r)
		}
	}()
	select {
	case <-broken:
	case <-s.ctx.Done():
	}
	s.status.close(stream)
	return nil
}

// ErrNoStatus is Status's error for a harness that offers none.
var ErrNoStatus = errors.New("the harness offers no worker status")

// Status asks the harness what it is doing: the SDK's own report, with the stacks of its threads.
func (s *Session) Status(ctx context.Context) (string, error) {
	id := s.nextInstruction()
	answer, err := s.status.ask(id)
	if err != nil {
		return "", fmt.Errorf("status of harness %s: %w", s.ID(), err)
	}
	defer s.status.forget(id)
	select {
	case r := <-answer:
		if r.GetError() != "" {
			return "", fmt.Errorf("status of harness %s: %s", s.ID(), r.GetError())
		}
		return r.GetStatusInfo(), nil
	case <-s.ctx.Done():
		return "", s.Err()
	case <-ctx.Done():
		return "", fmt.Errorf("status of harness %s: %w", s.ID(), context.Cause(ctx))
	}
}

type statusStream struct {
	mu      sync.Mutex // also serialises Send
	stream  fnpb.BeamFnWorkerStatus_WorkerStatusServer
	waiting map[string]chan *fnpb.WorkerStatusResponse
}

func (t *statusStream) init() { t.waiting = map[string]chan *fnpb.WorkerStatusResponse{} }

func (t *statusStream) open(stream fnpb.BeamFnWorkerStatus_WorkerStatusServer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stream = stream
}

func (t *statusStream) close(stream fnpb.BeamFnWorkerStatus_WorkerStatusServer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stream == stream {
		t.stream = nil
	}
}

func (t *statusStream) ask(id string) (<-chan *fnpb.WorkerStatusResponse, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stream == nil {
		return nil, ErrNoStatus
	}
	answer := make(chan *fnpb.WorkerStatusResponse, 1)
	t.waiting[id] = answer
	if err := t.stream.Send(&fnpb.WorkerStatusRequest{Id: id}); err != nil {
		delete(t.waiting, id)
		return nil, err
	}
	return answer, nil
}

func (t *statusStream) answer(r *fnpb.WorkerStatusResponse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if answer := t.waiting[r.GetId()]; answer != nil {
		answer <- r
		delete(t.waiting, r.GetId())
	}
}

func (t *statusStream) forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, id)
}
