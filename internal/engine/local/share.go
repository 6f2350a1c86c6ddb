package local

import (
	"context"
	"time"

	"trestle/internal/stage"
)

const (
	// shareFirst is how soon a stage whose tasks are not all busy looks whether one can give work to another. A bundle
	// that takes less is not worth a split.
	shareFirst = 50 * time.Millisecond
	// shareLast is the longest pause after looks that gave nothing.
	shareLast = 5 * time.Second
)

// share brings work to idle tasks of a stage whose elements can be split while they are processed: it asks busy ones to
// give up half of theirs. It ends with the stage's input.
func (s *stageRun) share(ctx context.Context) error {
	pause := shareFirst
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.main.ended:
			return nil
		case <-ctx.Done():
			return nil // the job's end has its own reason
		}
		given, err := s.splitOnce(ctx)
		if err != nil {
			return err
		}
		if given {
			pause = shareFirst
		} else {
			pause = min(2*pause, shareLast)
		}
		timer.Reset(pause)
	}
}

// splitOnce splits as many busy tasks' work as there are idle tasks. What it gets is nobody's until it is in the queue again: the
// input does not end before, though the task that gave it may be done with the rest.
func (s *stageRun) splitOnce(ctx context.Context) (given bool, err error) {
	if !s.main.hold() {
		return false, nil
	}
	defer s.main.release(1)
	var idle int
	var busy []stage.Splitter
	for _, t := range s.tasks {
		if t.busy.Load() == 0 {
			idle++
		} else if splitter, ok := t.task.(stage.Splitter); ok {
			busy = append(busy, splitter)
		}
	}
	for _, splitter := range busy {
		if idle == 0 {
			break
		}
		records, err := splitter.Split(ctx)
		if err != nil {
			return given, err
		}
		for _, record := range records {
			if err := s.main.put(ctx, 0, record); err != nil {
				return given, err
			}
			given = true
		}
		if len(records) > 0 {
			idle--
		}
	}
	return given, nil
}
