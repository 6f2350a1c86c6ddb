package fnapi

import (
	"context"
	"fmt"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
)

type state struct {
	fnpb.UnimplementedBeamFnStateServer
	server *Server
}

// State holds the harness's state stream: each request goes to the bundle that it names.
func (t *state) State(stream fnpb.BeamFnState_StateServer) error {
	s, err := t.server.caller(stream.Context())
	if err != nil {
		return err
	}
	answers := &stateAnswers{stream: stream}
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			b := s.bundle(r.GetInstructionId())
			if b == nil || b.spec.State == nil {
				answers.send(&fnpb.StateResponse{Id: r.GetId(), Error: fmt.Sprintf(
					"state request for instruction %q, which is no open bundle with state or side inputs", r.GetInstructionId())})
				continue
			}
			b.ask(stateRequest{r, answers})
		}
	}()
	select {
	case <-broken:
	case <-s.ctx.Done():
	}
	return nil
}

// stateAnswers writes to a state stream, on which all of a harness's bundles get their answers.
type stateAnswers struct {
	mu     sync.Mutex
	stream fnpb.BeamFnState_StateServer
}

// send drops the error of a broken stream: its reader ends too, and the harness tells the bundle's failure.
func (a *stateAnswers) send(r *fnpb.StateResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.stream.Send(r)
}

type stateRequest struct {
	request *fnpb.StateRequest
	answers *stateAnswers
}

// ask is called by the state stream's reader; it waits while the bundle's queue is full.
func (b *Bundle) ask(r stateRequest) {
	select {
	case b.requests <- r:
	case <-b.ctx.Done():
	}
}

// serveState answers the bundle's state requests one by one: a read sees the writes before it.
func (b *Bundle) serveState() {
	for {
		select {
		case r := <-b.requests:
			r.answers.send(b.answerState(b.ctx, r.request))
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *Bundle) answerState(ctx context.Context, r *fnpb.StateRequest) *fnpb.StateResponse {
	answer, err := b.spec.State(ctx, r)
	if err != nil {
		return &fnpb.StateResponse{Id: r.GetId(), Error: err.Error()}
	}
	answer.Id = r.GetId()
	return answer
}
