package stage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
)

// stable keeps the main input of a stage whose DoFn wants it stable (ParDoPayload.requires_stable_input in
// beam_runner_api.proto) until a snapshot that has it is safe: a task that begins with that snapshot, or a later one, gives the DoFn the
// same elements in the same order. Blocks are kept as they came, those of a keyed input by their key groups, in a store of its own.
type stable struct {
	keyedStore
	keyed  bool
	origin [4]byte // tells this task's entries from those of others, with whose store this one may become one
	// arrived is the main input's watermark as it came; the task goes by that of what has been let through.
	arrived int64
	last    uint64 // the number of the last block that came
	left    int    // blocks
	marks   []stableMark
}

// stableMark is how far the input had come at a snapshot.
type stableMark struct {
	snapshot, last uint64
	watermark      int64
}

// stableName is the store's folder in the task's own, and in a snapshot.
const stableName = "stable"

// kindStable is of entries of its store: number, origin → block.
const kindStable kind = 'a'

// newStable is for a stage whose input is to be stable; nil for others. With an error there may be one all the same, to be closed. A plan of which no snapshots are taken, since it is never
// begun anew, needs nothing for that.
func newStable(s Spec) (*stable, error) {
	if !s.Stage.Input.Stable || len(s.Plan.TestStreams) > 0 {
		return nil, nil
	}
	q := &stable{keyed: s.Stage.Input.Kind == plan.KeyedElements || s.Stage.Input.Kind == plan.Groups, arrived: coder.MinTimestamp}
	if _, err := rand.Read(q.origin[:]); err != nil {
		return nil, err
	}
	if !q.keyed {
		s = s.ofOneGroup()
	}
	q.keyedStore = newKeyedStore(s)
	q.folder = stableName
	if err := q.restore(); err != nil || !q.opened() {
		return q, err
	}
	for g := q.first; g < q.end; g++ {
		if err := q.over.Scan(stableKey(g), after(stableKey(g)), func(_, _ []byte) (bool, error) {
			q.left++
			return true, nil
		}); err != nil {
			return q, err
		}
	}
	if q.left > 0 {
		q.last = q.over.Next()
		q.reached(0)
	}
	return q, nil
}

func stableKey(group int) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 16), uint16(group)), byte(kindStable))
}

// add keeps a block.
func (q *stable) add(from Delivery, block []byte) error {
	if err := q.open(); err != nil {
		return err
	}
	group := 0
	if q.keyed {
		group = from.KeyGroup
	}
	q.last = q.over.Next()
	q.left++
	key := append(binary.BigEndian.AppendUint64(stableKey(group), q.last), q.origin[:]...)
	q.over.Put(key, bytes.Clone(block))
	return q.over.Commit()
}

// reached takes note of what a snapshot has.
func (q *stable) reached(snapshot uint64) {
	q.marks = append(q.marks, stableMark{snapshot: snapshot, last: q.last, watermark: q.arrived})
}

// safe is how far the input may be let through once a snapshot is safe.
func (q *stable) safe(snapshot uint64) (to stableMark, ok bool) {
	for len(q.marks) > 0 && q.marks[0].snapshot <= snapshot {
		to, ok = q.marks[0], true
		q.marks = q.marks[1:]
	}
	return to, ok
}

// take takes out the blocks up to a number, some at a time, and passes them on in their order within a key group.
func (q *stable) take(last uint64, pass func(from Delivery, block []byte) error) error {
	for g := q.first; g < q.end && q.left > 0; g++ {
		for more := true; more; {
			var keys, blocks [][]byte
			size := 0
			more = false
			if err := q.over.Scan(stableKey(g), after(stableKey(g)), func(key, block []byte) (bool, error) {
				if binary.BigEndian.Uint64(key[3:]) > last {
					return false, nil
				}
				if size >= sendBytes {
					more = true
					return false, nil
				}
				keys, blocks = append(keys, bytes.Clone(key)), append(blocks, bytes.Clone(block))
				size += len(block)
				return true, nil
			}); err != nil {
				return err
			}
			from := Delivery{Input: MainInput}
			if q.keyed {
				from.KeyGroup = g
			}
			for i, block := range blocks {
				q.over.Delete(keys[i])
				if err := pass(from, block); err != nil {
					return err
				}
			}
			q.left -= len(blocks)
			if err := q.over.Commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

// letThrough processes what a safe snapshot has of an input that is to be stable.
func (t *task) letThrough(ctx context.Context, snapshot uint64) error {
	q := t.stream.stable
	if q == nil {
		return nil
	}
	to, ok := q.safe(snapshot)
	if !ok {
		return nil
	}
	if err := q.take(to.last, func(from Delivery, block []byte) error { return t.intake.process(ctx, from, block) }); err != nil {
		return err
	}
	t.stream.main = to.watermark
	if q.left == 0 {
		t.stream.main = q.arrived
	}
	return t.flush(ctx)
}
