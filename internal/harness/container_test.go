//go:build linux

package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/fnapi"
	"trestle/internal/harness/container"
	"trestle/test/containers"
)

// engine is the one of this package's tests.
var engine containers.Shared

// needEngine skips a test on a machine without docker, and starts an engine with the worker's image otherwise.
func needEngine(t *testing.T) {
	t.Helper()
	switch err := engine.Need(); {
	case errors.Is(err, containers.ErrNone):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := containers.Docker(args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// contained is a pool of one docker environment whose worker plays the part. Nothing of it may be left at the end.
func (b *bench) contained(part string, change func(*Config)) *Pool {
	b.t.Helper()
	cfg := b.config(map[string]*pipepb.Environment{"py": dockerEnv(b.t, containers.Image)})
	cfg.Job = "job" + strconv.Itoa(os.Getpid()) + strings.ToLower(strings.NewReplacer("/", "", "_", "").Replace(b.t.Name()))
	cfg.Containers = container.Config{Pull: container.PullNever, Args: []string{"--env=" + containers.Part + "=" + part}}
	if change != nil {
		change(&cfg)
	}
	b.t.Cleanup(func() { // runs after the pool's end
		if left := docker(b.t, "ps", "--all", "--quiet", "--filter", "label=trestle.job="+cfg.Job); left != "" {
			b.t.Errorf("containers are left: %s", left)
		}
	})
	return b.pool(cfg)
}

func sessionError(t *testing.T, p *Pool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, err := p.Session(ctx, "py", 0)
	if err == nil {
		t.Fatal("no error")
	}
	return err
}

// Many callers get one worker from one container, which connects, is warm, is labelled, logs, and is removed by Close.
func TestContainers(t *testing.T) {
	needEngine(t)
	b := newBench(t)
	p := b.contained("connect", func(cfg *Config) {
		cfg.Containers.CPUs, cfg.Containers.Memory = 0.5, 64<<20
		cfg.Containers.Mounts = []string{cfg.Scratch + ":/data:ro"}
	})
	sessions := make([]*fnapi.Session, 8)
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
		if s == nil || s != sessions[i%2] {
			t.Fatalf("caller %d has a session of its own", i)
		}
	}
	job := p.cfg.Job
	names := strings.Fields(docker(t, "ps", "--format", "{{.Names}}", "--filter", "label=trestle.job="+job))
	slices.Sort(names)
	if want := []string{"trestle-" + job + "-e0-w0", "trestle-" + job + "-e0-w1"}; !slices.Equal(names, want) {
		t.Fatalf("containers %q, want %q", names, want)
	}
	limits := docker(t, "inspect", "--format", "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.NetworkMode}} {{.HostConfig.AutoRemove}} {{.HostConfig.Binds}}", names[0])
	if want := "500000000 67108864 host false [" + p.cfg.Scratch + ":/data:ro]"; limits != want {
		t.Errorf("the container has %q, want %q", limits, want)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions[:2] {
		<-s.Done()
		if !errors.Is(s.Err(), ErrClosed) {
			t.Errorf("the session ended with %v", s.Err())
		}
	}
	hasAll(t, "the logs", strings.Join(b.logs, "\n"), "worker "+job+"-e0-w0", "worker "+job+"-e0-w1")
}

// A container that ends at once is explained by its last words, its exit code, and where it was; and it is removed.
func TestContainerExits(t *testing.T) {
	needEngine(t)
	b := newBench(t)
	p := b.contained("exit", nil)
	err := sessionError(t, p)
	var exit *Exit
	if !errors.As(err, &exit) || exit.Code != 3 || exit.Connected || exit.BySignal() {
		t.Fatalf("error %v, want an Exit with code 3", err)
	}
	host, hostErr := os.Hostname()
	if hostErr != nil {
		t.Fatal(hostErr)
	}
	hasAll(t, "the error", err.Error(), "before it connected", "container trestle-"+p.cfg.Job+"-e0-w0",
		"image "+containers.Image, "docker on host "+host, "exit code 3", "last words 79", "the very last words")
	if err := sessionError(t, p); !errors.As(err, &exit) || exit.Worker != p.cfg.Job+"-e0-w0-r1" {
		t.Errorf("second start: %v", err)
	}
}

// What a boot program logs through the Fn API when it gives up is in the error: it is written nowhere else.
func TestContainerLogsWhy(t *testing.T) {
	needEngine(t)
	err := sessionError(t, newBench(t).contained("log", nil))
	hasAll(t, "the error", err.Error(), "exit code 1", "it last logged:\n    no such artifact\n    neither here nor there")
}

// An image without the program that it names is an error of the start, in the engine's words.
func TestContainerCannotStart(t *testing.T) {
	needEngine(t)
	err := sessionError(t, newBench(t).contained("connect", func(cfg *Config) {
		cfg.Containers.Args = append(cfg.Containers.Args, "--entrypoint=/no/such/boot")
	}))
	hasAll(t, "the error", err.Error(), "start container trestle-job", containers.Image, "/no/such/boot", "no such file")
}

// A container that is killed ends its session at once, and another takes its place.
func TestContainerKilled(t *testing.T) {
	needEngine(t)
	p := newBench(t).contained("connect", nil)
	s, err := p.Session(t.Context(), "py", 0)
	if err != nil {
		t.Fatal(err)
	}
	docker(t, "kill", "trestle-"+s.ID())
	<-s.Done()
	var exit *Exit
	if !errors.As(s.Err(), &exit) || !exit.Connected || !exit.BySignal() || exit.OOMKilled {
		t.Fatalf("the session ended with %v", s.Err())
	}
	hasAll(t, "the error", s.Err().Error(), "exit code 137", "killed from outside, or by the kernel", "container trestle-"+s.ID(), "worker "+s.ID())
	again, err := p.Session(t.Context(), "py", 0)
	if err != nil || again.ID() != s.ID()+"-r1" {
		t.Errorf("no new worker after the old one's end: %v", err)
	}
}

// A container that somebody removes is explained as well.
func TestContainerRemoved(t *testing.T) {
	needEngine(t)
	p := newBench(t).contained("connect", nil)
	s, err := p.Session(t.Context(), "py", 0)
	if err != nil {
		t.Fatal(err)
	}
	docker(t, "rm", "--force", "trestle-"+s.ID())
	<-s.Done()
	// How it ended is gone with it, unless the engine was asked in time.
	hasAll(t, "the error", s.Err().Error(), "ended", "container trestle-"+s.ID())
}

// A container that passes its memory limit is told from one that was killed, also when a child of its program did.
func TestContainerOutOfMemory(t *testing.T) {
	needEngine(t)
	for _, part := range []string{"eat", "eat-child"} {
		t.Run(part, func(t *testing.T) {
			p := newBench(t).contained(part, func(cfg *Config) { cfg.Containers.Memory = 48 << 20 })
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			s, err := p.Session(ctx, "py", 0)
			if err == nil {
				<-s.Done()
				err = s.Err()
			}
			var exit *Exit
			if !errors.As(err, &exit) || !exit.OOMKilled || !exit.BySignal() {
				t.Fatalf("error %v, want one that is out of memory", err)
			}
			hasAll(t, "the error", err.Error(), "out of memory", "at its limit of 48 MiB", "--container-memory")
		})
	}
}

// A container that never connects is given up; till then it is said what is awaited, and then what to look at.
func TestContainerNeverConnects(t *testing.T) {
	needEngine(t)
	b := newBench(t)
	p := b.contained("silent", func(cfg *Config) {
		cfg.Containers.Network, cfg.Containers.Advertise = "none", "10.9.8.7"
		cfg.Timeouts = Timeouts{Process: 1500 * time.Millisecond, Progress: 200 * time.Millisecond, Grace: time.Second}
	})
	_, port, _ := strings.Cut(b.endpoint, ":")
	hasAll(t, "the error", sessionError(t, p).Error(), "did not connect to 10.9.8.7:"+port, "--container-network", "--container-advertise", "container trestle-")
	b.mu.Lock()
	defer b.mu.Unlock()
	hasAll(t, "the messages", strings.Join(b.messages, "\n"), "waiting for worker", "is to connect to 10.9.8.7:"+port)
}

// Close in the middle of a start removes what was started.
func TestCloseWhileContainerStarts(t *testing.T) {
	needEngine(t)
	running := make(chan struct{}, 100)
	p := newBench(t).contained("silent", func(cfg *Config) {
		cfg.Logs = func(string, string, *fnpb.LogEntry) { running <- struct{}{} }
		cfg.Timeouts.Grace = time.Second
	})
	result := make(chan error, 1)
	go func() {
		_, err := p.Session(context.Background(), "py", 0)
		result <- err
	}()
	select {
	case <-running:
	case err := <-result:
		t.Fatalf("the container did not start: %v", err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("the caller got %v", err)
	}
}

// An image that is missing and must not be pulled is refused with what to do.
func TestImageMissing(t *testing.T) {
	needEngine(t)
	p := newBench(t).contained("connect", func(cfg *Config) {
		cfg.Environments["py"] = dockerEnv(t, "trestle-test/nowhere:1")
	})
	hasAll(t, "the error", sessionError(t, p).Error(), `environment "py"`, "image trestle-test/nowhere:1 is not there for docker on host",
		`policy "never"`, "docker pull trestle-test/nowhere:1", "--container-pull=missing")
}

// A pull that fails names image, engine and host, with the engine's own words.
func TestPullFails(t *testing.T) {
	needEngine(t)
	b := newBench(t)
	p := b.contained("connect", func(cfg *Config) {
		cfg.Environments["py"] = dockerEnv(t, "127.0.0.1:1/nowhere:1")
		cfg.Containers.Pull = container.PullMissing
	})
	hasAll(t, "the error", sessionError(t, p).Error(), "pull image 127.0.0.1:1/nowhere:1 with docker on host", "exit code 1", "connection refused")
	hasAll(t, "the messages", strings.Join(b.messages, "\n"), "pulling image 127.0.0.1:1/nowhere:1 with docker on host")
}

// An engine whose daemon is down is an error at once: when a pipeline is checked, and in the middle of a job, where
// nothing that is known of the container is lost. What could not be removed is said by Close.
func TestEngineDown(t *testing.T) {
	needEngine(t)
	t.Setenv("DOCKER_HOST", os.Getenv("DOCKER_HOST")) // puts it back at the end
	dir := filepath.Join(t.TempDir(), "engine")
	stop, err := containers.Start(dir)
	if err != nil {
		t.Skipf("no engine of one's own can be started here: %v", err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := containers.Import(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	cfg := b.config(map[string]*pipepb.Environment{"py": dockerEnv(t, containers.Image)})
	p := NewPool(cfg)
	s, err := p.Session(t.Context(), "py", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := containers.Down(dir); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	// What the container has written may be lost with its engine.
	hasAll(t, "the session's error", s.Err().Error(), "container trestle-job-e0-w0", "docker on host", "harness job-e0-w0", "not known")
	down := "Cannot connect to the Docker daemon"
	if _, err := p.Session(t.Context(), "py", 0); err == nil || !strings.Contains(err.Error(), down) {
		t.Errorf("another start: %v", err)
	}
	if err := p.Close(t.Context()); err == nil {
		t.Error("Close does not say that a container is left")
	} else {
		hasAll(t, "Close", err.Error(), "container trestle-job-e0-w0", "is left", down)
	}
	err = Check(t.Context(), cfg.Environments, container.Config{}, b.endpoint)
	if err == nil {
		t.Fatal("the environment is accepted")
	}
	hasAll(t, "the check", err.Error(), "environment py: ", containers.Image, "docker on host", "does not answer", down)
}

// A network of the container's own and a server on the loopback are refused together, before anything is started.
func TestContainerCannotReach(t *testing.T) {
	needEngine(t)
	err := Check(t.Context(), map[string]*pipepb.Environment{"py": dockerEnv(t, containers.Image)}, container.Config{Network: "bridge"}, "127.0.0.1:8099")
	if err == nil {
		t.Fatal("the environment is accepted")
	}
	hasAll(t, "the check", err.Error(), "bridge", "127.0.0.1:8099", "--container-advertise")
}

// The signal's number is told from an exit code, and both ways to be out of memory say so.
func TestExitOfContainer(t *testing.T) {
	for _, c := range []struct {
		exit Exit
		want string
		by   bool
	}{
		{Exit{Code: 137}, "signal 9", true},
		{Exit{Code: 1, OOMKilled: true}, "out of memory: the kernel killed it, or a process in it)", true},
		{Exit{Code: 137, OOMKilled: true, MemoryLimit: 1 << 30}, "at its limit of 1.0 GiB", true},
		{Exit{Code: 137, MemoryLimit: 1 << 30}, "killed from outside, or by the kernel at its memory limit of 1.0 GiB", true},
		{Exit{Code: 127}, "a command was not found", false},
		{Exit{Code: 3, Reason: "the engine's reason"}, "exit code 3: the engine's reason", false},
	} {
		c.exit.Worker, c.exit.Environment, c.exit.Container = "w", "e", "container c (image i, docker on host h)"
		if c.exit.BySignal() != c.by {
			t.Errorf("%+v: by signal is %v", c.exit, c.exit.BySignal())
		}
		hasAll(t, fmt.Sprintf("%+v", c.exit), c.exit.Error(), c.want, "container c (image i, docker on host h)")
	}
	if (&Exit{Code: 128 + int(syscall.SIGTERM)}).signal() != syscall.SIGTERM {
		t.Error("143 is not SIGTERM")
	}
}
