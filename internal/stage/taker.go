package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
)

// Taker is a task of a streaming plan that can go on with what Split has got from another task of its stage, or from itself. Of
// these tasks, Split answers with parts for Take, which only Take understands.
type Taker interface {
	Splitter
	// Take makes parts the task's own, also if it was quiet. since is an output watermark that the task they came from had told
	// before it was asked for them. The task's own goes back to it, from where it is told again, and so is Quiet.
	//
	// The engine sees to it that nobody else sees it go back: it tells those that the stage sends to the least of what its tasks
	// have told, and counts since for the taker from before the giver goes on. Until Take returns, the parts are the engine's, and
	// no snapshot has them: both tasks have to have written the same ones when it is called.
	Take(ctx context.Context, parts [][]byte, since int64) error
}

// Take implements Taker.
func (t *task) Take(ctx context.Context, parts [][]byte, since int64) error {
	return t.streaming(ctx, "take parts of elements", func(ctx context.Context) error {
		b := t.puttingOff()
		if b == nil {
			return errors.New("the stage has no splittable DoFn at its mouth")
		}
		s, l := t.stream, b.later
		for _, part := range parts {
			p, drained, err := decodePart(part)
			if err != nil {
				return err
			}
			to := &l.rests
			if drained {
				// The giver has heard of a drain, maybe before this task has: what it has truncated is not truncated once more.
				to, s.times.draining = &l.drained, true
			}
			if err := l.put(to, p); err != nil {
				return err
			}
		}
		if l.opened() {
			if err := l.over.Commit(); err != nil {
				return err
			}
		}
		s.told, s.quiet = min(s.told, since), false
		return t.advance(ctx)
	})
}

// shareable tells whether other tasks may have a part of what a task of a streaming plan does. Half of a restriction without end (which
// the DoFn's may be, if its output is unbounded) is no work but a part that waits, and holds the watermark, for ever; and a task may have let go of the windows of side inputs
// that a part from elsewhere would read.
func (b *bundles) shareable() bool { return !b.later.endless && b.gate == nil }

// handed encodes what a split of the bundle on offer gives to another task. The caller holds asking.
func (b *bundles) handed(given [][]byte, roots []*fnpb.DelayedBundleApplication) [][]byte {
	l := b.later
	parts := make([][]byte, 0, len(given))
	for i, record := range given {
		p := l.untouched(record)
		if at := i - (len(given) - len(roots)); at >= 0 {
			p = l.part(roots[at])
		} else {
			l.away++
		}
		parts = append(parts, p.encode(l.draining))
	}
	return parts
}

// encode is the form that a part has on its way to another task: when it is due, as a varint, a byte that says whether it is of a job
// that is being drained, and the rest as in the store.
func (p putOff) encode(drained bool) []byte {
	b := binary.AppendVarint(make([]byte, 0, 2*binary.MaxVarintLen64+2+len(p.record)), p.due)
	return p.append(append(b, boolByte(drained)))
}

// decodePart is encode's inverse.
func decodePart(b []byte) (p putOff, drained bool, err error) {
	due, n := binary.Varint(b)
	ok := n > 0 && len(b) > n && b[n] <= 1
	if ok {
		p, ok = cutPutOff(b[n+1:])
	}
	if !ok || len(p.record) == 0 {
		return p, false, fmt.Errorf("a part of an element from another task: %w", errCutShort)
	}
	p.due = due
	return p, b[n] == 1, nil
}

var errCutShort = errors.New("it is no encoding of one")
