package container

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"trestle/internal/harness/process"
)

// progress is how often a message says that a pull is still going on.
const progress = 5 * time.Second

// obtaining is an image on its way to the host, for all who wait for it.
type obtaining struct {
	done chan struct{}
	err  error
}

// CheckImage finds names that are none. An image's name comes from outside and must not be taken for an option.
func CheckImage(image string) error {
	switch {
	case image == "":
		return errors.New("the docker environment names no image: give one in the environment config")
	case strings.HasPrefix(image, "-"), strings.ContainsFunc(image, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("the docker environment's image %q is no name of an image", image)
	}
	return nil
}

// Image returns when the image is on the host, pulled by the policy if need be; several callers share one pull, and an
// image that was obtained once is not looked for again. say gets what a person should read: that a pull begins, every
// few seconds that it goes on, and that it has ended. An error names image, engine and host, with the engine's own last
// lines. The pull ends with the first caller's ctx.
func (e *Engine) Image(ctx context.Context, image string, say func(string)) error {
	e.mu.Lock()
	o := e.images[image]
	first := o == nil
	if first {
		o = &obtaining{done: make(chan struct{})}
		e.images[image] = o
	}
	e.mu.Unlock()
	if first {
		o.err = e.obtain(ctx, image, say)
		if o.err != nil { // the next job's worker, or another attempt, may fare better
			e.mu.Lock()
			delete(e.images, image)
			e.mu.Unlock()
		}
		close(o.done)
		return o.err
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (e *Engine) obtain(ctx context.Context, image string, say func(string)) error {
	if e.cfg.Pull != PullAlways {
		missing, err := e.lacks(ctx, image)
		if err != nil {
			return err
		}
		if missing == nil {
			return nil
		}
		if e.cfg.Pull == PullNever {
			return fmt.Errorf("image %s is not there for %s (%w), and the policy %q forbids to pull it: pull it by hand (%s pull %s), or start the server with --container-pull=%s",
				image, e, missing, PullNever, e.name, image, PullMissing)
		}
	}
	return e.pull(ctx, image, say)
}

// lacks tells whether the engine lacks the image, with its own words. The engines word it differently, so that one that
// does not have it is told from one that does not answer by another question.
func (e *Engine) lacks(ctx context.Context, image string) (missing, err error) {
	_, missing = e.ask(ctx, "image", "inspect", "--format", "{{.Id}}", image)
	if missing == nil {
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := e.owned(ctx); err != nil {
		return nil, fmt.Errorf("look for image %s: %w", image, err)
	}
	return missing, nil
}

func (e *Engine) pull(ctx context.Context, image string, say func(string)) error {
	began := time.Now()
	say(fmt.Sprintf("pulling image %s with %s", image, e))
	limit := e.cfg.pullLimit()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v (--container-pull-limit)", limit))
	defer cancel()
	p, err := e.start(process.Spec{Args: []string{"pull", image}})
	if err != nil {
		return fmt.Errorf("pull image %s with %s: %w", image, e, err)
	}
	tick := time.NewTicker(e.progress)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			say(fmt.Sprintf("pulling image %s with %s, for %v now%s", image, e, time.Since(began).Round(time.Second), last(p.Output())))
			continue
		case <-p.Done():
		case <-ctx.Done():
			p.Stop(ctx)
			return fmt.Errorf("pull image %s with %s: %w%s", image, e, context.Cause(ctx), lastLines(p.Output()))
		}
		break
	}
	if status := p.Status(); status.Code != 0 || status.Signal != 0 {
		return fmt.Errorf("pull image %s with %s: %w", image, e, &failure{status, p.Output()})
	}
	say(fmt.Sprintf("pulled image %s in %v", image, time.Since(began).Round(100*time.Millisecond)))
	return nil
}

// last is the last of some lines, as the end of a sentence.
func last(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return ": " + lines[len(lines)-1]
}
