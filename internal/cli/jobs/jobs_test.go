package jobs

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/server"
)

// A job whose workers end at once is listed as failed, and tells why.
func TestJobsAreListedAndTell(t *testing.T) {
	s, err := server.Start(t.Context(), server.Config{Listen: "127.0.0.1:0", Data: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if got := command(t, "--server", s.Endpoint()); got != "" {
		t.Errorf("a server without jobs lists %q", got)
	}
	job := submit(t, s.Endpoint())
	told := command(t, "--server", s.Endpoint(), job) // until the job has ended
	for _, want := range []string{" RUNNING\n", "ended before it connected: exit code 1", " FAILED\n"} {
		if !strings.Contains(told, want) {
			t.Errorf("the job tells nothing of %q:\n%s", want, told)
		}
	}
	if got := command(t, "--server", s.Endpoint()); !strings.HasPrefix(got, job+"  FAILED  lonely") {
		t.Errorf("the job is listed as %q", got)
	}
	cmd := NewCommand()
	cmd.SetArgs([]string{"--server", s.Endpoint(), "nobody"})
	cmd.SetOut(&bytes.Buffer{})
	cmd.SetErr(&bytes.Buffer{})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a job that is not there: %v", err)
	}
}

// restarted is a job server that is restarted while it tells of a job: each stream begins with all that was told before.
type restarted struct {
	jobpb.UnimplementedJobServiceServer
	tells chan []*jobpb.JobMessagesResponse
}

func (r *restarted) GetMessageStream(_ *jobpb.JobMessagesRequest, stream jobpb.JobService_GetMessageStreamServer) error {
	select {
	case told := <-r.tells:
		for _, m := range told {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		if state := told[len(told)-1].GetStateResponse(); state.GetState() == jobpb.JobState_DONE {
			return nil
		}
	default:
	}
	return status.Error(codes.Unavailable, "the server is being stopped")
}

// A server that goes away while a job is followed is asked again; what was shown is not shown twice, and nothing is left out.
func TestAFollowerGoesOnWithARestartedServer(t *testing.T) {
	message := func(n, text string) *jobpb.JobMessagesResponse {
		return &jobpb.JobMessagesResponse{Response: &jobpb.JobMessagesResponse_MessageResponse{MessageResponse: &jobpb.JobMessage{
			MessageId: n, Time: "t" + n, Importance: jobpb.JobMessage_JOB_MESSAGE_BASIC, MessageText: text}}}
	}
	state := func(s jobpb.JobState_Enum) *jobpb.JobMessagesResponse {
		return &jobpb.JobMessagesResponse{Response: &jobpb.JobMessagesResponse_StateResponse{StateResponse: &jobpb.JobStateEvent{
			State: s, Timestamp: &timestamppb.Timestamp{Seconds: 1}}}}
	}
	all := []*jobpb.JobMessagesResponse{state(jobpb.JobState_STOPPED), state(jobpb.JobState_STARTING), message("1", "one"),
		message("2", "two"), state(jobpb.JobState_RUNNING), message("3", "three"), state(jobpb.JobState_DONE)}
	service := &restarted{tells: make(chan []*jobpb.JobMessagesResponse, 3)}
	for _, n := range []int{3, 4, len(all)} {
		service.tells <- all[:n]
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	jobpb.RegisterJobServiceServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	const at = "1970-01-01T00:00:01Z "
	want := at + "STOPPED\n" + at + "STARTING\nt1 one\nt2 two\n" + at + "RUNNING\nt3 three\n" + at + "DONE\n"
	if got := command(t, "--server", listener.Addr().String(), "job"); got != want {
		t.Errorf("it shows\n%s\nand not\n%s", got, want)
	}
}

// A server that is not there at first is not waited for.
func TestAServerThatIsNotThere(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := NewCommand()
	cmd.SetArgs([]string{"--server", listener.Addr().String(), "job"})
	cmd.SetOut(&bytes.Buffer{})
	cmd.SetErr(&bytes.Buffer{})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// command is what the command writes. It has as long as the test has.
func command(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := NewCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := cmd.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("the job did not end; it told\n%s", out.String())
	}
	return out.String()
}

// submit runs a pipeline whose workers end at once.
func submit(t *testing.T, endpoint string) (job string) {
	t.Helper()
	encoded, err := os.ReadFile("../../plan/testdata/pipelines/go-wordcount.pb")
	if err != nil {
		t.Fatal(err)
	}
	var p pipepb.Pipeline
	if err := proto.Unmarshal(encoded, &p); err != nil {
		t.Fatal(err)
	}
	payload, err := proto.Marshal(&pipepb.ProcessPayload{Command: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	for _, env := range p.GetComponents().GetEnvironments() {
		env.Urn, env.Payload, env.Dependencies = "beam:env:process:v1", payload, nil
	}
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := jobpb.NewJobServiceClient(conn)
	prepared, err := client.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: &p, JobName: "lonely"})
	if err != nil {
		t.Fatal(err)
	}
	started, err := client.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
	if err != nil {
		t.Fatal(err)
	}
	return started.GetJobId()
}
