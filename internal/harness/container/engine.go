package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"trestle/internal/harness/process"
	"trestle/internal/kit/here"
)

// ErrNone is Find's error when there is no engine on this host: neither configured nor found.
var ErrNone = errors.New("no container engine: none of docker, podman and nerdctl is on the PATH")

const (
	// answer bounds a question to an engine. One that takes longer is stuck, or the network to it is.
	answer = 15 * time.Second
	// told is how many of an engine's last lines an error has.
	told = 8
	// most bounds, in bytes, what is kept of an engine's answer. An inspection of a container has some 10 KiB.
	most = 4 << 20
)

// kinds are the engines' names, in the order in which they are looked for. Each bounds what a container's output may
// take on disk in its own words: by default it may fill the disk.
var kinds = []struct {
	name string
	logs []string
}{
	{"docker", []string{"--log-driver=local", "--log-opt=max-size=16m", "--log-opt=max-file=2"}},
	{"podman", []string{"--log-driver=k8s-file", "--log-opt=max-size=32mb"}},
	{"nerdctl", []string{"--log-driver=json-file", "--log-opt=max-size=16m", "--log-opt=max-file=2"}},
}

// Engine is a container engine on this host that has answered. Its methods may be called concurrently.
type Engine struct {
	cfg   Config
	name  string // as a person knows it
	path  string
	shell string   // the host's; empty when it has none
	logs  []string // bounds for a container's output
	owner string   // the label's value

	progress time.Duration // between two messages of a pull

	mu     sync.Mutex
	images map[string]*obtaining
}

// Find finds the engine that cfg names, or the first on the PATH, and asks it whether it is there. Errors: ErrNone; why
// the one that is configured, or was found, cannot be used.
func Find(ctx context.Context, cfg Config) (*Engine, error) {
	e, err := locate(cfg)
	if err != nil {
		return nil, err
	}
	version, err := e.ask(ctx, "--version")
	if err != nil {
		return nil, fmt.Errorf("%s is no container engine that answers: %w", e, err)
	}
	// It may be another than its name says: podman stands in for docker on many hosts, and then calls itself docker in its
	// shorter answer. The longer one fails when the daemon is down, which the next question finds out.
	more, _ := e.ask(ctx, "version")
	e.logs = kinds[0].logs
	for _, k := range kinds[1:] {
		if strings.Contains(strings.ToLower(version+more), k.name) {
			e.logs = k.logs
		}
	}
	if _, err := e.owned(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// locate is Find without a question to the engine, of which it is not known yet what kind it is, and whether it answers.
func locate(cfg Config) (*Engine, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	path, err := lookup(cfg.Engine)
	if err != nil {
		return nil, err
	}
	owner, err := self()
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, name: filepath.Base(path), path: path, owner: owner.label(), progress: progress, images: map[string]*obtaining{}}
	if e.shell, err = exec.LookPath("sh"); err != nil {
		e.shell = "" // a killed server's containers are then the next one's to remove
	}
	return e, nil
}

func lookup(engine string) (string, error) {
	if engine != "" {
		path, err := exec.LookPath(engine)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return "", fmt.Errorf("the container engine %q (--container-engine) is not on host %s: %w", engine, here.Host(), err)
		}
		return path, nil
	}
	for _, k := range kinds {
		if path, err := exec.LookPath(k.name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", ErrNone
}

// String is for a person: "docker on host a1", with the address of an engine elsewhere.
func (e *Engine) String() string {
	s := e.name + " on host " + here.Host()
	for _, v := range []string{"DOCKER_HOST", "CONTAINER_HOST"} {
		if address := os.Getenv(v); address != "" {
			s += " (" + v + "=" + address + ")"
		}
	}
	return s
}

// Reach is Config.Reach.
func (e *Engine) Reach(server string) (string, error) { return e.cfg.Reach(server) }

// owned are the ids of the containers that have an owner. All three engines answer this question, and all alike.
func (e *Engine) owned(ctx context.Context) ([]string, error) {
	out, err := e.ask(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label="+ownerLabel)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", e, err)
	}
	return strings.Fields(out), nil
}

// ask is run with the time that a question gets.
func (e *Engine) ask(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answer, fmt.Errorf("no answer within %v", answer))
	defer cancel()
	return e.run(ctx, args...)
}

// run runs the engine's command line to its end and returns what it wrote to standard output. An error has its last
// lines.
func (e *Engine) run(ctx context.Context, args ...string) (string, error) {
	return e.runAs(ctx, process.Spec{Path: e.path, Args: args}, args[0])
}

// runAs is run for another program that calls the engine's; verb is what is done, for errors.
func (e *Engine) runAs(ctx context.Context, spec process.Spec, verb string) (string, error) {
	var out strings.Builder
	spec.Line = func(stream process.Stream, line string) {
		if stream == process.Stdout && out.Len() < most { // one goroutine a stream
			out.WriteString(line)
			out.WriteByte('\n')
		}
	}
	p, err := e.start(spec)
	if err != nil {
		return "", err
	}
	status := finish(ctx, p)
	return strings.TrimSpace(out.String()), e.outcome(ctx, status, p.Output(), verb)
}

// finish waits for the end of a command line, which comes with ctx's end.
func finish(ctx context.Context, p *process.Process) process.Status {
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(ctx)
	}
	return p.Status()
}

// outcome is the error of a command line that has ended, nil when it ended well: why it was ended, or what it wrote last.
func (e *Engine) outcome(ctx context.Context, status process.Status, output []string, verb string) error {
	if status == (process.Status{}) {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s %s: %w%s", e.name, verb, cause, lastLines(output))
	}
	return fmt.Errorf("%s %s: %w", e.name, verb, &failure{status, output})
}

// start starts the engine's command line. As a process of a group of its own it is not ended by a terminal's interrupt
// in the middle of what it does, and it ends with this process.
func (e *Engine) start(spec process.Spec) (*process.Process, error) {
	spec.Env = os.Environ()
	if spec.Path == "" {
		spec.Path = e.path
	}
	return process.Start(spec)
}

// failure is the error of a command line that ended badly: how, and its own words when there are any.
type failure struct {
	status process.Status
	output []string
}

func (f *failure) Error() string { return f.status.String() + lastLines(f.output) }

// brokenOff tells whether a signal ended the command line, or what a shell ran for it.
func brokenOff(err error) bool {
	var f *failure
	return errors.As(err, &f) && (f.status.Signal != 0 || f.status.Code > signalled && f.status.Code <= signalled+64)
}

// signalled is what a shell adds to the number of the signal that ended what it ran.
const signalled = 128

// lastLines is the end of an error's text.
func lastLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	lines = lines[max(0, len(lines)-told):]
	if len(lines) == 1 {
		return ": " + lines[0]
	}
	return ":\n    " + strings.Join(lines, "\n    ")
}
