package stage

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/fnapi"
)

// drain truncates what has been put off, and what arrived since: a splittable DoFn says of each restriction what is still
// to be done of it before its job ends. A DoFn that says nothing has its bounded restrictions done, and its unbounded ones
// given up, which SDKs do of themselves; where one does not know the step, the runner does.
func (b *bundles) drain(ctx context.Context) error {
	l := b.later
	if !l.draining {
		// What is under way was not truncated.
		if err := b.cut(ctx); err != nil {
			return err
		}
		l.draining = true
	}
	now := nanos(l.time())
	for {
		todo, err := l.take(&l.rests, math.MaxInt64, mostResumed)
		if err != nil || len(todo) == 0 {
			return err
		}
		done, err := b.truncated(ctx, todo)
		if err != nil {
			return err
		}
		for _, p := range done {
			p.due = now
			if err := l.put(&l.drained, p); err != nil {
				return err
			}
		}
		if err := l.over.Commit(); err != nil {
			return err
		}
	}
}

// truncated is what a drain leaves of restrictions.
func (b *bundles) truncated(ctx context.Context, todo []putOff) (done []putOff, err error) {
	if b.spec.Stage.Input.Truncation == nil {
		return slices.DeleteFunc(todo, func(p putOff) bool { return p.unbounded }), nil
	}
	hold := coder.MaxTimestamp
	for _, p := range todo {
		hold = min(hold, p.hold)
	}
	records, err := b.truncate(ctx, todo)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		// Which restriction it was made of is not told.
		done = append(done, putOff{record: r, hold: hold})
	}
	return done, nil
}

// putOffWhole puts off records that were not begun.
func (b *bundles) putOffWhole(records []byte) error {
	l := b.later
	now := nanos(l.time())
	if err := b.eachRestriction(records, func(header coder.Header, record []byte) error {
		return l.put(&l.rests, putOff{record: record, due: now, hold: header.Timestamp, unbounded: l.endless})
	}); err != nil || !l.opened() {
		return err
	}
	return l.over.Commit()
}

// eachRestriction calls f with each record of the stage's input, which is the caller's.
func (b *bundles) eachRestriction(records []byte, f func(coder.Header, []byte) error) error {
	for len(records) > 0 {
		header, size, err := b.splits.Record(records)
		if err != nil {
			return fmt.Errorf("restriction of a splittable DoFn: %w", err)
		}
		if err := f(header, records[:size]); err != nil {
			return err
		}
		records = records[size:]
	}
	return nil
}

// truncate has restrictions truncated. A bundle that fails is tried again, as all are.
func (b *bundles) truncate(ctx context.Context, parts []putOff) ([][]byte, error) {
	var t tries
	for {
		records, err := b.askTruncated(ctx, parts)
		if err == nil {
			return records, nil
		}
		err = fmt.Errorf("truncate restrictions: %w", err)
		t.made++
		if mend, repeats := t.mendable(ctx, err, b.spec.Attempts, b.session); repeats {
			return nil, repeatedError{err}
		} else if !mend {
			return nil, err
		}
		b.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("attempt %d of %d at truncating the restrictions of stage %q failed, and is repeated:\n%s",
			t.made, b.spec.Attempts, b.spec.Stage.Name, Describe(b.spec.Plan, err)))
	}
}

// askTruncated asks once.
func (b *bundles) askTruncated(ctx context.Context, parts []putOff) (records [][]byte, err error) {
	defer b.state.release()
	if err := b.connect(ctx); err != nil {
		return nil, err
	}
	tokens := b.tokens
	if b.gate != nil {
		// What is truncated passed the gate when it came: what it reads of side inputs can be read.
		b.state.thaw()
		b.state.frozen = b.spec.Views.acquire()
		tokens = b.state.frozen.tokens
	}
	step := b.spec.Stage.Input.Truncation
	descriptor, err := b.session.AddDescriptor(step.Descriptor)
	if err != nil {
		return nil, err
	}
	bundle, err := b.session.StartBundle(ctx, fnapi.BundleSpec{
		Descriptor: descriptor,
		Source:     step.Source,
		Sinks:      []string{step.Sink},
		Receive: func(_ context.Context, _ string, data []byte) error {
			return asOwn(b.eachRestriction(data, func(_ coder.Header, record []byte) error {
				records = append(records, bytes.Clone(record))
				return nil
			}))
		},
		State:       b.state.answer,
		CacheTokens: tokens,
	})
	if err != nil {
		return nil, err
	}
	all := make([][]byte, len(parts))
	for i, p := range parts {
		all[i] = p.record
	}
	if err := bundle.End(step.Source, slices.Concat(all...)); err != nil {
		bundle.Abort(err)
		return nil, err
	}
	if _, err := bundle.Wait(); err != nil {
		return nil, err
	}
	return records, nil
}
