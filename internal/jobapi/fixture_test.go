package jobapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/engine"
	"trestle/internal/fnapi"
	"trestle/internal/jobapi"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// runner is a Runner whose runs the test plays: each Start is handed to the test.
type runner struct {
	check  func(*pipepb.Pipeline, *structpb.Struct) error
	start  func(ctx context.Context, s jobapi.Submission) error
	starts chan *run
	hide   bool // runs are nothing but an engine.Run

	mu  sync.Mutex
	all []*run
}

func newRunner() *runner { return &runner{starts: make(chan *run, 100)} }

func (r *runner) Check(_ context.Context, p *pipepb.Pipeline, o *structpb.Struct) error {
	if r.check == nil {
		return nil
	}
	return r.check(p, o)
}

func (r *runner) Start(ctx context.Context, s jobapi.Submission) (engine.Run, error) {
	if r.start != nil {
		if err := r.start(ctx, s); err != nil {
			return nil, err
		}
	}
	run := newRun(s.Events)
	run.Submission = s
	r.mu.Lock()
	r.all = append(r.all, run)
	r.mu.Unlock()
	r.starts <- run
	if r.hide {
		return struct{ engine.Run }{run}, nil
	}
	return run, nil
}

// release ends the runs that the test has left.
func (r *runner) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range r.all {
		run.release()
	}
}

// attacher is a runner that finds runs again.
type attacher struct {
	*runner
	attach func(handle string, events engine.Events) (engine.Run, error)
}

func (a *attacher) Attach(_ context.Context, handle string, events engine.Events) (engine.Run, error) {
	return a.attach(handle, events)
}

type run struct {
	jobapi.Submission
	engine.Events
	cancelled chan struct{}
	drained   chan struct{}
	done      chan struct{}
	followed  chan struct{} // closed when the service waits for the end
	cancel    sync.Once
	follow    sync.Once
	over      sync.Once
	onCancel  func() // what the engine does at once, in the call
}

func newRun(e engine.Events) *run {
	return &run{Events: e, cancelled: make(chan struct{}), drained: make(chan struct{}), done: make(chan struct{}), followed: make(chan struct{})}
}

func (r *run) Handle() string { return "handle of " + r.ID }
func (r *run) Detach()        { r.release() }
func (r *run) release()       { r.over.Do(func() { close(r.done) }) }
func (r *run) Done() <-chan struct{} {
	r.follow.Do(func() { close(r.followed) })
	return r.done
}
func (r *run) Cancel() {
	r.cancel.Do(func() {
		if r.onCancel != nil {
			r.onCancel()
		}
		close(r.cancelled)
	})
}

func (r *run) Drain() { close(r.drained) }

// end reports a last state and releases the run.
func (r *run) end(st jobpb.JobState_Enum) {
	r.State(st)
	r.release()
}

// staging is a Staging that has what Begin was given, with a mark that it was resolved.
type staging struct {
	mu       sync.Mutex
	sessions map[string]map[string][]*pipepb.ArtifactInformation
	err      error
	digest   string        // of a file that every job is given, when it is set
	wait     chan struct{} // Resolved waits for it, when it is set
	resolved func()        // called when Resolved has its answer, when it is set
}

func (s *staging) Begin(token string, m map[string][]*pipepb.ArtifactInformation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == nil {
		s.sessions = make(map[string]map[string][]*pipepb.ArtifactInformation)
	}
	s.sessions[token] = m
}

func (s *staging) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *staging) Resolved(ctx context.Context, token string) (map[string][]*pipepb.ArtifactInformation, error) {
	if s.wait != nil {
		select {
		case <-s.wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.resolved != nil {
		defer s.resolved()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.sessions[token]
	if s.err != nil || !ok {
		return nil, errors.Join(s.err, fmt.Errorf("session %q: %v", token, ok))
	}
	resolved := make(map[string][]*pipepb.ArtifactInformation)
	for env, artifacts := range m {
		for _, a := range artifacts {
			resolved[env] = append(resolved[env], &pipepb.ArtifactInformation{TypeUrn: a.GetTypeUrn(), TypePayload: []byte("resolved")})
		}
	}
	if s.digest != "" {
		file, err := proto.Marshal(&pipepb.ArtifactFilePayload{Path: s.digest, Sha256: s.digest})
		if err != nil {
			return nil, err
		}
		resolved["go"] = append(resolved["go"], &pipepb.ArtifactInformation{TypeUrn: "beam:artifact:type:file:v1", TypePayload: file})
	}
	return resolved, nil
}

func (s *staging) Forget(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, token)
}

func (s *staging) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// server is a service behind gRPC, and a client of it.
type server struct {
	jobpb.JobServiceClient
	service  *jobapi.Service
	runner   *runner
	staging  *staging
	dir      string
	handlers chan string // a stream's method, when its handler has returned
}

func config(t testing.TB, dir string, r jobapi.Runner) jobapi.Config {
	return jobapi.Config{
		Dir: dir, Runner: r, Staging: &staging{}, ArtifactEndpoint: func() string { return "127.0.0.1:8098" },
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
}

type testLog struct{ testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.Logf("%s", b)
	return len(b), nil
}

func serve(t testing.TB, dir string) *server {
	r := newRunner()
	s := serveWith(t, config(t, dir, r))
	s.runner = r
	return s
}

func serveWith(t testing.TB, cfg jobapi.Config) *server {
	t.Helper()
	service, err := jobapi.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{service: service, staging: cfg.Staging.(*staging), dir: cfg.Dir, handlers: make(chan string, 100)}
	lis := bufconn.Listen(1 << 16)
	g := grpc.NewServer(append(fnapi.ServerOptions(), grpc.StreamInterceptor(
		func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			err := h(srv, ss)
			s.handlers <- info.FullMethod
			return err
		}))...)
	service.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:job-server",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	s.JobServiceClient = jobpb.NewJobServiceClient(conn)
	t.Cleanup(func() {
		if r, ok := cfg.Runner.(interface{ release() }); ok {
			r.release()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := service.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

func pipeline() *pipepb.Pipeline {
	return &pipepb.Pipeline{
		Components: &pipepb.Components{Environments: map[string]*pipepb.Environment{
			"go":     {Urn: "beam:env:docker:v1", Dependencies: []*pipepb.ArtifactInformation{{TypeUrn: "beam:artifact:type:file:v1"}}},
			"python": {Urn: "beam:env:external:v1"},
		}},
		RootTransformIds: []string{"impulse"},
	}
}

func (s *server) prepare(t testing.TB, name string) *jobpb.PrepareJobResponse {
	t.Helper()
	p, err := s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: pipeline(), JobName: name})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *server) submit(t testing.TB, preparation string) string {
	t.Helper()
	r, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: preparation})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetJobId()
}

// run prepares and runs a job, and returns it when the engine has it and the service follows it.
func (s *server) run(t testing.TB, name string) *run {
	t.Helper()
	s.submit(t, s.prepare(t, name).GetPreparationId())
	r := <-s.runner.starts
	<-r.followed
	return r
}

// state reads the state without the first wait.
func (s *server) state(t testing.TB, id string) jobpb.JobState_Enum {
	t.Helper()
	jobs, err := s.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs.GetJobInfo() {
		if j.GetJobId() == id {
			return j.GetState()
		}
	}
	t.Fatalf("no job %s in %v", id, jobs)
	return 0
}

// states reads a whole state stream.
func (s *server) states(t testing.TB, id string) []string {
	t.Helper()
	stream, err := s.GetStateStream(t.Context(), &jobpb.GetJobStateRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		st, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			return append(got, code(err))
		}
		if !st.GetTimestamp().IsValid() || st.GetTimestamp().AsTime().Year() < 2020 {
			t.Errorf("state %v has the time %v", st.GetState(), st.GetTimestamp())
		}
		got = append(got, st.GetState().String())
	}
}

// messages reads a whole message stream: states by their names, messages as "importance: text".
func (s *server) messages(t testing.TB, id string) []string {
	t.Helper()
	stream, err := s.GetMessageStream(t.Context(), &jobpb.JobMessagesRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	return readMessages(stream)
}

func readMessages(stream jobpb.JobService_GetMessageStreamClient) []string {
	var got []string
	for {
		r, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return got
		case err != nil:
			return append(got, code(err))
		case r.GetStateResponse() != nil:
			got = append(got, r.GetStateResponse().GetState().String())
		default:
			m := r.GetMessageResponse()
			got = append(got, m.GetImportance().String()[len("JOB_MESSAGE_"):]+": "+m.GetMessageText())
		}
	}
}

// code is an error as its gRPC code.
func code(err error) string { return status.Code(err).String() }

// refused checks an error's code and that its text has all that is said.
func refused(t testing.TB, err error, want codes.Code, says ...string) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%v; want code %v", err, want)
		return
	}
	for _, s := range says {
		if !contains(status.Convert(err).Message(), s) {
			t.Errorf("%v; want it to say %q", err, s)
		}
	}
}
