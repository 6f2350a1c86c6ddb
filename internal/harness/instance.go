package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/harness/external"
	"trestle/internal/harness/process"
)

const (
	// exitWait is how long a broken stream waits for the exit status that explains it. A process's sockets are closed a
	// moment before it can be waited for, and a boot program ends after its worker.
	exitWait = 2 * time.Second
	// installing is how many times its limit a process may take that writes lines all the while.
	installing = 10
)

// processInstance is a harness in a process environment.
type processInstance struct {
	w       *worker
	process *process.Process
	command string
}

// startProcess starts the environment's command with the container contract's arguments. It runs in the server's
// working folder, so that relative paths in user code mean the same for all workers.
func (w *worker) startProcess(r *runnable) (instance, error) {
	dir, err := w.pool.folder(w.index)
	if err != nil {
		return nil, err
	}
	args := append(slices.Clone(r.args), w.contract()...)
	env := os.Environ()
	for k, v := range r.process.GetEnv() {
		env = append(env, k+"="+v)
	}
	env = append(env, process.DirVar+"="+dir)
	p, err := process.Start(process.Spec{Path: r.path, Args: args, Env: env, Line: w.line})
	if err != nil {
		return nil, err
	}
	return &processInstance{w: w, process: p, command: r.process.GetCommand()}, nil
}

// contract is the arguments by which Beam's container contract has a harness find its runner.
func (w *worker) contract() []string {
	return []string{
		"--id=" + w.id,
		"--logging_endpoint=" + w.endpoint,
		"--artifact_endpoint=" + w.endpoint,
		"--provision_endpoint=" + w.endpoint,
		"--control_endpoint=" + w.endpoint,
	}
}

// line passes on what the process or container wrote. It is no more than information: the SDKs log through the Fn API.
func (w *worker) line(stream process.Stream, text string) {
	w.pool.cfg.Logs(w.environment, w.id, &fnpb.LogEntry{
		Severity:    fnpb.LogEntry_Severity_INFO,
		Timestamp:   timestamppb.Now(),
		Message:     text,
		LogLocation: string(stream),
	})
}

func (i *processInstance) gone() <-chan struct{} { return i.process.Done() }

func (i *processInstance) waiting(began time.Time) (string, time.Duration) {
	text := fmt.Sprintf("process %d, command %q, is to connect to %s", i.process.PID(), i.command, i.w.pool.cfg.Endpoint)
	if out := i.process.Output(); len(out) > 0 {
		text += "; it wrote last: " + out[len(out)-1]
	}
	return text, i.w.patience(began, i.process.Active())
}

func (i *processInstance) ended(connected bool) error {
	status := i.process.Status()
	return &Exit{
		Worker:      i.w.id,
		Environment: i.w.environment,
		Code:        status.Code,
		Signal:      status.Signal,
		Connected:   connected,
		Output:      i.process.Output(),
		Errors:      i.w.errors.Lines(),
	}
}

func (i *processInstance) lost(cause error) error {
	timer := time.NewTimer(exitWait)
	defer timer.Stop()
	select {
	case <-i.process.Done():
		return i.ended(true)
	case <-timer.C:
		return fmt.Errorf("harness %s of environment %q broke its connection, though its process %d still runs: %w%s",
			i.w.id, i.w.environment, i.process.PID(), cause, lastLines(i.process.Output()))
	}
}

func (i *processInstance) late(waited time.Duration) error {
	return fmt.Errorf("harness %s (process %d, command %q) did not connect to %s within %v: is that address right for where it runs, and does the command start a Beam worker?%s",
		i.w.id, i.process.PID(), i.command, i.w.pool.cfg.Endpoint, waited.Round(time.Millisecond), lastLines(i.process.Output()))
}

func (i *processInstance) kill() (lost bool) {
	i.process.Kill()
	return false
}

func (i *processInstance) stop(hurry context.Context) error {
	ctx, cancel := context.WithTimeout(hurry, i.w.pool.cfg.Timeouts.Grace)
	defer cancel()
	i.process.Stop(ctx)
	return nil
}

// externalInstance is a harness that a worker pool runs.
type externalInstance struct {
	w       *worker
	worker  *external.Worker
	address string
}

func (w *worker) startExternal(r *runnable) (instance, error) {
	worker, err := external.Start(w.pool.ctx, r.external, w.id, w.pool.cfg.Endpoint)
	if err != nil {
		if w.pool.ctx.Err() != nil {
			return nil, ErrClosed
		}
		return nil, err
	}
	return &externalInstance{w: w, worker: worker, address: r.external.GetEndpoint().GetUrl()}, nil
}

func (i *externalInstance) gone() <-chan struct{}  { return nil }
func (i *externalInstance) lost(cause error) error { return i.worker.Lost(cause) }

func (i *externalInstance) waiting(began time.Time) (string, time.Duration) {
	return fmt.Sprintf("the worker pool at %s has started it, it is to connect to %s", i.address, i.w.pool.cfg.Endpoint),
		i.w.pool.cfg.Timeouts.External - time.Since(began)
}

func (i *externalInstance) ended(bool) error {
	return errors.New("the worker has ended") // gone is never closed
}

func (i *externalInstance) late(waited time.Duration) error {
	return fmt.Errorf("the worker pool at %s says that it started worker %s, but none connected to %s within %v: can that address be reached from the pool's host?",
		i.address, i.w.id, i.w.pool.cfg.Endpoint, waited.Round(time.Millisecond))
}

func (i *externalInstance) kill() (lost bool) { return true }

func (i *externalInstance) stop(hurry context.Context) error { return i.worker.Stop(hurry) }

// lastLines is the end of an error's text: the last lines of a process's output.
func lastLines(lines []string) string {
	if len(lines) == 0 {
		return "; it wrote nothing"
	}
	if len(lines) > shown {
		lines = lines[len(lines)-shown:]
	}
	return "; its last output:\n    " + strings.Join(lines, "\n    ")
}
