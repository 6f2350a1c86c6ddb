package stagetest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

var closeCases = []testCase{
	{"a task that did nothing", closeIdle},
	{"a task that has gathered groups", closeGathering},
	{"between the blocks of a bundle", closeBetweenBlocks},
	{"while the harness is silent", closeWhileSilent},
	{directly + "while the engine takes no output", closeWhileEmitting},
	{"while a residual waits", closeWhileWaiting},
	{"while large groups are held", closeWithLargeGroups},
	{"while the harness takes no input, once it is gone", closeWhileSending},
	{"a closed task takes nothing", closedTakesNothing},
}

func closeIdle(t *testing.T, open Open) {
	for _, pipeline := range []string{straight, impulsive, grouped("global"), sided} {
		start(t, open, setup{pipeline: pipeline, parallelism: 2, script: identity}).end()
	}
}

func closeGathering(t *testing.T, open Open) {
	for _, memory := range []int64{0, 1} {
		r := start(t, open, setup{pipeline: grouped("global"), memory: memory, script: identity})
		for range 3 {
			all, _ := largeValues("key")
			r.group(all)
		}
		r.end()
	}
}

func closeBetweenBlocks(t *testing.T, open Open) {
	got := make(chan struct{}, 1)
	r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
		return b.Each(func(sdk.Element) error { got <- struct{}{}; return nil })
	}})
	// Two blocks, and large ones: the last of a bundle's input, and all of a small one's, may be held back.
	large := records(strings.Repeat("a", 64<<10))
	r.process(stage.MainInput, large)
	r.process(stage.MainInput, large)
	<-got
	r.end()
	if log := r.out.log(); log != "" {
		t.Errorf("the task put out %s", log)
	}
}

// closeDuring closes the first task while a call blocks, which is when blocked receives.
func (r *rig) closeDuring(blocked <-chan struct{}, call func() error) {
	r.t.Helper()
	failed := make(chan error, 1)
	go func() { failed <- call() }()
	select {
	case <-blocked:
	case err := <-failed:
		r.t.Fatalf("the call did not block: %v", err)
	case <-r.ctx.Done():
		r.t.Fatal("the call does not come to where it blocks")
	}
	closed := make(chan error, 1)
	go func() { closed <- r.tasks[0].Close() }()
	select {
	case err := <-closed:
		if err != nil {
			r.t.Errorf("Close: %v", err)
		}
	case <-r.ctx.Done():
		r.t.Fatal("Close does not return")
	}
	select {
	case err := <-failed:
		if err == nil {
			r.t.Error("the interrupted call gave no error")
		}
	case <-r.ctx.Done():
		r.t.Fatal("Close has returned, and the call has not")
	}
	if strings.Contains(r.out.log(), "quiet") {
		r.t.Error("a closed task told that it is quiet")
	}
	r.end()
}

func (r *rig) endMain() error { return r.tasks[0].End(r.ctx, stage.MainInput) }

func closeWhileSilent(t *testing.T, open Open) {
	silent := make(chan struct{}, 1)
	r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
		if err := identity(b); err != nil {
			return err
		}
		silent <- struct{}{}
		return b.Hang()
	}})
	r.process(stage.MainInput, records("a"))
	r.closeDuring(silent, r.endMain)
}

func closeWhileEmitting(t *testing.T, open Open) {
	for kind, pipeline := range map[string]string{"forward": straight, "keyed": strings.Replace(keying, "WINDOW", "global", 1)} {
		t.Run(kind, func(t *testing.T) {
			emitting := make(chan struct{}, 1)
			r := start(t, open, setup{pipeline: pipeline, script: func(b *sdk.Bundle) error {
				return b.Each(func(sdk.Element) error { return b.Write("out", pairs("a=b")) })
			}})
			r.out.before = func(ctx context.Context) error {
				emitting <- struct{}{}
				<-ctx.Done()
				return context.Cause(ctx)
			}
			r.process(stage.MainInput, records("a"))
			r.closeDuring(emitting, r.endMain)
		})
	}
}

func closeWhileWaiting(t *testing.T, open Open) {
	waiting := make(chan struct{}, 1)
	r := start(t, open, setup{pipeline: splitting, script: pieces(patience, func(string) { waiting <- struct{}{} })})
	r.process(stage.MainInput, sized("a", 2))
	r.closeDuring(waiting, r.endMain)
}

func closeWithLargeGroups(t *testing.T, open Open) {
	silent := make(chan struct{}, 1)
	r := start(t, open, setup{pipeline: grouped("global"), script: func(b *sdk.Bundle) error {
		if err := b.Each(func(sdk.Element) error { return nil }); err != nil {
			return err
		}
		silent <- struct{}{}
		return b.Hang()
	}})
	for _, key := range []string{"a", "b"} {
		all, _ := largeValues(key)
		r.group(all)
	}
	r.closeDuring(silent, r.endMain)
}

// A harness that reads nothing holds its task up until its session is closed, as an engine does when a job ends.
func closeWhileSending(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, script: (*sdk.Bundle).Hang})
	block := records(strings.Repeat("w", 1<<20))
	sent, blocked := make(chan error, 1), make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			err = r.try(stage.MainInput, block)
			select {
			case sent <- err:
			default:
			}
		}
		blocked <- err
	}()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- r.tasks[0].Close() }()
	gone := errors.New("the job has ended")
	r.session.Close(gone)
	for _, result := range []<-chan error{closed, blocked} {
		select {
		case err := <-result:
			if result == closed && err != nil {
				t.Errorf("Close: %v", err)
			}
		case <-r.ctx.Done():
			t.Fatal("the task is held up")
		}
	}
}

func closedTakesNothing(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: sided, script: identity})
	if err := r.tasks[0].Close(); err != nil {
		t.Fatal(err)
	}
	for input := range 3 {
		if err := r.try(input, records("a")); err == nil {
			t.Errorf("a closed task took a block of input %d", input)
		}
		if err := r.tasks[0].End(r.ctx, input); err == nil {
			t.Errorf("a closed task took the end of input %d", input)
		}
	}
	if err := r.tasks[0].Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if n := r.bundles(); n != 0 {
		t.Errorf("%d bundles", n)
	}
}
