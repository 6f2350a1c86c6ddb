package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/internal/server"
)

func init() {
	register.Function1x2(failOnSeven)
	register.Function2x2(waitForFile)
	register.Function1x1(suicide)
	register.Function1x1(identity)
}

func identity(x int) int { return x }

// failOnSeven is user code with a bug.
func failOnSeven(x int) (int, error) {
	if x == 7 {
		return 0, errors.New("seven is not a number")
	}
	return x, nil
}

// history reads everything that the last job's event log says.
func history(t *testing.T, s *server.Server) []*jobpb.JobMessagesResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := jobs(t, s)
	list, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
	if err != nil || len(list.GetJobInfo()) == 0 {
		t.Fatalf("jobs: %v, %v", list, err)
	}
	stream, err := client.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: list.GetJobInfo()[0].GetJobId()})
	var all []*jobpb.JobMessagesResponse
	for err == nil {
		var r *jobpb.JobMessagesResponse
		if r, err = stream.Recv(); err == nil {
			all = append(all, r)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all
}

// messages are the last job's errors and states.
func messages(t *testing.T, s *server.Server) (errs []string, states []jobpb.JobState_Enum) {
	t.Helper()
	for _, r := range history(t, s) {
		if m := r.GetMessageResponse(); m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_ERROR {
			errs = append(errs, m.GetMessageText())
		}
		if st := r.GetStateResponse(); st != nil {
			states = append(states, st.GetState())
		}
	}
	return errs, states
}

// details are the last job's messages of importance DETAILED.
func details(t *testing.T, s *server.Server) (texts []string) {
	t.Helper()
	for _, r := range history(t, s) {
		if m := r.GetMessageResponse(); m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_DETAILED {
			texts = append(texts, m.GetMessageText())
		}
	}
	return texts
}

func jobs(t *testing.T, s *server.Server) jobpb.JobServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return jobpb.NewJobServiceClient(conn)
}

// oneError is the one error message of the last job, which is for people: short, and nothing of ours in front.
func oneError(t *testing.T, s *server.Server) string {
	t.Helper()
	errs, states := messages(t, s)
	if len(errs) != 1 || states[len(states)-1] != jobpb.JobState_FAILED {
		t.Fatalf("error messages %q, states %v", errs, states)
	}
	if n := strings.Count(errs[0], "\n") + 1; n >= 30 {
		t.Errorf("the error has %d lines:\n%s", n, errs[0])
	}
	return errs[0]
}

// TestUserError: the user's own error comes first, with the transform.
func TestUserError(t *testing.T) {
	s := start(t, server.Config{})
	_, err := execute(t, s, func(s beam.Scope) {
		beam.ParDo(s, failOnSeven, beam.CreateList(s, numbers(10)))
	})
	if err == nil {
		t.Fatal("the job did not fail")
	}
	text := oneError(t, s)
	if first, _, _ := strings.Cut(text, "\n"); !strings.Contains(first, "seven is not a number") {
		t.Errorf("the error starts with %q", first)
	}
	if !strings.Contains(text, "failOnSeven") {
		t.Errorf("the error does not name the transform:\n%s", text)
	}
}

// TestDeadEndpoint: the address of a worker pool that is gone is in the error, which comes long before the limit for a worker that was started.
func TestDeadEndpoint(t *testing.T) {
	s := start(t, server.Config{})
	dead := deadAddress(t)
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo(scope, identity, beam.CreateList(scope, numbers(10)))
	begin := time.Now()
	if _, err := submit(t, s, p, "EXTERNAL", dead); err == nil {
		t.Fatal("the job did not fail")
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	if text := oneError(t, s); !strings.Contains(text, dead) {
		t.Errorf("the error does not have the address %s:\n%s", dead, text)
	}
}

// deadAddress is one on which nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// bootCommand makes an executable that is `trestle boot go`, and answers with the environment's configuration.
func bootCommand(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "boot")
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' boot go \"$@\"\n", self)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return command(path)
}

func command(path string) string { return fmt.Sprintf(`{"command": %q}`, path) }

// TestProcess runs the harness as a process that `trestle boot go` starts from the staged worker binary.
func TestProcess(t *testing.T) {
	s := start(t, server.Config{})
	dir := t.TempDir()
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo0(scope, &writeFile{Path: filepath.Join(dir, "out")}, beam.CreateList(scope, []int{42}))
	if _, err := submit(t, s, p, "PROCESS", bootCommand(t)); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	value, pid, _ := strings.Cut(string(written), " by ")
	if value != "42" || pid == strconv.Itoa(os.Getpid()) {
		t.Errorf("written: %q", written)
	}
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	// Gone, once whoever inherits the child of a process that was killed has seen it end.
	await(t, func() bool { return errors.Is(syscall.Kill(n, 0), syscall.ESRCH) })
}

type writeFile struct{ Path string }

func (w *writeFile) ProcessElement(x int) error {
	return os.WriteFile(w.Path, fmt.Appendf(nil, "%d by %d", x, os.Getpid()), 0o600)
}

func init() { beam.RegisterDoFn(&writeFile{}) }

func suicide(x int) int {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		return -1
	}
	select {} // until the signal arrives
}

// TestHarnessKilled: the job fails at once, with the signal that ended the harness.
func TestHarnessKilled(t *testing.T) {
	s := start(t, server.Config{})
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo(scope, suicide, beam.CreateList(scope, numbers(1)))
	if _, err := submit(t, s, p, "PROCESS", bootCommand(t)); err == nil {
		t.Fatal("the job did not fail")
	}
	if text := oneError(t, s); !strings.Contains(text, "killed") && !strings.Contains(text, "137") {
		t.Errorf("the error does not tell how the harness ended:\n%s", text)
	}
}

// TestMissingCommand: a process environment without its command is refused before anything else happens.
func TestMissingCommand(t *testing.T) {
	s := start(t, server.Config{})
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo(scope, identity, beam.CreateList(scope, numbers(1)))
	_, err := submit(t, s, p, "PROCESS", command("/nowhere/boot-go"))
	if err == nil || !strings.Contains(err.Error(), "/nowhere/boot-go") {
		t.Errorf("submitted: %v", err)
	}
}

func waitForFile(ctx context.Context, path string) (string, error) {
	for {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestCancel: a job that would run for ever ends when it is cancelled, harness and all.
func TestCancel(t *testing.T) {
	s := start(t, server.Config{})
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo(scope, waitForFile, beam.Create(scope, filepath.Join(t.TempDir(), "never")))
	ended := make(chan error, 1)
	boot := bootCommand(t)
	go func() {
		_, err := submit(t, s, p, "PROCESS", boot)
		ended <- err
	}()
	client := jobs(t, s)
	id := running(t, client)
	if _, err := client.Cancel(context.Background(), &jobpb.CancelJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil { // Beam's Go client takes a cancelled job for one that went well
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the job did not end")
	}
	if _, states := messages(t, s); states[len(states)-1] != jobpb.JobState_CANCELLED {
		t.Errorf("states %v", states)
	}
}

// running waits until a job runs, and answers with its id.
func running(t *testing.T, client jobpb.JobServiceClient) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for ; ctx.Err() == nil; <-ticker.C {
		list, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range list.GetJobInfo() {
			if j.GetState() == jobpb.JobState_RUNNING {
				return j.GetJobId()
			}
		}
	}
	t.Fatal("no job runs")
	return ""
}

// TestRestart: jobs and their whole history are there after a restart of the server.
func TestRestart(t *testing.T) {
	data := t.TempDir()
	t.Run("fail", func(t *testing.T) {
		s := start(t, server.Config{Data: data})
		if _, err := execute(t, s, func(s beam.Scope) { beam.ParDo(s, failOnSeven, beam.CreateList(s, numbers(10))) }); err == nil {
			t.Fatal("the job did not fail")
		}
	})
	t.Run("read", func(t *testing.T) {
		s := start(t, server.Config{Data: data})
		if text := oneError(t, s); !strings.Contains(text, "seven") {
			t.Errorf("error after the restart: %s", text)
		}
	})
}

// TestTakenPort and TestTakenData: a second server is told what is in its way, and leaves the first alone.
func TestTaken(t *testing.T) {
	data := t.TempDir()
	s := start(t, server.Config{Data: data})
	_, err := server.Start(t.Context(), server.Config{Listen: s.Endpoint(), Data: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), s.Endpoint()+" is in use") || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("taken port: %v", err)
	}
	_, err = server.Start(t.Context(), server.Config{Listen: "127.0.0.1:0", Data: data})
	if err == nil || !strings.Contains(err.Error(), data) {
		t.Errorf("taken data folder: %v", err)
	}
	if list, err := jobs(t, s).GetJobs(t.Context(), &jobpb.GetJobsRequest{}); err != nil {
		t.Errorf("the first server: %v, %v", list, err)
	}
}
