//go:build linux

package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
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
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/beam/urn"
	"trestle/internal/fnapi"
	"trestle/test/leaks"
)

// part is the variable of the environment by which the test binary plays a harness.
const part = "TRESTLE_TEST_PART"

func TestMain(m *testing.M) {
	if p := os.Getenv(part); p != "" {
		play(p)
		return
	}
	leaks.Main(m, engine.Stop)
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
	return &pipepb.Environment{Urn: urn.EnvProcess, Payload: marshal(t, &pipepb.ProcessPayload{
		Command: os.Args[0], Env: map[string]string{part: p},
	})}
}

func externalEnv(t *testing.T, address string) *pipepb.Environment {
	return &pipepb.Environment{Urn: urn.EnvExternal, Payload: marshal(t, &pipepb.ExternalPayload{
		Endpoint: &pipepb.ApiServiceDescriptor{Url: address}, Params: map[string]string{"k": "v"},
	})}
}

func dockerEnv(t *testing.T, image string) *pipepb.Environment {
	return &pipepb.Environment{Urn: urn.EnvDocker, Payload: marshal(t, &pipepb.DockerPayload{ContainerImage: image})}
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
	p.Start("py", 1) // in advance
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

// Asked to, the pool kills its harnesses itself: a process ends as if another had killed it, and one is started in its place.
func TestKills(t *testing.T) {
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": processEnv(t, "harness")})
	cfg.Kills = time.Millisecond
	p := b.pool(cfg)
	var last *fnapi.Session
	for range 3 {
		s, err := p.Session(t.Context(), "py", 0)
		if err != nil {
			t.Fatal(err)
		}
		if s == last {
			t.Fatal("the session that has ended is given out again")
		}
		last = s
		<-s.Done()
		var exit *Exit
		if !errors.As(s.Err(), &exit) || exit.Signal != syscall.SIGKILL || !exit.Connected {
			t.Fatalf("the session ended with %v", s.Err())
		}
	}
}

// A process that neither connects nor speaks is given up after the limit.
func TestNeverConnects(t *testing.T) {
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": processEnv(t, "silent")})
	cfg.Timeouts = Timeouts{Process: time.Second}
	p := b.pool(cfg)
	_, err := p.Session(t.Context(), "py", 0)
	if err == nil {
		t.Fatal("no error")
	}
	hasAll(t, "the error", err.Error(), "did not connect to "+b.endpoint, os.Args[0])
	// On a busy machine it may not even have come to write its pid: the error knows it by itself.
	said := regexp.MustCompile(`\(process (\d+), `).FindStringSubmatch(err.Error())
	if said == nil {
		t.Fatalf("no pid in: %v", err)
	}
	pid, err := strconv.Atoi(said[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Error("the process is left")
	}
}

// While a start lasts it is said what is awaited. Close ends it, and the callers are told.
func TestCloseWhileStarting(t *testing.T) {
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": processEnv(t, "silent")})
	cfg.Timeouts = Timeouts{Progress: 20 * time.Millisecond}
	said := make(chan string, 1)
	cfg.Message = func(_ jobpb.JobMessage_MessageImportance, text string) {
		select {
		case said <- text:
		default:
		}
	}
	p := b.pool(cfg)
	result := make(chan error)
	go func() {
		_, err := p.Session(context.Background(), "py", 0)
		result <- err
	}()
	pid := <-b.pids
	hasAll(t, "the message", <-said, `waiting for worker job-e0-w0 of environment "py"`, b.endpoint)
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
		Dependencies:       []*pipepb.ArtifactInformation{{TypeUrn: "t"}},
		Metadata:           map[string]string{"job_id": "job", "job_name": "a test"},
		RunnerCapabilities: []string{urn.RunnerControlResponseElements},
	}
	got := (&worker{pool: p, environment: "py", endpoint: b.endpoint}).provision()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	_, err = p.Session(t.Context(), "py", 0)
	var exit *Exit
	if !errors.As(err, &exit) || exit.Output[len(exit.Output)-1] != "job job" {
		t.Errorf("the harness was not provisioned: %v", err)
	}
}

// Requests for what is not there are errors.
func TestNoSuchWorker(t *testing.T) {
	p := NewPool(Config{Environments: map[string]*pipepb.Environment{"a": {Urn: urn.EnvDocker}}})
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
