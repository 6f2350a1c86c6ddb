package fnapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// workerID is the metadata key by which a harness says who it is on every stream (beam_fn_api.proto).
const workerID = "worker_id"

// Server serves the Fn API to the harnesses of all jobs. Its methods may be called concurrently.
type Server struct {
	log  *slog.Logger
	next atomic.Int64 // numbers instructions

	closing chan struct{} // closed by Close

	mu       sync.Mutex
	sessions map[string]*Session
	closed   bool
}

// NewServer makes a server that expects nobody yet.
func NewServer(log *slog.Logger) *Server {
	return &Server{log: log, closing: make(chan struct{}), sessions: map[string]*Session{}}
}

// Register adds the Fn API's services to a gRPC server. That server must have been made with [ServerOptions].
func (s *Server) Register(r grpc.ServiceRegistrar) {
	fnpb.RegisterBeamFnControlServer(r, &control{server: s})
	fnpb.RegisterBeamFnDataServer(r, &data{server: s})
	fnpb.RegisterBeamFnStateServer(r, &state{server: s})
	fnpb.RegisterBeamFnLoggingServer(r, &logging{server: s})
	fnpb.RegisterProvisionServiceServer(r, &provision{server: s})
	fnpb.RegisterBeamFnWorkerStatusServer(r, &workerStatus{server: s})
}

// Worker is a harness that will dial in.
type Worker struct {
	// ID is what the harness gives as worker_id; unique on the server.
	ID string
	// Endpoint is the host:port at which the harness reaches this server; it is written into the data and state
	// ports of the descriptors that the harness is given.
	Endpoint string
	// Provision is what GetProvisionInfo answers.
	Provision *fnpb.ProvisionInfo
	// Logs takes the harness's log entries, in order; nil drops them. It must not block for long.
	Logs func(*fnpb.LogEntry)
	// Explain is asked once, when the harness's control stream breaks, for a better error than the broken stream's:
	// it may wait a little for an exit status. Nil leaves the cause as it is.
	Explain func(cause error) error
}

// ErrDuplicate is Expect's error for a worker id that is expected already.
var ErrDuplicate = errors.New("fnapi: worker id already in use")

// ErrClosed is the error of a session that was closed without a cause.
var ErrClosed = errors.New("fnapi: session closed")

// Expect announces a harness before it is started. The caller closes the session.
func (s *Server) Expect(w Worker) (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.sessions[w.ID] != nil {
		return nil, fmt.Errorf("%w: %q", ErrDuplicate, w.ID)
	}
	session := newSession(s, w)
	s.sessions[w.ID] = session
	return session, nil
}

// Close closes every session with ErrClosed; Expect answers ErrClosed from then on.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	open := make([]*Session, 0, len(s.sessions))
	for _, session := range s.sessions {
		open = append(open, session)
	}
	s.mu.Unlock()
	for _, session := range open {
		session.Close(ErrClosed)
	}
}

func (s *Server) forget(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[session.worker.ID] == session {
		delete(s.sessions, session.worker.ID)
	}
}

// caller finds the session of the harness that makes a call.
func (s *Server) caller(ctx context.Context) (*Session, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	ids := md.Get(workerID)
	if len(ids) != 1 {
		return nil, status.Errorf(codes.InvalidArgument, "a harness must give its %s in the call's metadata, exactly once; got %q", workerID, ids)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.sessions[ids[0]]
	if session == nil {
		return nil, status.Errorf(codes.NotFound, "no harness with %s %q is expected here: its job has ended, or it was started for another server", workerID, ids[0])
	}
	return session, nil
}

// descriptor finds a descriptor by its id, which starts with the session's; not every SDK says who it is on this call.
func (s *Server) descriptor(id string) (*fnpb.ProcessBundleDescriptor, error) {
	owner, _, _ := strings.Cut(id, descriptorSeparator)
	s.mu.Lock()
	session := s.sessions[owner]
	s.mu.Unlock()
	if session != nil {
		if d := session.descriptorByID(id); d != nil {
			return d, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no process bundle descriptor %q", id)
}
