//go:build linux

package harness

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/testing/protocmp"
)

// workerPool is a BeamFnExternalWorkerPool that runs workers as goroutines.
type workerPool struct {
	fnpb.UnimplementedBeamFnExternalWorkerPoolServer
	refuse  string
	connect bool

	mu      sync.Mutex
	request *fnpb.StartWorkerRequest
	cancel  map[string]func()
	stopped []string
}

func (w *workerPool) StartWorker(_ context.Context, r *fnpb.StartWorkerRequest) (*fnpb.StartWorkerResponse, error) {
	if w.refuse != "" {
		return &fnpb.StartWorkerResponse{Error: w.refuse}, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if w.connect {
			_ = connect(ctx, r.GetWorkerId(), r.GetControlEndpoint().GetUrl(), nil)
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.request = r
	w.cancel[r.GetWorkerId()] = func() { cancel(); <-gone }
	return &fnpb.StartWorkerResponse{}, nil
}

func (w *workerPool) StopWorker(_ context.Context, r *fnpb.StopWorkerRequest) (*fnpb.StopWorkerResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = append(w.stopped, r.GetWorkerId())
	if cancel := w.cancel[r.GetWorkerId()]; cancel != nil {
		cancel()
	}
	return &fnpb.StopWorkerResponse{Error: "as some pools say"}, nil
}

func serve(t *testing.T, w *workerPool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.cancel = map[string]func(){}
	g := grpc.NewServer()
	fnpb.RegisterBeamFnExternalWorkerPoolServer(g, w)
	served := make(chan error)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		<-served
	})
	return l.Addr().String()
}

// An external worker is asked for with all endpoints and params, and stopped with the pool.
func TestExternal(t *testing.T) {
	b := newBench(t)
	w := &workerPool{connect: true}
	p := b.pool(b.config(map[string]*pipepb.Environment{"ext": externalEnv(t, serve(t, w))}))
	s, err := p.Session(t.Context(), "ext", 0)
	if err != nil {
		t.Fatal(err)
	}
	here := &pipepb.ApiServiceDescriptor{Url: b.endpoint}
	want := &fnpb.StartWorkerRequest{
		WorkerId: "job-e0-w0", ControlEndpoint: here, LoggingEndpoint: here, ArtifactEndpoint: here, ProvisionEndpoint: here,
		Params: map[string]string{"k": "v"},
	}
	if diff := cmp.Diff(want, w.request, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if !cmp.Equal(w.stopped, []string{"job-e0-w0"}) {
		t.Errorf("stopped: %q", w.stopped)
	}
}

// An external worker that goes away ends its session with an error that says whose it was.
func TestExternalLost(t *testing.T) {
	b := newBench(t)
	w := &workerPool{connect: true}
	address := serve(t, w)
	p := b.pool(b.config(map[string]*pipepb.Environment{"ext": externalEnv(t, address)}))
	s, err := p.Session(t.Context(), "ext", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.cancel["job-e0-w0"]()
	w.mu.Unlock()
	<-s.Done()
	hasAll(t, "the error", s.Err().Error(), address, "is gone")
}

// Asked to kill its harnesses, the pool takes external ones for lost, and has their worker pool stop them.
func TestExternalKills(t *testing.T) {
	b := newBench(t)
	w := &workerPool{connect: true}
	address := serve(t, w)
	cfg := b.config(map[string]*pipepb.Environment{"ext": externalEnv(t, address)})
	cfg.Kills = time.Millisecond
	p := b.pool(cfg)
	s, err := p.Session(t.Context(), "ext", 0)
	if err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	hasAll(t, "the error", s.Err().Error(), address, "is gone")
	p.Close(t.Context())
	if len(w.stopped) == 0 || w.stopped[0] != "job-e0-w0" {
		t.Errorf("stopped: %q", w.stopped)
	}
}

// What is wrong with a worker pool is said: nobody there, no worker pool, a refusal, a worker that does not come.
func TestExternalErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	host, _ := os.Hostname()
	b := newBench(t)
	absent := serve(t, &workerPool{})
	cfg := b.config(map[string]*pipepb.Environment{
		"dead":    externalEnv(t, dead),
		"other":   externalEnv(t, b.endpoint),
		"refuses": externalEnv(t, serve(t, &workerPool{refuse: "no room"})),
		"absent":  externalEnv(t, absent),
	})
	cfg.Timeouts.External = 100 * time.Millisecond
	p := b.pool(cfg)
	for env, want := range map[string][]string{
		"dead":    {`environment "dead"`, dead, host, "refused", "LOOPBACK", "environment config"},
		"other":   {b.endpoint, "is no Beam worker pool"},
		"refuses": {"no room"},
		"absent":  {absent, "none connected to " + b.endpoint},
	} {
		_, err := p.Session(t.Context(), env, 0)
		if err == nil {
			t.Errorf("%s: no error", env)
			continue
		}
		hasAll(t, env, err.Error(), want...)
	}
}

// An address that swallows packets is known as dead when the limit for a connection has passed.
func TestExternalBlackHole(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 seconds")
	}
	// A listener that accepts and never speaks HTTP/2 is as silent as a firewall.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			go io.Copy(io.Discard, c)
		}
	}()
	defer func() { l.Close(); <-gone }()
	b := newBench(t)
	p := b.pool(b.config(map[string]*pipepb.Environment{"hole": externalEnv(t, l.Addr().String())}))
	_, err = p.Session(t.Context(), "hole", 0)
	if err == nil {
		t.Fatal("no error")
	}
	// In these words it is the limit for a connection that was passed, not the one for an answer.
	hasAll(t, "the error", err.Error(), l.Addr().String(), "no worker pool answers")
}
