package fnapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
)

type data struct {
	fnpb.UnimplementedBeamFnDataServer
	server *Server
}

// Data holds one of the harness's data streams. An SDK opens it when its first bundle needs it.
func (d *data) Data(stream fnpb.BeamFnData_DataServer) error {
	s, err := d.server.caller(stream.Context())
	if err != nil {
		return err
	}
	s.data.open(stream)
	broken := make(chan error, 1)
	go func() { broken <- s.readData(stream) }()
	select {
	case err = <-broken:
		s.data.close(stream)
		if s.busy() {
			s.lost(fmt.Errorf("data stream: %w", err))
		}
	case <-s.ctx.Done():
	}
	return nil
}

func (s *Session) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bundles) > 0
}

// readData hands each part to its bundle, waiting while the bundle's queue is full: that is the back-pressure, through
// gRPC's window, on the harness. Parts of bundles that are no more are dropped.
func (s *Session) readData(stream fnpb.BeamFnData_DataServer) error {
	var e elements
	for {
		if err := stream.RecvMsg(&e); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("closed by the harness")
			}
			return err
		}
		for _, p := range e.parts {
			if b := s.bundle(p.instruction); b != nil {
				e.buf.Ref()
				b.enqueue(p, e.buf)
			}
		}
		e.buf.Free()
	}
}

// dataStream is the stream on which elements go to the harness.
type dataStream struct {
	mu     sync.Mutex
	stream fnpb.BeamFnData_DataServer
	opened chan struct{} // closed while stream is set

	sending sync.Mutex // serialises SendMsg
}

func (d *dataStream) init() { d.opened = make(chan struct{}) }

func (d *dataStream) open(stream fnpb.BeamFnData_DataServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream == nil {
		close(d.opened)
	}
	d.stream = stream
}

func (d *dataStream) close(stream fnpb.BeamFnData_DataServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream == stream {
		d.stream = nil
		d.opened = make(chan struct{})
	}
}

func (d *dataStream) current() (fnpb.BeamFnData_DataServer, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stream, d.opened
}

// sendData writes one message, waiting for the harness to open its data stream and for its window to open.
func (s *Session) sendData(ctx context.Context, e *elements) error {
	for {
		stream, opened := s.data.current()
		if stream == nil {
			select {
			case <-opened:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		s.data.sending.Lock()
		err := stream.SendMsg(e)
		s.data.sending.Unlock()
		if err != nil {
			return s.streamError(ctx, fmt.Errorf("send data to harness %s: %w", s.ID(), err))
		}
		return nil
	}
}
