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

// ask is called by the state stream's reader; it waits while the bundle's queue is full. A write is answered at once, if no
// request of the bundle's is before it: it is done in memory, and to wake a goroutine for it costs more than that. A read may
// have to wait for the disk, which the other bundles' requests do not.
func (b *Bundle) ask(r stateRequest) {
	if r.request.GetGet() == nil && b.asked.Load() == 0 && b.answering.TryLock() {
		defer b.answering.Unlock()
		if b.ctx.Err() == nil {
			r.answers.send(b.answerState(b.ctx, r.request))
		}
		return
	}
	b.asked.Add(1)
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
			b.answering.Lock()
			answer := b.answerState(b.ctx, r.request)
			b.asked.Add(-1) // the harness may ask again as soon as it has the answer
			b.answering.Unlock()
			r.answers.send(answer)
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
