//go:build linux

package boot

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/harness/process"
	"trestle/test/leaks"
)

// part is the variable of the environment by which the test binary plays `trestle boot`; its value is the language.
const part = "TRESTLE_TEST_PART"

func TestMain(m *testing.M) {
	language := os.Getenv(part)
	if language == "" {
		leaks.Main(m)
		return
	}
	cfg := Config{Stdout: os.Stdout, Stderr: os.Stderr, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	for _, a := range os.Args[1:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "--id":
			cfg.ID = value
		case "--provision_endpoint":
			cfg.Provision = value
		}
	}
	var sdk SDK = Go{profile: os.Getenv("TRESTLE_TEST_PROFILE")}
	if language == "python" {
		sdk = Python{Interpreter: os.Getenv("TRESTLE_TEST_PYTHON")}
	}
	err := Run(context.Background(), cfg, sdk)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "trestle boot:", err)
	var exit *Exit
	if errors.As(err, &exit) {
		os.Exit(exit.Code)
	}
	os.Exit(1)
}

// jobServer provisions and hands out artifacts.
type jobServer struct {
	fnpb.UnimplementedProvisionServiceServer
	jobpb.UnimplementedArtifactRetrievalServiceServer
	address string
	gets    atomic.Int64

	mu      sync.Mutex
	info    *fnpb.ProvisionInfo
	content map[string][]byte // by sha256
}

func (s *jobServer) GetProvisionInfo(context.Context, *fnpb.GetProvisionInfoRequest) (*fnpb.GetProvisionInfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &fnpb.GetProvisionInfoResponse{Info: proto.CloneOf(s.info)}, nil
}

func (s *jobServer) ResolveArtifacts(_ context.Context, r *jobpb.ResolveArtifactsRequest) (*jobpb.ResolveArtifactsResponse, error) {
	return &jobpb.ResolveArtifactsResponse{Replacements: r.GetArtifacts()}, nil
}

func (s *jobServer) GetArtifact(r *jobpb.GetArtifactRequest, stream jobpb.ArtifactRetrievalService_GetArtifactServer) error {
	s.gets.Add(1)
	var p pipepb.ArtifactFilePayload
	if err := proto.Unmarshal(r.GetArtifact().GetTypePayload(), &p); err != nil {
		return err
	}
	s.mu.Lock()
	content := s.content[p.GetSha256()]
	s.mu.Unlock()
	return stream.Send(&jobpb.GetArtifactResponse{Data: content})
}

// add stages a file.
func (s *jobServer) add(t *testing.T, name, role string, content []byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(content)
	id := hex.EncodeToString(sum[:])
	s.content[id] = content
	typePayload, err := proto.Marshal(&pipepb.ArtifactFilePayload{Path: id, Sha256: id})
	if err != nil {
		t.Fatal(err)
	}
	a := &pipepb.ArtifactInformation{TypeUrn: "beam:artifact:type:file:v1", TypePayload: typePayload, RoleUrn: role}
	if role == "" {
		a.RoleUrn = "beam:artifact:role:staging_to:v1"
		if a.RolePayload, err = proto.Marshal(&pipepb.ArtifactStagingToRolePayload{StagedName: name}); err != nil {
			t.Fatal(err)
		}
	}
	s.info.Dependencies = append(s.info.Dependencies, a)
}

func newJobServer(t *testing.T) *jobServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options, err := structpb.NewStruct(map[string]any{"beam:option:x:v1": "y"})
	if err != nil {
		t.Fatal(err)
	}
	s := &jobServer{address: l.Addr().String(), info: &fnpb.ProvisionInfo{PipelineOptions: options}, content: map[string][]byte{}}
	g := grpc.NewServer()
	fnpb.RegisterProvisionServiceServer(g, s)
	jobpb.RegisterArtifactRetrievalServiceServer(g, s)
	served := make(chan error)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		<-served
	})
	return s
}

// booted is a running boot.
type booted struct {
	cmd   *exec.Cmd
	lines chan string // of both streams; closed at their end
	all   []string
}

func (s *jobServer) boot(t *testing.T, language, id string, env ...string) *booted {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &booted{cmd: exec.Command(os.Args[0], "--id="+id, "--provision_endpoint="+s.address), lines: make(chan string, 10000)}
	b.cmd.Env = append(append(os.Environ(), part+"="+language, process.DirVar+"="), env...)
	b.cmd.Stdout, b.cmd.Stderr = w, w
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(b.lines)
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			b.lines <- lines.Text()
		}
	}()
	return b
}

// await reads until a line with the text.
func (b *booted) await(t *testing.T, text string) string {
	t.Helper()
	for line := range b.lines {
		b.all = append(b.all, line)
		if strings.Contains(line, text) {
			return line
		}
	}
	t.Fatalf("no line with %q in:\n%s", text, strings.Join(b.all, "\n"))
	return ""
}

// end waits for the end: exit code (128+n for a signal, as a shell has it) and output.
func (b *booted) end() (int, string) {
	for line := range b.lines {
		b.all = append(b.all, line)
	}
	var exit *Exit
	code := 0
	if errors.As(ending(b.cmd.Wait()), &exit) {
		code = exit.Code
	}
	return code, strings.Join(b.all, "\n")
}

func script(lines string) []byte { return []byte("#!/bin/sh\n" + lines + "\n") }

const goRole = roleGoWorker

// The worker gets what it needs, its output passes, its exit code is kept, and nothing is left.
func TestRunKeepsExitCode(t *testing.T) {
	for worker, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137} {
		s := newJobServer(t)
		s.add(t, "", goRole, script(`echo "args $@"; echo "options $(cat $PIPELINE_OPTIONS_FILE)" >&2; echo "dir $SEMI_PERSISTENT_DIRECTORY"; `+worker))
		tmp := t.TempDir()
		b := s.boot(t, "go", "w1", "TMPDIR="+tmp)
		code, out := b.end()
		if code != want {
			t.Errorf("%s: code %d", worker, code)
		}
		for _, part := range []string{"args --worker=true --id=w1", "--control_endpoint=" + s.address, `"beam:option:x:v1":`, "dir " + tmp} {
			if !strings.Contains(out, part) {
				t.Errorf("%s: output lacks %q:\n%s", worker, part, out)
			}
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", worker, left, err)
		}
	}
}

// The heap profile of a worker that dies goes where the pipeline has its temporary files; one of another, older, does not, and
// nothing does of one that ends well or has no such place.
func TestRunKeepsHeapProfile(t *testing.T) {
	for name, c := range map[string]struct {
		worker       string
		before, temp bool
		want         int
	}{
		"died":        {`echo "heap of $$" > "$TRESTLE_TEST_PROFILE"; kill -9 $$`, false, true, 1},
		"ended well":  {`echo heap > "$TRESTLE_TEST_PROFILE"`, false, true, 0},
		"an older":    {`exit 3`, true, true, 0},
		"none":        {`exit 3`, false, true, 0},
		"no location": {`echo heap > "$TRESTLE_TEST_PROFILE"; exit 3`, false, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newJobServer(t)
			temp, profile := t.TempDir(), filepath.Join(t.TempDir(), "hProf")
			if c.temp {
				// As the Go SDK's clients send it: its flags together.
				options, err := structpb.NewStruct(map[string]any{"beam:option:go_options:v1": map[string]any{"options": map[string]any{"temp_location": temp}}})
				if err != nil {
					t.Fatal(err)
				}
				s.info.PipelineOptions = options
			}
			if c.before {
				if err := os.WriteFile(profile, []byte("another's"), 0o600); err != nil {
					t.Fatal(err)
				}
				past := time.Now().Add(-time.Hour)
				if err := os.Chtimes(profile, past, past); err != nil {
					t.Fatal(err)
				}
			}
			s.add(t, "", goRole, script(c.worker))
			_, out := s.boot(t, "go", "w1", "TMPDIR="+t.TempDir(), "TRESTLE_TEST_PROFILE="+profile).end()
			found, err := filepath.Glob(filepath.Join(temp, "heapProfiles", "profile-w1-*"))
			if err != nil || len(found) != c.want {
				t.Errorf("kept %q, %v, instead of %d\n%s", found, err, c.want, out)
			}
			if text, err := os.ReadFile(profile); len(found) == 1 {
				if kept, keptErr := os.ReadFile(found[0]); err != nil || keptErr != nil || string(kept) != string(text) {
					t.Errorf("kept %q (%v) of %q (%v)", kept, keptErr, text, err)
				}
			}
		})
	}
}

// Signals reach the worker, which decides how it ends.
func TestRunForwardsSignals(t *testing.T) {
	s := newJobServer(t)
	s.add(t, "", goRole, script(`trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done`))
	b := s.boot(t, "go", "w1", "TMPDIR="+t.TempDir())
	b.await(t, "ready")
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out := b.end(); code != 5 {
		t.Errorf("code %d\n%s", code, out)
	}
}

// The worker dies with boot, kill -9 included.
func TestRunDiesTogether(t *testing.T) {
	s := newJobServer(t)
	s.add(t, "", goRole, script(`echo "pid $$"; exec sleep 3000`))
	b := s.boot(t, "go", "w1", "TMPDIR="+t.TempDir())
	var pid int
	if _, err := fmt.Sscanf(b.await(t, "pid "), "pid %d", &pid); err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The worker holds the pipe: its end is the worker's.
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.end()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		syscall.Kill(pid, syscall.SIGKILL)
		t.Fatal("the worker outlived boot")
	}
}

// Workers that share a folder fetch once, and find what they share.
func TestRunShares(t *testing.T) {
	s := newJobServer(t)
	s.add(t, "", goRole, script(`echo "worker $1 $2"`))
	s.add(t, "more/data.txt", "", []byte("data"))
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			id := fmt.Sprint("w", i)
			code, out := s.boot(t, "go", id, process.DirVar+"="+dir).end()
			if code != 0 || !strings.Contains(out, "worker --worker=true --id="+id) {
				t.Errorf("%s: code %d\n%s", id, code, out)
			}
		})
	}
	wg.Wait()
	if n := s.gets.Load(); n != 2 {
		t.Errorf("%d artifacts were fetched, want 2", n)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "staged", "more", "data.txt")); err != nil || string(text) != "data" {
		t.Errorf("staged file: %q, %v", text, err)
	}
}

// A staged name that leaves the folder is refused before anything is fetched.
func TestRunRefusesLeavingName(t *testing.T) {
	s := newJobServer(t)
	s.add(t, "../evil", "", []byte("x"))
	code, out := s.boot(t, "go", "w1", "TMPDIR="+t.TempDir()).end()
	if code != 1 || !strings.Contains(out, `"../evil" leaves`) {
		t.Errorf("code %d\n%s", code, out)
	}
	if s.gets.Load() != 0 {
		t.Error("something was fetched")
	}
}

// What is missing from the command line, or at its address, is said.
func TestRunErrors(t *testing.T) {
	err := Run(t.Context(), Config{}, Go{})
	if err == nil || !strings.Contains(err.Error(), "--id") || !strings.Contains(err.Error(), "--provision_endpoint") {
		t.Errorf("empty config: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	err = Run(t.Context(), Config{ID: "w", Provision: address, Log: slog.New(slog.DiscardHandler)}, Go{})
	if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("dead endpoint: %v", err)
	}
}

// A signal while another worker is waited for ends boot at once, and leaves nothing.
func TestRunInterrupted(t *testing.T) {
	s := newJobServer(t)
	s.add(t, "", goRole, script("echo never"))
	dir := t.TempDir()
	lock := filepath.Join(dir, "lock")
	held := exec.Command("flock", "--no-fork", lock, "sh", "-c", "echo locked; exec sleep 3000")
	out, err := held.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Start(); err != nil {
		t.Skip("no flock(1):", err)
	}
	defer func() { held.Process.Kill(); held.Wait() }()
	if _, err := io.ReadFull(out, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	b := s.boot(t, "go", "w1", process.DirVar+"="+dir)
	b.await(t, "wait for another worker")
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, out := b.end(); code != 143 || strings.Contains(out, "never") {
		t.Errorf("code %d\n%s", code, out)
	}
}
