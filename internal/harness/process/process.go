// Package process runs one harness as a process group of its own: it starts it, keeps the last lines of what it writes,
// notices its end, and ends it with all of its children.
//
// On Linux the kernel ends the process when this one dies, kill -9 included.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DirVar names the environment variable by which a process learns of a folder that it shares with the job's other
// workers of its environment, and that is removed with the job.
const DirVar = "TRESTLE_HARNESS_DIR"

// drain is how long output may keep coming after the group's end. Only a process that left the group can still hold
// the pipes then; its output is nobody's.
const drain = time.Second

// Spec is what to run.
type Spec struct {
	// Path is the program's file.
	Path string
	// Args are the arguments, without the program's name.
	Args []string
	// Env is the whole environment, as KEY=value; a later entry wins.
	Env []string
	// Line, if set, takes each line that the process writes, without its end, in order per stream. It is called from
	// two goroutines. While it blocks, so does the process once its pipe is full.
	Line func(stream Stream, line string)
}

// Stream is where a line was written.
type Stream string

const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Status is how a process ended.
type Status struct {
	// Code is the exit code; -1 when a signal ended it.
	Code int
	// Signal ended the process; 0 when it exited by itself.
	Signal syscall.Signal
}

// String is for a person: "exit code 3", "signal 9 (killed)".
func (s Status) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("signal %d (%v)", int(s.Signal), s.Signal)
	}
	return fmt.Sprintf("exit code %d", s.Code)
}

// Process is a running or ended process. Its methods may be called concurrently.
type Process struct {
	pid    int
	tail   Tail
	wrote  atomic.Int64 // when the last line came, Unix nanoseconds
	done   chan struct{}
	status Status // once done is closed

	mu   sync.Mutex
	gone bool // the group must not be signalled any more: its id may be another's
}

// Start starts a process. The caller ends it with Stop, or waits for Done.
func Start(spec Spec) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	p.wrote.Store(time.Now().UnixNano())
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", spec.Path, err), outR.Close(), outW.Close())
	}
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env = spec.Env
	cmd.Stdout, cmd.Stderr = outW, errW
	cmd.SysProcAttr = groupAttr()

	started := make(chan error)
	go p.run(cmd, spec.Line, outR, errR, started)
	err = <-started
	// The child has its own copies; ours would keep the readers from seeing the end.
	err = errors.Join(err, outW.Close(), errW.Close())
	if err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	return p, nil
}

// run is the process's life. It keeps its thread, because the kernel sends the parent-death signal when the thread that
// started the child ends, not the process (prctl(2), PR_SET_PDEATHSIG).
func (p *Process) run(cmd *exec.Cmd, line func(Stream, string), outR, errR *os.File, started chan<- error) {
	defer close(p.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		started <- errors.Join(err, outR.Close(), errR.Close())
		return
	}
	p.pid = cmd.Process.Pid
	started <- nil

	var readers sync.WaitGroup
	for stream, r := range map[Stream]*os.File{Stdout: outR, Stderr: errR} {
		readers.Go(func() {
			p.read(stream, r, line)
		})
	}

	err := reap(cmd, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone = true
		signalGroup(p.pid, syscall.SIGKILL) // what it left behind
	})
	p.status = statusOf(cmd.ProcessState, err)

	deadline := time.Now().Add(drain)
	_ = outR.SetReadDeadline(deadline) // pipes support deadlines; without one we would wait for the end all the same
	_ = errR.SetReadDeadline(deadline)
	readers.Wait()
}

func (p *Process) read(stream Stream, r *os.File, line func(Stream, string)) {
	defer r.Close()
	// An error other than the end can only be the deadline that run sets: then the rest is nobody's.
	_ = lines(r, func(text string) {
		p.wrote.Store(time.Now().UnixNano())
		p.tail.add(text, stream == Stderr)
		if line != nil {
			line(stream, text)
		}
	})
	_, _ = io.Copy(io.Discard, r)
}

func statusOf(state *os.ProcessState, err error) Status {
	if state == nil {
		return Status{Code: -1}
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return Status{Code: -1, Signal: ws.Signal()}
	}
	if code := state.ExitCode(); code != 0 || err == nil {
		return Status{Code: code}
	}
	return Status{Code: -1}
}

// PID is the process's id, and its group's.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended, its group with it, and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status is how the process ended; only after Done.
func (p *Process) Status() Status {
	<-p.done
	return p.status
}

// Output is the last lines that the process wrote, at most some 50, each cut to a bounded length: see Tail.Lines.
func (p *Process) Output() []string { return p.tail.Lines() }

// Active is when the process last wrote a line, or when it started.
func (p *Process) Active() time.Time { return time.Unix(0, p.wrote.Load()) }

// Stop asks the process's group to end with SIGTERM, ends it with SIGKILL when it still runs as ctx ends, and returns
// when it is gone. The result says whether it had to be killed. It is fine to stop a process that has ended.
func (p *Process) Stop(ctx context.Context) (killed bool) {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return false
	case <-ctx.Done():
	}
	select {
	case <-p.done:
		return false
	default:
	}
	p.signal(syscall.SIGKILL)
	<-p.done
	return true
}

// Kill ends the process's group with SIGKILL, and does not wait for it. It is fine to kill a process that has ended.
func (p *Process) Kill() { p.signal(syscall.SIGKILL) }

func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		signalGroup(p.pid, sig)
	}
}
