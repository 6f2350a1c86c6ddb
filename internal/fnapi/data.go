package fnapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	if err := s.data.open(stream); err != nil {
		s.server.log.Warn("a data stream was refused", "worker", s.ID(), "error", err)
		return err
	}
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
	harness string

	mu     sync.Mutex
	stream fnpb.BeamFnData_DataServer
	opened chan struct{} // closed while stream is set
	ended  chan struct{} // closed while it is not

	sending sync.Mutex // serialises SendMsg
}

func (d *dataStream) init(harness string) {
	d.harness, d.opened, d.ended = harness, make(chan struct{}), make(chan struct{})
	close(d.ended)
}

// reopening is how long a second stream waits for the end of the first: a harness that lost its stream, and opens another
// over a new connection, may be faster than the word of the first one's end.
const reopening = 2 * time.Second

// open takes the stream as the harness's. There is one at a time: another one under the same worker id is another harness's,
// which would take the first one's elements away from it.
func (d *dataStream) open(stream fnpb.BeamFnData_DataServer) error {
	patience := time.NewTimer(reopening)
	defer patience.Stop()
	for {
		d.mu.Lock()
		if d.stream == nil {
			d.stream, d.ended = stream, make(chan struct{})
			close(d.opened)
			d.mu.Unlock()
			return nil
		}
		ended := d.ended
		d.mu.Unlock()
		select {
		case <-ended:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-patience.C:
			return status.Errorf(codes.AlreadyExists, "harness %s has a data stream already: is another worker started with its %s?", d.harness, workerID)
		}
	}
}

func (d *dataStream) close(stream fnpb.BeamFnData_DataServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream == stream {
		d.stream = nil
		d.opened = make(chan struct{})
		close(d.ended)
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
