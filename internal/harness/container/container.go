package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"trestle/internal/harness/process"
)

const (
	// outage is how long an engine may be silent before its containers are taken for lost. An engine that is restarted
	// may keep its containers, and is back within seconds.
	outage = 30 * time.Second
	// again is the pause between two questions to an engine that did not answer.
	again = time.Second
	// drain is how long a container's output may keep coming after its end.
	drain = 2 * time.Second
	// idLength is that of a container's id; names are not so long.
	idLength = 64
)

// Spec is what to run.
type Spec struct {
	// Image is on the host: see Engine.Image.
	Image string
	// Name is what the container is called; unique on the engine. Letters, digits, '_', '.' and '-'.
	Name string
	// Job and Worker become labels, for people who look at the engine.
	Job, Worker string
	// Args are the entry point's arguments.
	Args []string
	// Line, if set, takes each line of output, as in process.Spec.
	Line func(stream process.Stream, line string)
}

// State is how a container is, or ended.
type State struct {
	Running bool
	// Code is the exit code of one that ended: 128+n for signal n.
	Code int
	// OOMKilled says that the kernel ended it, or a process in it, for passing its memory limit.
	OOMKilled bool
	// Reason is the engine's, of one that could not run.
	Reason string
	// Removed says that somebody has removed it.
	Removed bool
	// Lost is why nothing is known of it: the engine does not answer any more.
	Lost error
}

// Container is a started container. Its methods may be called concurrently.
type Container struct {
	engine *Engine
	spec   Spec
	id     string
	logs   *process.Process // the command line that reads the output
	done   chan struct{}
	state  State // once done is closed

	ctx    context.Context // ends when nobody waits for the container's end any more
	cancel context.CancelFunc
	stop   sync.Once
	left   error // the result of stop
}

// Start creates and starts a container. The caller calls Stop, whatever becomes of it. After an error nothing is left, as
// far as the engine still answers. Once begun it does not end early: a creation that is broken off would leave a
// container that nobody knows. When this process is killed meanwhile, the container goes with it (keeper).
func (e *Engine) Start(ctx context.Context, spec Spec) (*Container, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), making, fmt.Errorf("no answer within %v", making))
	defer cancel()
	id, first, err := e.makeSurely(ctx, spec)
	if err != nil {
		return nil, err
	}
	c := &Container{engine: e, spec: spec, id: id, done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	// From its first line on, whenever the reader starts.
	if c.logs, err = e.start(process.Spec{Args: []string{"logs", "--follow", c.id}, Line: spec.Line}); err != nil {
		err = errors.Join(fmt.Errorf("read the output of %s: %w", c, err), e.remove(c.id))
		c.cancel()
		_, _ = first(c.ctx)
		return nil, err
	}
	go c.watch(first)
	return c, nil
}

// create is the command line that makes a container. What the user added comes last, and wins.
func (e *Engine) create(spec Spec) []string {
	args := slices.Concat([]string{"create", "--pull=never", "--name=" + spec.Name,
		"--label=" + ownerLabel + "=" + e.owner, "--label=" + jobLabel + "=" + spec.Job, "--label=" + workerLabel + "=" + spec.Worker}, e.logs)
	if network := e.cfg.network(runtime.GOOS); network != "" {
		args = append(args, "--network="+network)
	}
	if e.cfg.CPUs > 0 {
		args = append(args, "--cpus="+strconv.FormatFloat(e.cfg.CPUs, 'f', -1, 64))
	}
	if e.cfg.Memory > 0 {
		args = append(args, "--memory="+strconv.FormatInt(e.cfg.Memory, 10)+"b")
	}
	for _, m := range e.cfg.Mounts {
		args = append(args, "--volume="+m)
	}
	return slices.Concat(args, e.cfg.Args, []string{spec.Image}, spec.Args)
}

// watch waits for the container's end, however often the engine's own waiting breaks.
func (c *Container) watch(first wait) {
	defer close(c.done)
	var silent time.Time // since when the engine has not answered
	for wait := first; ; wait = c.wait {
		out, err := wait(c.ctx)
		if c.ctx.Err() != nil {
			break
		}
		state, unknown := c.Inspect(c.ctx)
		switch {
		case unknown == nil && state.Removed:
			// The code that the engine answered with before the container went is all that is left of it.
			if code, bad := strconv.Atoi(out); err == nil && bad == nil {
				state.Code = code
			}
			fallthrough
		case unknown == nil && !state.Running:
			c.state = state
			c.drain()
			return
		case unknown == nil:
			silent = time.Time{}
		case silent.IsZero():
			silent = time.Now()
		case time.Since(silent) > outage:
			c.state = State{Lost: fmt.Errorf("for %v now: %w", time.Since(silent).Round(time.Second), unknown)}
			c.drain()
			return
		}
		if !pause(c.ctx, again) {
			break
		}
	}
	// Stop has removed it, or could not; its end is of no interest any more.
	c.drain()
}

// wait waits for the container's end once more.
func (c *Container) wait(ctx context.Context) (string, error) { return c.engine.await(ctx, c.id) }

// guard is what of keeper is left to do when the engine's waiting has broken.
const guard = `trap '"$1" rm --force --volumes "$2"; exit 1' TERM; "$1" wait "$2" & wait $!`

// await runs the engine's wait and returns what it says, the exit code.
func (e *Engine) await(ctx context.Context, id string) (string, error) {
	if e.shell == "" {
		return e.run(ctx, "wait", id)
	}
	return e.runAs(ctx, process.Spec{Path: e.shell, Args: []string{"-c", guard, "sh", e.path, id}}, "wait")
}

// drain waits for the reader of the output, but not for ever: one that does not notice the container's end must not hide
// it.
func (c *Container) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	select {
	case <-c.logs.Done():
	case <-ctx.Done():
		c.logs.Stop(ctx)
	}
}

// pause is false when ctx has ended before the time is over.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Inspect asks the engine how the container is; an error when it does not answer.
func (c *Container) Inspect(ctx context.Context) (State, error) {
	out, err := c.engine.ask(ctx, "inspect", "--type=container", "--format={{json .State}}", c.id)
	if err != nil {
		there, silent := c.engine.has(ctx, c.id)
		switch {
		case silent != nil:
			return State{}, silent
		case there:
			return State{}, err
		default:
			return State{Removed: true}, nil
		}
	}
	var answer struct {
		Running, OOMKilled bool
		ExitCode           int
		Error              string
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return State{}, fmt.Errorf("%s tells the state of %s as %q: %w", c.engine, c, out, err)
	}
	return State{Running: answer.Running, Code: answer.ExitCode, OOMKilled: answer.OOMKilled, Reason: answer.Error}, nil
}

// has tells whether there is such a container, by its id or name.
func (e *Engine) has(ctx context.Context, container string) (bool, error) {
	filter := "name=^/?" + container + "$" // docker's names begin with a slash
	if len(container) == idLength && strings.Trim(container, "0123456789abcdef") == "" {
		filter = "id=" + container
	}
	out, err := e.ask(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", filter)
	if err != nil {
		return false, fmt.Errorf("%s does not answer: %w", e, err)
	}
	return out != "", nil
}

// remove ends and removes a container by id or name, with its anonymous volumes. That it is gone already is as good.
func (e *Engine) remove(container string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*answer)
	defer cancel()
	for {
		_, err := e.ask(ctx, "rm", "--force", "--volumes", container)
		if err == nil {
			return nil
		}
		there, silent := e.has(ctx, container)
		if silent == nil && !there {
			return nil
		}
		// Somebody else may be removing it, which the engine calls an error.
		if silent != nil || !pause(ctx, again/4) {
			return fmt.Errorf("remove container %s: %w", container, err)
		}
	}
}

// String is for a person: the container's name, its image, engine and host.
func (c *Container) String() string {
	return fmt.Sprintf("container %s (image %s, %s)", c.spec.Name, c.spec.Image, c.engine)
}

// MemoryLimit is the container's limit as far as it was configured, in bytes; 0 is none.
func (c *Container) MemoryLimit() int64 { return c.engine.cfg.Memory }

// Done is closed when the container has ended, or is taken for lost, and its output has been read.
func (c *Container) Done() <-chan struct{} { return c.done }

// State is how the container ended; only after Done.
func (c *Container) State() State {
	<-c.done
	return c.state
}

// Output is the last lines that the container wrote, as process.Process has them.
func (c *Container) Output() []string { return c.logs.Output() }

// Active is when the container last wrote a line, or when it was started.
func (c *Container) Active() time.Time { return c.logs.Active() }

// Stop asks the container to end, by the signal that its image wants, removes it, and returns when it is gone or the
// engine does not answer. It has the time until ctx ends before it is killed. An error says what may be left; the next
// process's Sweep finds it. Later calls wait for the first, and return the same.
func (c *Container) Stop(ctx context.Context) error {
	c.stop.Do(func() { c.left = c.end(ctx) })
	return c.left
}

func (c *Container) end(ctx context.Context) error {
	select {
	case <-c.done:
	default:
		// The engine's own grace is only its upper bound. Whatever comes of it, the removal decides.
		grace := time.Minute
		if deadline, ok := ctx.Deadline(); ok {
			grace = time.Until(deadline)
		}
		if seconds := int(grace / time.Second); seconds > 0 && ctx.Err() == nil {
			_, _ = c.engine.run(ctx, "stop", "-t", strconv.Itoa(seconds), c.id)
		}
	}
	err := c.engine.remove(c.id)
	c.cancel()
	<-c.done
	if err != nil {
		return fmt.Errorf("%s is left, until the next server on this host sweeps: %w", c, err)
	}
	return nil
}
