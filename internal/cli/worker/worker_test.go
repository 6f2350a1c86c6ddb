package worker

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"trestle/internal/job/submission"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
)

// asWorker makes the test's binary a worker.
const asWorker = "TRESTLE_TEST_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) == "" {
		os.Exit(m.Run())
	}
	version := "test"
	if err := NewCommand(&version).Execute(); err != nil {
		os.Exit(1)
	}
}

// An engine's process that is killed closes the worker's standard input, and nobody reads what it logs any more.
func TestAKilledEngineLeavesNothing(t *testing.T) {
	scratch := filepath.Join(t.TempDir(), "trestle-worker-1-test")
	cmd := exec.Command(os.Args[0], "--scratch", scratch)
	cmd.Env = append(os.Environ(), asWorker+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	logged, log, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	job := encodedJob(t)
	if _, err := stdin.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(job))), job...)); err != nil {
		t.Fatal(err)
	}
	var port int
	var token string
	if _, err := fmt.Fscanf(bufio.NewReader(stdout), "trestle-worker 1 %d %s\n", &port, &token); err != nil {
		t.Fatalf("the worker says where it listens: %v", err)
	}
	if _, err := os.Stat(scratch); err != nil {
		t.Fatalf("the worker's folder: %v", err)
	}

	logged.Close()
	// Something to log: the engine's connections break.
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "no hello, but long enough to be read as the beginning of a frame"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Logf("the worker breaks the connection: %v", err)
	}
	conn.Close()
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
	if _, err := os.Stat(scratch); !os.IsNotExist(err) {
		t.Errorf("the worker's folder is left: %v", err)
	}
}

func encodedJob(t *testing.T) []byte {
	t.Helper()
	pipeline, err := plantest.Parse("impulse Start > s\npardo A(s) >")
	if err != nil {
		t.Fatal(err)
	}
	built, err := plan.Build(pipeline, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := built.Digest()
	if err != nil {
		t.Fatal(err)
	}
	job := submission.Job{
		Trestle: "test", ID: "job", Name: "job", Pipeline: pipeline, Digest: digest, KeyGroups: 128, Memory: 1 << 20,
		Artifacts: submission.Artifacts{Bucket: "file://" + t.TempDir()},
	}
	encoded, err := job.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}
