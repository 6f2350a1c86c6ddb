package streaming

import (
	"context"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
)

// playerSlot is the slot of a played stage's one sender.
const playerSlot = 0

// play plays the job's TestStreams: an event is let out when nothing is left to do that follows from the one before.
// Several TestStreams take turns.
func (j *Job) play(ctx context.Context) error {
	streams := make([]*played, 0, len(j.cfg.Plan.TestStreams))
	for _, t := range j.cfg.Plan.TestStreams {
		streams = append(streams, &played{stream: t})
	}
	for left := len(streams); left > 0; {
		left = 0
		for _, p := range streams {
			more, err := p.step(ctx, j)
			if err != nil {
				return fmt.Errorf("TestStream %s: %w", p.stream.Transform, err)
			}
			if more {
				left++
			}
		}
	}
	if err := j.activity.wait(ctx); err != nil {
		return err
	}
	j.clock.release()
	defer j.quiet()
	return j.tellTime(ctx)
}

// played is a TestStream, as far as it has been played.
type played struct {
	stream *plan.TestStream
	next   int
	over   bool
}

// step lets the next event out, or the end; more is false when there is nothing to let out any more.
func (p *played) step(ctx context.Context, j *Job) (more bool, err error) {
	if p.over {
		return false, nil
	}
	if err := j.activity.wait(ctx); err != nil {
		return false, err
	}
	if p.next == len(p.stream.Events) {
		p.over = true
		return false, p.end(ctx, j)
	}
	e, err := p.stream.Event(p.stream.Events[p.next])
	if err != nil {
		return false, fmt.Errorf("event %d: %w", p.next, err)
	}
	p.next++
	switch {
	case e.Advance > 0:
		j.clock.advance(e.Advance)
		return true, j.tellTime(ctx)
	case e.Stage < 0:
		return true, nil
	case e.HasWatermark:
		return true, j.let(ctx, e.Stage, event{kind: watermark, sender: playerSlot, millis: min(e.Watermark, coder.MaxTimestamp)})
	}
	return true, j.let(ctx, e.Stage, event{kind: block, sender: playerSlot, records: e.Records})
}

// end brings all outputs to the end of time.
func (p *played) end(ctx context.Context, j *Job) error {
	for _, stage := range p.stream.Stages {
		if err := j.let(ctx, stage, event{kind: watermark, sender: playerSlot, millis: coder.MaxTimestamp}); err != nil {
			return err
		}
	}
	return nil
}

// let gives a played stage an event.
func (j *Job) let(ctx context.Context, stage int, e event) error {
	_, err := j.stages[stage].tasks[0].inbox.put(ctx, 0, e, nil)
	return err
}

// tellTime tells all tasks what time it is.
func (j *Job) tellTime(ctx context.Context) error { return j.toAll(ctx, event{kind: tick}) }
