package worker

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"

	"trestle/internal/artifact"
	"trestle/internal/fnapi"
	"trestle/internal/harness"
	"trestle/internal/harness/container"
)

// stopTimeout is how long harnesses get to end by themselves.
const stopTimeout = 10 * time.Second

// streamGrace is how long harnesses get to read the ends of their streams.
const streamGrace = 3 * time.Second

// services are what harnesses connect to.
type services struct {
	fn        *fnapi.Server
	grpc      *grpc.Server
	artifacts *artifact.Source
	endpoint  string // as harnesses reach it
	served    chan error
}

// serveHarnesses starts the Fn API and the artifact service.
func (w *Worker) serveHarnesses(containers container.Config) (_ *services, err error) {
	s := &services{fn: fnapi.NewServer(w.cfg.Log), served: make(chan error, 1)}
	listen, advertise := w.reach(containers)
	listener, err := (&net.ListenConfig{}).Listen(w.ctx, "tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listen for harnesses: %w", err)
	}
	s.endpoint = net.JoinHostPort(advertise, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	s.artifacts, err = artifact.NewSource(artifact.SourceConfig{
		Bucket: w.job.Artifacts.Bucket,
		Server: w.job.Artifacts.Server,
		Dir:    filepath.Dir(w.cfg.Scratch), // which the job's other workers on this host have too
		Job:    w.job.ID,
		Message: func(text string) {
			w.message(jobpb.JobMessage_JOB_MESSAGE_WARNING, text)
		},
		Log: w.cfg.Log,
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.grpc = grpc.NewServer(fnapi.ServerOptions()...)
	s.fn.Register(s.grpc)
	jobpb.RegisterArtifactRetrievalServiceServer(s.grpc, artifact.NewRetrieval(s.artifacts, w.cfg.Log))
	go func() { s.served <- s.grpc.Serve(listener) }()
	return s, nil
}

// loopback is the host of a worker whose harnesses are all on its own host.
const loopback = "127.0.0.1"

// reach is where the Fn API listens, and the host under which harnesses are told to find it: this host's loopback, unless some of
// them are elsewhere. A worker pool on another host finds this one under the address that leads from here to the pool.
func (w *Worker) reach(containers container.Config) (listen, host string) {
	for _, pool := range harness.Pools(w.job.Pipeline.GetComponents().GetEnvironments()) {
		// No packet is sent: the kernel is asked for the way.
		conn, err := (&net.Dialer{}).DialContext(w.ctx, "udp", pool)
		if err != nil {
			continue // whoever asks that pool for a worker says what is wrong with its address
		}
		local := conn.LocalAddr().(*net.UDPAddr).IP
		conn.Close()
		if !local.IsLoopback() {
			return ":0", local.String()
		}
	}
	if containers.Advertise != "" {
		return ":0", loopback
	}
	return net.JoinHostPort(loopback, "0"), loopback
}

// stop ends the services. Harnesses that live in somebody else's process get the time to read the ends of their streams: some SDKs'
// take a broken one for a reason to end the process.
func (s *services) stop() error {
	s.fn.Close()
	force := time.AfterFunc(streamGrace, s.grpc.Stop)
	s.grpc.GracefulStop()
	force.Stop()
	return errors.Join(ignoreStopped(<-s.served), s.artifacts.Close())
}

func ignoreStopped(err error) error {
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}
