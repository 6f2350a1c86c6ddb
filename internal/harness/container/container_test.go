//go:build linux

package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"trestle/test/containers"
	"trestle/test/leaks"
)

// part is the variable of the environment by which the test binary plays a server that has a container.
const part = "TRESTLE_TEST_SERVER"

// engineOf is that of the engine's command line, where that is not docker's.
const engineOf = "TRESTLE_TEST_ENGINE"

// needed is the engine of this package's tests.
var needed containers.Shared

func TestMain(m *testing.M) {
	if name := os.Getenv(part); name != "" {
		play(name)
		return
	}
	leaks.Main(m, needed.Stop)
}

// play starts a container, says so, and waits.
func play(name string) {
	fail := func(err error) {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	e, err := Find(context.Background(), Config{Engine: os.Getenv(engineOf)})
	if err != nil {
		fail(err)
	}
	if _, err := e.Start(context.Background(), Spec{Image: containers.Image, Name: name, Job: name}); err != nil {
		fail(err)
	}
	fmt.Println("started")
	<-time.After(time.Hour)
}

func needEngine(t *testing.T, cfg Config) *Engine {
	t.Helper()
	switch err := needed.Need(); {
	case errors.Is(err, containers.ErrNone):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
	e, err := Find(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := containers.Docker(args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// server starts the test binary as a server of its own, whose container waits to connect until it is removed.
func server(t *testing.T, name string) *os.Process {
	t.Helper()
	process, out := serve(t, name)
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "started\n" {
		t.Fatalf("the server says %q, %v", line, err)
	}
	return process
}

// serve is server without waiting for what it says.
func serve(t *testing.T, name string) (*os.Process, io.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), part+"="+name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_, _ = containers.Docker("rm", "--force", name) // as a rule it is gone, or going
	})
	return cmd.Process, out
}

// A server that is killed takes its containers with it, and no others.
func TestKilledServer(t *testing.T) {
	needEngine(t, Config{})
	suffix := fmt.Sprint(os.Getpid())
	killed, living := "trestle-test-killed-"+suffix, "trestle-test-living-"+suffix
	process := server(t, killed)
	server(t, living)
	names := func() string {
		return docker(t, "ps", "--all", "--format", "{{.Names}}", "--filter", "name=trestle-test-.*-"+suffix)
	}
	if got := strings.Fields(names()); len(got) != 2 {
		t.Fatalf("containers %q, want both", got)
	}
	if err := process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Minute)
	for strings.Contains(names(), killed) {
		if time.Now().After(deadline) {
			t.Fatal("the killed server's container is still there")
		}
	}
	if got := names(); got != living {
		t.Errorf("containers %q, want %q", got, living)
	}
}

// Containers whose process is surely gone are swept, and no others: what a crash of the host leaves.
func TestSweep(t *testing.T) {
	needEngine(t, Config{})
	me, err := self()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	dead, foreign := me, me
	dead.PID = child.Process.Pid
	foreign.Host, foreign.PID = "another-host", child.Process.Pid
	suffix := fmt.Sprint("-", os.Getpid())
	for name, label := range map[string]string{"dead": dead.label(), "living": me.label(), "foreign": foreign.label(), "garbage": "{"} {
		name = "trestle-sweep-" + name + suffix
		docker(t, "create", "--name", name, "--label", "trestle.owner="+label, containers.Image)
		t.Cleanup(func() { _, _ = containers.Docker("rm", "--force", "--volumes", name) }) // one is gone
	}
	removed, err := Sweep(t.Context(), Config{})
	if err != nil || removed < 1 {
		t.Errorf("removed %d, %v", removed, err)
	}
	got := strings.Fields(docker(t, "ps", "--all", "--format", "{{.Names}}", "--filter", "name=trestle-sweep-.*"+suffix))
	slices.Sort(got)
	if want := []string{"trestle-sweep-foreign" + suffix, "trestle-sweep-garbage" + suffix, "trestle-sweep-living" + suffix}; !slices.Equal(got, want) {
		t.Errorf("containers %q, want %q", got, want)
	}
}

// A missing image is pulled once for all who wait, visibly: that it begins, goes on, and has ended. One that is there is
// not pulled again, unless the policy says so.
func TestPull(t *testing.T) {
	e := needEngine(t, Config{})
	e.progress = 50 * time.Millisecond
	r := newRegistry(t, "pulled")
	defer func() { docker(t, "rmi", "--force", r.image) }()
	said := make(chan string, 1000)
	say := func(text string) { said <- text }
	errs := make(chan error, 2)
	go func() { errs <- e.Image(t.Context(), r.image, say) }()
	begin := <-said
	if want := "pulling image " + r.image + " with docker on host "; !strings.HasPrefix(begin, want) {
		t.Errorf("the first message is %q, want %q", begin, want)
	}
	go func() { errs <- e.Image(t.Context(), r.image, say) }()
	select {
	case <-r.asked:
	case err := <-errs:
		t.Fatalf("nothing was pulled: %v", err)
	}
	if text := <-said; !strings.Contains(text, "pulling image "+r.image) || !strings.Contains(text, " now") {
		t.Errorf("the next message is %q", text)
	}
	r.release()
	for range 2 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	for len(said) > 0 {
		last = <-said
	}
	if !strings.HasPrefix(last, "pulled image "+r.image+" in ") {
		t.Errorf("the last message is %q", last)
	}
	pulls := r.pulls.Load()
	again, err := Find(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Image(t.Context(), r.image, say); err != nil || r.pulls.Load() != pulls || len(said) > 0 {
		t.Errorf("an image that is there: %v, %d pulls, %d messages", err, r.pulls.Load()-pulls, len(said))
	}
	always, err := Find(t.Context(), Config{Pull: PullAlways})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := always.Image(t.Context(), r.image, say); err != nil {
			t.Fatal(err)
		}
	}
	if len(said) != 2 || r.pulls.Load() == pulls {
		t.Errorf("with always, %d messages and %d pulls, want one pull", len(said), r.pulls.Load()-pulls)
	}
	c, err := again.Start(t.Context(), Spec{Image: r.image, Name: fmt.Sprint("trestle-test-pulled-", os.Getpid()), Args: []string{"--control_endpoint=127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// A pull that takes too long is given up, with image, engine and limit.
func TestPullLimit(t *testing.T) {
	e := needEngine(t, Config{PullLimit: 500 * time.Millisecond})
	r := newRegistry(t, "stalled")
	err := e.Image(t.Context(), r.image, func(string) {})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"pull image " + r.image + " with docker on host", "longer than 500ms", "--container-pull-limit"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

// A pull ends with the job that wants it.
func TestPullEnds(t *testing.T) {
	e := needEngine(t, Config{})
	r := newRegistry(t, "ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := make(chan error, 1)
	go func() { errs <- e.Image(ctx, r.image, func(string) {}) }()
	select {
	case <-r.asked:
	case err := <-errs:
		t.Fatalf("nothing was pulled: %v", err)
	}
	gone := errors.New("the job is gone")
	cancel(gone)
	if err := <-errs; !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
}

// Stop gives a container the time that it has, then kills it, and is as good on one that is gone.
func TestStop(t *testing.T) {
	e := needEngine(t, Config{})
	c, err := e.Start(t.Context(), Spec{Image: containers.Image, Name: fmt.Sprint("trestle-test-stop-", os.Getpid()), Args: []string{"--control_endpoint=127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	docker(t, "pause", c.spec.Name) // so that it cannot mind the signal
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if there, err := e.has(t.Context(), c.id); there || err != nil {
		t.Errorf("the container is there: %v, %v", there, err)
	}
}

// Where nothing was left, a sweep is one question: each server's start asks it.
func TestSweepOfNothing(t *testing.T) {
	dir := t.TempDir()
	engine, asked := dir+"/engine", dir+"/asked"
	if err := os.WriteFile(engine, []byte("#!/bin/sh\necho \"$*\" >>"+asked+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if removed, err := Sweep(t.Context(), Config{Engine: engine}); removed != 0 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
	questions, err := os.ReadFile(asked)
	if err != nil || strings.Count(string(questions), "\n") != 1 {
		t.Errorf("asked %q, %v", questions, err)
	}
}

// A question to an engine that hangs is given up, and says which.
func TestEngineHangs(t *testing.T) {
	dir := t.TempDir()
	stuck, asked := dir+"/stuck", dir+"/asked"
	if err := syscall.Mkfifo(asked, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stuck, []byte("#!/bin/sh\ncase $1 in *version)  echo Docker version 1; exit 0;; esac\necho waiting >&2\necho >"+asked+"\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		_, err := os.ReadFile(asked) // until the engine has spoken
		cancel(errors.Join(errors.New("the caller's time is over"), err))
	}()
	_, err := Find(ctx, Config{Engine: stuck})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"stuck on host", "does not answer", "the caller's time is over", "waiting"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}
