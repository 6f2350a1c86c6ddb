package container

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trestle/internal/harness/process"
)

const (
	// making bounds the creation and the start of a container whose image is there: on a busy disk seconds, seldom more.
	making = 2 * time.Minute
	// attempts bounds how often a container is made whose making was broken off.
	attempts = 6
)

// keeper makes a container by the engine ($1) and under the name ($2) given, with the arguments that follow, starts it, says so, and
// waits for its end: one process for all of it. It is sent SIGTERM when this process dies, kill -9 included (process.Start); then
// it lets the step under way come to its end, since the engine goes on with that whatever becomes of who asked for it, and removes
// the container. A harness may not notice for long that its server is gone. SIGPIPE, here or there, means that this process is
// dead, and may come before SIGTERM does.
const keeper = `e=$1 n=$2; shift 2
remove() { "$e" rm --force --volumes "$n" >/dev/null 2>&1; }
failed() { [ "$1" -le 128 ] || remove; exit "$1"; }
trap 'remove; exit 1' TERM PIPE
"$e" "$@" || failed $?
echo ` + made + `
"$e" start "$n" >/dev/null || failed $?
echo ` + begun + `
"$e" wait "$n" & wait $!`

// What a keeper says between its steps; no id is such.
const (
	made  = "made"
	begun = "begun"
)

// keeping is a keeper at work. Only the readers of its output write the fields; others read id once started is closed, and
// all of them once the process has ended.
type keeping struct {
	*process.Process
	started chan struct{} // closed when the container has been started
	steps   int           // how many have been done
	id      string        // what the engine calls the container, once it is made
	last    string        // the latest line
	errs    process.Tail
}

func (k *keeping) line(stream process.Stream, line string) {
	switch {
	case stream == process.Stderr:
		k.errs.Add(line)
		return
	case k.steps == 0 && line == made:
		k.steps, k.id = 1, k.last
	case k.steps == 1 && line == begun:
		k.steps = 2
		close(k.started)
	}
	k.last = line
}

// wait waits for the container's end.
type wait func(ctx context.Context) (code string, err error)

// make makes a container and starts it. It returns the container's id and the first wait for its end. When it says that the
// making was broken off, what becomes of the container is not known; after another error nothing is left, as far as the
// engine still answers.
func (e *Engine) make(ctx context.Context, spec Spec) (id string, first wait, err error) {
	if e.shell == "" {
		return e.makeAlone(ctx, spec)
	}
	k := &keeping{started: make(chan struct{})}
	k.Process, err = e.start(process.Spec{Path: e.shell, Args: slices.Concat([]string{"-c", keeper, "sh", e.path, spec.Name}, e.create(spec)), Line: k.line})
	if err != nil {
		return "", nil, e.failed(spec, "create", err)
	}
	select {
	case <-k.started:
	case <-k.Done():
	case <-ctx.Done():
		k.Stop(ctx)
	}
	select {
	case <-k.started: // even if it has ended since
		return k.id, func(ctx context.Context) (string, error) {
			status := finish(ctx, k.Process)
			return k.last, e.outcome(ctx, status, k.errs.Lines(), "wait")
		}, nil
	default:
	}
	verb := "create"
	if k.steps == 1 {
		verb = "start"
	}
	err = e.failed(spec, verb, e.outcome(ctx, k.Status(), k.errs.Lines(), verb))
	if k.steps == 1 {
		err = errors.Join(err, e.remove(k.id))
	}
	return "", nil, err
}

// failed says which container could not be made, or started, for this reason.
func (e *Engine) failed(spec Spec, verb string, err error) error {
	if verb == "start" {
		return fmt.Errorf("start %s: %w", &Container{engine: e, spec: spec}, err)
	}
	return fmt.Errorf("make a container of image %s with %s: %w", spec.Image, e, err)
}

// makeAlone is make on a host that has no shell: what this process leaves when it is killed is then the next one's to remove.
func (e *Engine) makeAlone(ctx context.Context, spec Spec) (id string, first wait, err error) {
	out, err := e.run(ctx, e.create(spec)...)
	if err != nil {
		return "", nil, e.failed(spec, "create", err)
	}
	id = out[strings.LastIndexByte(out, '\n')+1:]
	if _, err := e.run(ctx, "start", id); err != nil {
		return "", nil, errors.Join(e.failed(spec, "start", err), e.remove(id))
	}
	return id, func(ctx context.Context) (string, error) { return e.await(ctx, id) }, nil
}

// makeSurely is make, and after an error nothing is left. When the command line is killed, the engine may go on making what it
// was asked for: a container that nobody would know. Then it is made again by the same name, which the engine gives once only, so
// that the first one is known to be gone when that succeeds.
func (e *Engine) makeSurely(ctx context.Context, spec Spec) (id string, first wait, err error) {
	broken := false
	for n := 1; ; n++ {
		id, first, err = e.make(ctx, spec)
		if err == nil {
			return id, first, nil
		}
		if broken = broken || brokenOff(err); !broken && ctx.Err() == nil {
			return "", nil, err
		}
		if left := e.remove(spec.Name); left != nil {
			return "", nil, errors.Join(err, left)
		}
		if n == attempts || !pause(ctx, again/4<<n) {
			return "", nil, err
		}
	}
}
