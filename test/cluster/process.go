package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what runs on a host.
type Command struct {
	// Name tells it from the host's other processes, and names its log; two do not run under one at a time.
	Name string
	// Argv is the command and its arguments, by paths as the host sees them; Env adds to what every process on a host gets.
	Argv, Env []string
	// Dir is where it runs; the host's own folder by default.
	Dir string
}

// Process is a process on a host, in a process group of its own. Safe for concurrent use.
type Process struct {
	// PID is as this process sees it; on an isolated host the process itself has another.
	PID int
	// Log is the file with all that it printed, and what others printed before it under the same name.
	Log string

	host    *Host
	command Command
	id      identity

	ended chan struct{}
	mu    sync.Mutex
	err   error
}

// Start starts a process. It is up to the caller to end it, or to the end of the host.
func (h *Host) Start(c Command) (*Process, error) {
	return h.start(c, nil)
}

// start is Start, with standard output into a file of the caller's where stdout is not nil.
func (h *Host) start(c Command, stdout *os.File) (*Process, error) {
	p := &Process{Log: h.logFile(c.Name), host: h, command: c, ended: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if stdout == nil {
		stdout = log
	}
	cmd := &exec.Cmd{Path: c.Argv[0], Args: c.Argv, Dir: c.Dir, Env: append(h.environment(), c.Env...), Stdout: stdout, Stderr: log}
	if !strings.Contains(c.Argv[0], "/") {
		if cmd.Path, err = exec.LookPath(c.Argv[0]); err != nil {
			return nil, fmt.Errorf("on host %s: %w", h.Name, err)
		}
	}
	if cmd.Dir == "" {
		cmd.Dir = h.Dir()
	}
	// A session of its own: no terminal's signals reach it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := h.launch(cmd); err != nil {
		return nil, fmt.Errorf("start %s on host %s: %w", strings.Join(c.Argv, " "), h.Name, err)
	}
	p.PID = cmd.Process.Pid
	if p.id, err = identify(p.PID); err != nil {
		return nil, err // a child that was not waited for is still there
	}
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.ended)
	}()
	return p, h.remember(p)
}

// Launch starts a command inside the host, with input and output as the caller has set them; Env adds to what every process
// on a host gets. It is for a person's commands.
func (h *Host) Launch(cmd *exec.Cmd) error {
	cmd.Env = append(h.environment(), cmd.Env...)
	if cmd.Dir == "" {
		cmd.Dir = h.Dir()
	}
	return h.launch(cmd)
}

// launch starts a command inside the host's namespaces.
func (h *Host) launch(cmd *exec.Cmd) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return errors.New("the host is down")
	}
	if h.cluster.Plain != "" {
		return cmd.Start()
	}
	return inNamespaces(h.init.PID, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWPID, cmd.Start)
}

// Run runs a command to its end and returns what it wrote to standard output. When ctx ends first, the command's process
// group is killed. An error has the end of the log in it.
func (h *Host) Run(ctx context.Context, c Command) (stdout string, err error) {
	file, err := os.CreateTemp("", "stdout")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	p, err := h.start(c, file)
	if err != nil {
		return "", err
	}
	select {
	case <-p.Ended():
	case <-ctx.Done():
		err = errors.Join(fmt.Errorf("%s on host %s: %w", c.Name, h.Name, context.Cause(ctx)), p.Kill())
	}
	if err == nil && p.Err() != nil {
		err = fmt.Errorf("%s on host %s: %w", strings.Join(c.Argv, " "), h.Name, p.Err())
	}
	if _, seekErr := file.Seek(0, io.SeekStart); seekErr != nil {
		return "", errors.Join(err, seekErr)
	}
	text, readErr := io.ReadAll(file)
	if err != nil {
		err = fmt.Errorf("%w\n%s\n%s", err, strings.TrimSpace(string(text)), tail(p.Log))
	}
	return string(text), errors.Join(err, readErr)
}

// Command is what was started.
func (p *Process) Command() Command { return p.command }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Err is how the process ended: nil for exit code 0, and while it runs.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Kill ends the process and its group by SIGKILL, and waits for its end. What has ended already is no error.
func (p *Process) Kill() error {
	if !p.Running() || !p.id.alive() {
		return nil
	}
	if err := unix.Kill(-p.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s on host %s: %w", p.command.Name, p.host.Name, err)
	}
	return p.await("SIGKILL")
}

// KillAlone ends the process by SIGKILL, and not what it has started: as `kill -9 PID` does, or the kernel when memory runs
// out. It waits for the end. What has ended already is no error.
func (p *Process) KillAlone() error { return p.id.kill() }

// Stop asks the process to end (SIGTERM) and waits until it has; one that has not after Patience is killed, and that is an
// error.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	if err := unix.Kill(p.PID, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop %s on host %s: %w", p.command.Name, p.host.Name, err)
	}
	if err := p.await("SIGTERM"); err != nil {
		return errors.Join(err, p.Kill())
	}
	return nil
}

// Signal sends a signal to the process alone: SIGSTOP makes it hang.
func (p *Process) Signal(s syscall.Signal) error { return unix.Kill(p.PID, s) }

func (p *Process) await(after string) error {
	select {
	case <-p.ended:
		return nil
	case <-time.After(Patience):
		return fmt.Errorf("%s on host %s ran on for %v after %s\n%s", p.command.Name, p.host.Name, Patience, after, tail(p.Log))
	}
}

// Restart kills the process if it still runs, and starts the same command again.
func (p *Process) Restart() (*Process, error) {
	if err := p.Kill(); err != nil {
		return nil, err
	}
	return p.host.Start(p.command)
}

func (h *Host) logFile(name string) string {
	return filepath.Join(h.cluster.options.Dir, "log", h.Name+"-"+name+".log")
}

// remembered is what a kept cluster's folder tells of a process.
type remembered struct {
	Identity identity
	Command  Command
}

func (h *Host) recordFile(name string) string {
	return filepath.Join(h.cluster.options.Dir, "run", h.Name+"-"+name+".json")
}

// remember writes a process down for Process, in a cluster that is kept.
func (h *Host) remember(p *Process) error {
	if !h.cluster.options.Keep {
		return nil
	}
	text, err := json.Marshal(remembered{p.id, p.command})
	if err != nil {
		return err
	}
	return os.WriteFile(h.recordFile(p.command.Name), text, 0o600)
}

// Process finds the process that was started last under a name on a host of a kept cluster, by whatever process.
func (h *Host) Process(name string) (*Process, error) {
	text, err := os.ReadFile(h.recordFile(name))
	if err != nil {
		return nil, fmt.Errorf("host %s has no process %s: %w", h.Name, name, err)
	}
	var r remembered
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	p := &Process{PID: r.Identity.PID, Log: h.logFile(name), host: h, command: r.Command, id: r.Identity, ended: make(chan struct{})}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) || err == nil && !p.id.alive() {
		if err == nil {
			closeFD(fd)
		}
		p.err = errors.New("it has ended")
		close(p.ended)
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	go func() {
		defer closeFD(fd)
		err := awaitEnd(fd, p.PID, -1)
		p.mu.Lock()
		p.err = errors.Join(err, errors.New("it has ended"))
		p.mu.Unlock()
		close(p.ended)
	}()
	return p, nil
}
