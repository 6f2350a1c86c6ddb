package local

import (
	"context"
	"errors"
	"io"
	"testing"

	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// splitting is a task that has done its part as soon as it has given up the rest.
type splitting struct {
	stage.Task
	done func()
}

func (s splitting) Split(context.Context) ([][]byte, error) {
	s.done()
	return [][]byte{[]byte("rest")}, nil
}

// TestSharedWorkKeepsTheInputOpen: what a task gave up is the stage's input, and it has not ended before that is processed, though
// nothing else was left when it was given up.
func TestSharedWorkKeepsTheInputOpen(t *testing.T) {
	store := shuffle.NewStore(t.TempDir(), shuffle.NewBudget(1<<20))
	in := newInput(1, store.NewSpool(), true)
	s := &stageRun{main: in}
	s.tasks = []*taskRun{{stage: s, task: splitting{done: func() { in.processed(5) }}}, {stage: s}}
	if err := in.put(t.Context(), 0, []byte("whole")); err != nil {
		t.Fatal(err)
	}
	in.senderEnded()
	get := func(want string) {
		t.Helper()
		if block, err := in.queue.Get(t.Context()); err != nil || string(block) != want {
			t.Fatalf("got %q, %v; want %q", block, err, want)
		}
	}
	get("whole")
	s.tasks[0].busy.Store(5)
	if given, err := s.splitOnce(t.Context()); !given || err != nil {
		t.Fatalf("given %t, %v", given, err)
	}
	get("rest")
	in.processed(4)
	if _, err := in.queue.Get(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after all: %v", err)
	}
	if given, err := s.splitOnce(t.Context()); given || err != nil {
		t.Errorf("after the end, given %t, %v", given, err)
	}
	if err := errors.Join(in.close(), store.Close()); err != nil {
		t.Error(err)
	}
}
