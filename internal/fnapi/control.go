package fnapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type control struct {
	fnpb.UnimplementedBeamFnControlServer
	server *Server
}

// Control holds the harness's control stream: as long as it lasts, so does the session.
func (c *control) Control(stream fnpb.BeamFnControl_ControlServer) error {
	s, err := c.server.caller(stream.Context())
	if err != nil {
		return err
	}
	if !s.connect() {
		return status.Errorf(codes.AlreadyExists, "harness %s has a control stream already", s.ID())
	}
	s.control.open(stream)
	close(s.ready)
	broken := make(chan error, 1)
	go func() { broken <- s.readResponses(stream) }()
	select {
	case err = <-broken:
		s.lost(err)
	case <-s.ctx.Done():
	}
	// Returning ends the stream, and with it the reader, whose last word fits into the channel.
	return nil
}

// GetProcessBundleDescriptor answers with a descriptor that a bundle has named.
func (c *control) GetProcessBundleDescriptor(_ context.Context, r *fnpb.GetProcessBundleDescriptorRequest) (*fnpb.ProcessBundleDescriptor, error) {
	return c.server.descriptor(r.GetProcessBundleDescriptorId())
}

// connect claims the session's one control stream.
func (s *Session) connect() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected {
		return false
	}
	s.connected = true
	return true
}

func (s *Session) readResponses(stream fnpb.BeamFnControl_ControlServer) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("it closed its control stream")
		}
		if err != nil {
			return fmt.Errorf("control stream: %w", err)
		}
		s.control.answer(r)
	}
}

// controlStream sends instructions and brings their answers back.
type controlStream struct {
	sending sync.Mutex // serialises Send
	stream  fnpb.BeamFnControl_ControlServer

	mu      sync.Mutex
	waiting map[string]chan *fnpb.InstructionResponse
}

func (c *controlStream) init() { c.waiting = map[string]chan *fnpb.InstructionResponse{} }

func (c *controlStream) open(stream fnpb.BeamFnControl_ControlServer) { c.stream = stream }

func (c *controlStream) send(r *fnpb.InstructionRequest) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.stream.Send(r)
}

func (c *controlStream) expect(id string) <-chan *fnpb.InstructionResponse {
	answer := make(chan *fnpb.InstructionResponse, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting[id] = answer
	return answer
}

func (c *controlStream) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// answer hands a response to whoever waits for it; one that nobody waits for any more is dropped.
func (c *controlStream) answer(r *fnpb.InstructionResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.waiting[r.GetInstructionId()]; answer != nil {
		answer <- r
		delete(c.waiting, r.GetInstructionId())
	}
}

// instruct sends an instruction and waits for its answer. The instruction id is set here.
func (s *Session) instruct(ctx context.Context, r *fnpb.InstructionRequest) (*fnpb.InstructionResponse, error) {
	r.InstructionId = s.nextInstruction()
	answer := s.control.expect(r.InstructionId)
	defer s.control.forget(r.InstructionId)
	if err := s.sendInstruction(ctx, r); err != nil {
		return nil, err
	}
	return s.await(ctx, answer)
}

// sendInstruction waits for the harness to be there and sends r. After the session's end it sends nothing, though the
// stream may outlast that for a moment.
func (s *Session) sendInstruction(ctx context.Context, r *fnpb.InstructionRequest) error {
	if err := s.Err(); err != nil {
		return err
	}
	select {
	case <-s.ready:
	case <-s.ctx.Done():
		return s.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.control.send(r); err != nil {
		return s.streamError(ctx, fmt.Errorf("send to harness %s: %w", s.ID(), err))
	}
	return nil
}

func (s *Session) await(ctx context.Context, answer <-chan *fnpb.InstructionResponse) (*fnpb.InstructionResponse, error) {
	select {
	case r := <-answer:
		if r.GetError() != "" {
			return nil, &HarnessError{Worker: s.ID(), Text: r.GetError()}
		}
		return r, nil
	case <-s.ctx.Done():
		return nil, s.Err()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// streamError turns a failed send into the reason why the session ended: a stream breaks a moment before the reader of
// the control stream, which knows why, has said so.
func (s *Session) streamError(ctx context.Context, err error) error {
	select {
	case <-s.ctx.Done():
		return s.Err()
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), err)
	}
}

// HarnessError is a failure that the SDK reported for an instruction: as a rule, an exception in user code.
type HarnessError struct {
	Worker string
	// Text is the SDK's own words, the user's stack trace among them.
	Text string
}

func (e *HarnessError) Error() string { return e.Text }
