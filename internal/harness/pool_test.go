//go:build linux

package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/fnapi"
)

// part is the variable of the environment by which the test binary plays a harness.
const part = "TRESTLE_TEST_PART"

func TestMain(m *testing.M) {
	if p := os.Getenv(part); p != "" {
		play(p)
		return
	}
	goleak.VerifyTestMain(m)
}

// play is a harness: it says its pid and connects, or does what the part says.
func play(p string) {
	flags := map[string]string{}
	for _, a := range os.Args[1:] {
		name, value, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		flags[name] = value
	}
	fmt.Println("pid", os.Getpid())
	switch p {
	case "harness":
		fmt.Fprintln(os.Stderr, "connection ended:", connect(context.Background(), flags["id"], flags["control_endpoint"], nil))
	case "exit":
		for i := range 80 {
			fmt.Println("last words", i)
		}
		os.Exit(3)
	case "silent":
		time.Sleep(time.Hour)
	case "provision":
		conn, err := grpc.NewClient(flags["provision_endpoint"], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		ctx := metadata.AppendToOutgoingContext(context.Background(), "worker_id", flags["id"])
		resp, err := fnpb.NewProvisionServiceClient(conn).GetProvisionInfo(ctx, &fnpb.GetProvisionInfoRequest{})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("job", resp.GetInfo().GetMetadata()["job_id"])
		os.Exit(0)
	}
}

// connect holds a control stream until it or ctx ends.
func connect(ctx context.Context, id, endpoint string, ready func()) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := fnpb.NewBeamFnControlClient(conn).Control(metadata.AppendToOutgoingContext(ctx, "worker_id", id))
	if err != nil {
		return err
	}
	if ready != nil {
		ready()
	}
	_, err = stream.Recv()
	return err
}

// bench is a server and what it hears.
type bench struct {
	t        *testing.T
	server   *fnapi.Server
	endpoint string

	mu       sync.Mutex
	logs     []string
	messages []string
	pids     chan int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, server: fnapi.NewServer(slog.New(slog.DiscardHandler)), endpoint: l.Addr().String(), pids: make(chan int, 100)}
	g := grpc.NewServer(fnapi.ServerOptions()...)
	b.server.Register(g)
	served := make(chan error)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		b.server.Close()
		g.Stop()
		<-served
	})
	return b
}

func (b *bench) config(envs map[string]*pipepb.Environment) Config {
	return Config{
		Server:       b.server,
		Endpoint:     b.endpoint,
		Job:          "job",
		JobName:      "a test",
		Environments: envs,
		Scratch:      b.t.TempDir(),
		Cores:        2,
		Logs: func(env, worker string, e *fnpb.LogEntry) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.logs = append(b.logs, fmt.Sprintf("%s %s %s: %s", env, worker, e.GetLogLocation(), e.GetMessage()))
			if pid, ok := strings.CutPrefix(e.GetMessage(), "pid "); ok {
				n, _ := strconv.Atoi(pid)
				b.pids <- n
			}
		},
		Message: func(_ jobpb.JobMessage_MessageImportance, text string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.messages = append(b.messages, text)
		},
	}
}

// pool makes a pool that is closed at the test's end, and checks that its folder is then empty.
func (b *bench) pool(cfg Config) *Pool {
	p := NewPool(cfg)
	b.t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			b.t.Errorf("close: %v", err)
		}
		left, err := os.ReadDir(cfg.Scratch)
		if err != nil || len(left) > 0 {
			b.t.Errorf("left in the job's folder: %v, %v", left, err)
		}
	})
	return p
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func processEnv(t *testing.T, p string) *pipepb.Environment {
	return &pipepb.Environment{Urn: urnProcess, Payload: marshal(t, &pipepb.ProcessPayload{
		Command: os.Args[0], Env: map[string]string{part: p},
	})}
}

func externalEnv(t *testing.T, address string) *pipepb.Environment {
	return &pipepb.Environment{Urn: urnExternal, Payload: marshal(t, &pipepb.ExternalPayload{
		Endpoint: &pipepb.ApiServiceDescriptor{Url: address}, Params: map[string]string{"k": "v"},
	})}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func hasAll(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s lacks %q:\n%s", what, p, text)
		}
	}
}

// Many callers get one worker from one start; it stays warm; Close ends the process and its session.
func TestOneStart(t *testing.T) {
	b := newBench(t)
	p := b.pool(b.config(map[string]*pipepb.Environment{"py": processEnv(t, "harness")}))
	sessions := make([]*fnapi.Session, 20)
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			s, err := p.Session(t.Context(), "py", i%2)
			if err != nil {
				t.Error(err)
			}
			sessions[i] = s
		})
	}
	wg.Wait()
	for i, s := range sessions {
		if s != sessions[i%2] {
			t.Fatalf("caller %d has a session of its own", i)
		}
	}
	pids := []int{<-b.pids, <-b.pids}
	if len(b.pids) > 0 {
		t.Error("more than two processes were started")
	}
	if got := []string{sessions[0].ID(), sessions[1].ID()}; !cmp.Equal(got, []string{"job-e0-w0", "job-e0-w1"}) {
		t.Errorf("worker ids %q", got)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	for _, s := range sessions[:2] {
		<-s.Done()
		if !errors.Is(s.Err(), ErrClosed) {
			t.Errorf("the session ended with %v", s.Err())
		}
	}
	if _, err := p.Session(t.Context(), "py", 0); !errors.Is(err, ErrClosed) {
		t.Errorf("a session after Close: %v", err)
	}
}

// A process that ends before it connects is noticed at once; the error has its code and its last lines.
func TestExitsBeforeConnecting(t *testing.T) {
	b := newBench(t)
	p := b.pool(b.config(map[string]*pipepb.Environment{"py": processEnv(t, "exit")}))
	_, err := p.Session(t.Context(), "py", 0)
	var exit *Exit
	if !errors.As(err, &exit) {
		t.Fatalf("error %v, want an Exit", err)
	}
	if exit.Code != 3 || exit.Signal != 0 || exit.Worker != "job-e0-w0" || exit.Environment != "py" || exit.Connected {
		t.Errorf("%+v", exit)
	}
	hasAll(t, "the error", err.Error(), "before it connected", "exit code 3", "last words 79")
	if lines := strings.Count(err.Error(), "\n"); lines > 29 {
		t.Errorf("the error has %d lines", lines)
	}
	// The next caller gets another start, not the old error for ever; and with another id.
	if _, err = p.Session(t.Context(), "py", 0); !errors.As(err, &exit) || exit.Worker != "job-e0-w0-r1" {
		t.Errorf("second start: %v", err)
	}
}

// A harness that is killed ends its session with the signal, at once.
func TestKilled(t *testing.T) {
	b := newBench(t)
	p := b.pool(b.config(map[string]*pipepb.Environment{"py": processEnv(t, "harness")}))
	s, err := p.Session(t.Context(), "py", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(<-b.pids, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	var exit *Exit
	if !errors.As(s.Err(), &exit) || exit.Signal != syscall.SIGKILL || !exit.Connected {
		t.Fatalf("the session ended with %v", s.Err())
	}
	hasAll(t, "the error", s.Err().Error(), "signal 9", "out of memory", "pid ")
	again, err := p.Session(t.Context(), "py", 0)
	if err != nil || again == s {
		t.Errorf("no new worker after the old one's end: %v", err)
	}
}

// A process that neither connects nor speaks is given up after the limit; till then it is said what is awaited.
func TestNeverConnects(t *testing.T) {
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": processEnv(t, "silent")})
	cfg.Timeouts = Timeouts{Process: 400 * time.Millisecond, Progress: 50 * time.Millisecond}
	p := b.pool(cfg)
	_, err := p.Session(t.Context(), "py", 0)
	if err == nil {
		t.Fatal("no error")
	}
	pid := <-b.pids
	hasAll(t, "the error", err.Error(), "did not connect to "+b.endpoint, strconv.Itoa(pid), os.Args[0])
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Error("the process is left")
	}
	if len(b.messages) == 0 {
		t.Fatal("no message while waiting")
	}
	hasAll(t, "the message", b.messages[0], `waiting for worker job-e0-w0 of environment "py"`, b.endpoint)
}

// Close during a start ends it; the callers are told.
func TestCloseWhileStarting(t *testing.T) {
	b := newBench(t)
	p := b.pool(b.config(map[string]*pipepb.Environment{"py": processEnv(t, "silent")}))
	result := make(chan error)
	go func() {
		_, err := p.Session(context.Background(), "py", 0)
		result <- err
	}()
	pid := <-b.pids
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("the caller got %v", err)
	}
	if alive(pid) {
		t.Error("the process is left")
	}
}

// A caller that gives up does not end the start, which others may wait for.
func TestCallerGivesUp(t *testing.T) {
	b := newBench(t)
	p := b.pool(b.config(map[string]*pipepb.Environment{"py": processEnv(t, "harness")}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Session(ctx, "py", 0); !errors.Is(err, context.Canceled) {
		t.Skipf("the start was quicker: %v", err)
	}
	s, err := p.Session(t.Context(), "py", 0)
	if err != nil {
		t.Fatal(err)
	}
	if s.ID() != "job-e0-w0" {
		t.Errorf("another start was made: %s", s.ID())
	}
}

// The harness is provisioned with all that the SDKs' boot programs ask for.
func TestProvision(t *testing.T) {
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": processEnv(t, "provision")})
	options, err := structpb.NewStruct(map[string]any{"beam:option:x:v1": "y"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Options = options
	cfg.Dependencies = map[string][]*pipepb.ArtifactInformation{"py": {{TypeUrn: "t"}}, "other": {{TypeUrn: "u"}}}
	p := b.pool(cfg)
	here := &pipepb.ApiServiceDescriptor{Url: b.endpoint}
	want := &fnpb.ProvisionInfo{
		PipelineOptions: options, RetrievalToken: "job",
		StatusEndpoint: here, LoggingEndpoint: here, ArtifactEndpoint: here, ControlEndpoint: here,
		Dependencies: []*pipepb.ArtifactInformation{{TypeUrn: "t"}},
		Metadata:     map[string]string{"job_id": "job", "job_name": "a test"},
	}
	got := (&worker{pool: p, environment: "py"}).provision()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	_, err = p.Session(t.Context(), "py", 0)
	var exit *Exit
	if !errors.As(err, &exit) || exit.Output[len(exit.Output)-1] != "job job" {
		t.Errorf("the harness was not provisioned: %v", err)
	}
}

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
		began := time.Now()
		_, err := p.Session(t.Context(), env, 0)
		if err == nil {
			t.Errorf("%s: no error", env)
			continue
		}
		hasAll(t, env, err.Error(), want...)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", env, took)
		}
	}
}

// An address that swallows packets is known as dead within 5 seconds or so.
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
	began := time.Now()
	_, err = p.Session(t.Context(), "hole", 0)
	if err == nil {
		t.Fatal("no error")
	}
	hasAll(t, "the error", err.Error(), l.Addr().String(), "no worker pool answers")
	if took := time.Since(began); took > 7*time.Second {
		t.Errorf("took %v", took)
	}
}

// What cannot run is refused with what to do instead, all alternatives' reasons at once.
func TestCheck(t *testing.T) {
	anyOf := func(envs ...*pipepb.Environment) *pipepb.Environment {
		return &pipepb.Environment{Urn: urnAnyOf, Payload: marshal(t, &pipepb.AnyOfEnvironmentPayload{Environments: envs})}
	}
	docker := &pipepb.Environment{Urn: urnDocker}
	ok := processEnv(t, "harness")
	missing := &pipepb.Environment{Urn: urnProcess, Payload: marshal(t, &pipepb.ProcessPayload{Command: "/no/boot"})}
	deep := ok
	for range maxNesting + 1 {
		deep = anyOf(deep)
	}
	for name, c := range map[string]struct {
		env  *pipepb.Environment
		errs []string
	}{
		"process":            {env: ok},
		"external":           {env: externalEnv(t, "h:1")},
		"second alternative": {env: anyOf(docker, ok)},
		"docker":             {docker, []string{"docker", "LOOPBACK", "trestle boot"}},
		"missing command":    {missing, []string{`"/no/boot"`, "not on this host"}},
		"embedded":           {&pipepb.Environment{Urn: urnEmbedded}, []string{"embedded_python", "LOOPBACK"}},
		"default":            {&pipepb.Environment{Urn: urnDefault}, []string{"LOOPBACK"}},
		"unknown":            {&pipepb.Environment{Urn: "beam:env:moon:v1"}, []string{"beam:env:moon:v1"}},
		"none":               {nil, []string{"LOOPBACK"}},
		"no address":         {&pipepb.Environment{Urn: urnExternal}, []string{"host:port"}},
		"no alternative":     {anyOf(docker, missing), []string{"docker", `"/no/boot"`}},
		"empty alternatives": {anyOf(), []string{"no alternative"}},
		"too deep":           {deep, []string{"nested"}},
		"broken process":     {&pipepb.Environment{Urn: urnProcess, Payload: []byte{0xff}}, []string{"payload"}},
		"broken external":    {&pipepb.Environment{Urn: urnExternal, Payload: []byte{0xff}}, []string{"payload"}},
		"broken anyof":       {&pipepb.Environment{Urn: urnAnyOf, Payload: []byte{0xff}}, []string{"payload"}},
	} {
		err := Check(c.env)
		if (err != nil) != (len(c.errs) > 0) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			hasAll(t, name, err.Error(), c.errs...)
		}
	}
}

// How many workers an environment has follows from what its SDK can do and what the user wants.
func TestWorkers(t *testing.T) {
	plain := processEnv(t, "harness")
	multi := proto.CloneOf(plain)
	multi.Capabilities = []string{"x", multiCore}
	ext := externalEnv(t, "h:1")
	envs := map[string]*pipepb.Environment{
		"plain": plain, "multi": multi, "ext": ext, "docker": {Urn: urnDocker},
		"anyof": {Urn: urnAnyOf, Payload: marshal(t, &pipepb.AnyOfEnvironmentPayload{Environments: []*pipepb.Environment{{Urn: urnDocker}, multi}})},
	}
	for _, c := range []struct {
		options map[string]any
		want    map[string]int
	}{
		{nil, map[string]int{"plain": 8, "multi": 1, "ext": 8, "anyof": 1, "docker": 1, "nothing": 1}},
		{map[string]any{"beam:option:environment_type:v1": "LOOPBACK"}, map[string]int{"plain": 8, "multi": 1, "ext": 1}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": 1}, map[string]int{"plain": 8, "multi": 1}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": 3}, map[string]int{"plain": 3, "multi": 3, "ext": 3}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": "3"}, map[string]int{"plain": 3}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": "many"}, map[string]int{"plain": 8}},
		{map[string]any{"beam:option:sdk_worker_parallelism:v1": -2}, map[string]int{"plain": 8}},
	} {
		options, err := structpb.NewStruct(c.options)
		if err != nil {
			t.Fatal(err)
		}
		p := NewPool(Config{Environments: envs, Options: options, Cores: 8})
		for env, want := range c.want {
			if got := p.Workers(env); got != want {
				t.Errorf("%v: %s has %d workers, want %d", c.options, env, got, want)
			}
		}
	}
}

// Requests for what is not there are errors.
func TestNoSuchWorker(t *testing.T) {
	p := NewPool(Config{Environments: map[string]*pipepb.Environment{"a": {Urn: urnDocker}}})
	for _, c := range []struct {
		env  string
		n    int
		want string
	}{{"b", 0, `no environment "b"`}, {"a", -1, "no worker -1"}, {"a", 0, "docker"}} {
		if _, err := p.Session(t.Context(), c.env, c.n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A folder that cannot be made is an error of the start.
func TestNoScratch(t *testing.T) {
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": processEnv(t, "harness")})
	cfg.Scratch = filepath.Join(cfg.Scratch, "missing")
	p := NewPool(cfg)
	if _, err := p.Session(t.Context(), "py", 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
