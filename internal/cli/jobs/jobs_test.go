package jobs

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

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

// command is what the command writes. It has as long as the test has.
func command(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := NewCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
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
