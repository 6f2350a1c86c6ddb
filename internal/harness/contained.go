package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/harness/container"
)

// containerInstance is a harness in a docker environment.
type containerInstance struct {
	w         *worker
	container *container.Container
}

// startContainer makes sure of the environment's image and starts its container with the container contract's arguments.
func (w *worker) startContainer(r *runnable) (instance, error) {
	cfg := &w.pool.cfg
	image := r.docker.GetContainerImage()
	say := func(text string) { cfg.Message(jobpb.JobMessage_JOB_MESSAGE_BASIC, text) }
	if err := r.engine.Image(w.pool.ctx, image, say); err != nil {
		return nil, closedOr(err)
	}
	c, err := r.engine.Start(w.pool.ctx, container.Spec{
		Image:  image,
		Name:   "trestle-" + w.id,
		Job:    cfg.Job,
		Worker: w.id,
		Args:   w.contract(),
		Line:   w.line,
	})
	if err != nil {
		return nil, closedOr(err)
	}
	return &containerInstance{w: w, container: c}, nil
}

// closedOr is err, unless the pool's end is what it comes from.
func closedOr(err error) error {
	if errors.Is(err, ErrClosed) {
		return ErrClosed
	}
	return err
}

func (i *containerInstance) gone() <-chan struct{} { return i.container.Done() }

func (i *containerInstance) waiting(began time.Time) (string, time.Duration) {
	text := fmt.Sprintf("%v is to connect to %s", i.container, i.w.endpoint)
	if out := i.container.Output(); len(out) > 0 {
		text += "; it wrote last: " + out[len(out)-1]
	}
	return text, i.w.patience(began, i.container.Active())
}

func (i *containerInstance) ended(connected bool) error {
	state := i.container.State()
	if state.Lost != nil {
		return fmt.Errorf("harness %s of environment %q is taken for lost with its %v: %w%s",
			i.w.id, i.w.environment, i.container, state.Lost, lastLines(i.container.Output()))
	}
	exit := &Exit{
		Worker:      i.w.id,
		Environment: i.w.environment,
		Container:   i.container.String(),
		Code:        state.Code,
		Connected:   connected,
		OOMKilled:   state.OOMKilled,
		MemoryLimit: i.container.MemoryLimit(),
		Reason:      state.Reason,
		Output:      i.container.Output(),
		Errors:      i.w.errors.Lines(),
	}
	if state.Removed && exit.Reason == "" {
		exit.Reason = "the container was removed by somebody else"
	}
	return exit
}

func (i *containerInstance) lost(cause error) error {
	timer := time.NewTimer(exitWait)
	defer timer.Stop()
	select {
	case <-i.container.Done():
		return i.ended(true)
	case <-timer.C:
	}
	how := "though it still runs"
	ctx, cancel := context.WithTimeout(i.w.pool.ctx, launchWait)
	defer cancel()
	switch state, err := i.container.Inspect(ctx); {
	case err == nil && !state.Running:
		// Whoever waits for its end is about to be told.
		select {
		case <-i.container.Done():
			return i.ended(true)
		case <-ctx.Done():
			how = "and has ended"
		}
	case err != nil:
		how = "and what became of it is not known: " + err.Error()
	case state.OOMKilled:
		how = "though it still runs: the kernel killed a process in it, out of memory (--container-memory sets its limit)"
	}
	return fmt.Errorf("harness %s of environment %q broke its connection, in its %v, %s: %w%s",
		i.w.id, i.w.environment, i.container, how, cause, lastLines(i.container.Output()))
}

func (i *containerInstance) late(waited time.Duration) error {
	return fmt.Errorf("harness %s (%v) did not connect to %s within %v: can that address be reached from the container (--container-network, --container-advertise), and does the image start a Beam worker?%s",
		i.w.id, i.container, i.w.endpoint, waited.Round(time.Millisecond), lastLines(i.container.Output()))
}

func (i *containerInstance) kill() (lost bool) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // it gets no time to end
	return i.container.Stop(ctx) != nil
}

func (i *containerInstance) stop(hurry context.Context) error {
	ctx, cancel := context.WithTimeout(hurry, i.w.pool.cfg.Timeouts.Grace)
	defer cancel()
	return i.container.Stop(ctx)
}
