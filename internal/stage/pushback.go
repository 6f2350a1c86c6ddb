package stage

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
)

// pushback keeps elements that wait until a window of a side input can be read, in a store of its own that is there while
// something waits. Where the input is keyed, they lie by the key groups of their keys.
type pushback struct {
	keyedStore
	keyed   *coder.Windowed // of the records; nil when the input has no keys
	waiting map[string]*waiting
	packs   map[string]*pushedPack // of the call under way
	size    int
	origin  [4]byte // tells this task's entries from those of others, with whose store this one may become one
}

// waiting is what waits for a window of a side input.
type waiting struct {
	side   int
	window []byte
	count  int64 // elements
	hold   int64 // the earliest of their timestamps
	since  time.Time
	empty  int64 // see grouping.Machine.Empty
}

// pushedPack is elements of one key group that wait for the same.
type pushedPack struct {
	group   int
	wait    *waiting
	count   int64
	hold    int64
	records []byte
}

// pushbackName is the store's folder in the task's own, and in a snapshot.
const pushbackName = "pushback"

// kindPushed is of entries of its store: side input, window, number, origin → count, hold, records.
const kindPushed kind = 'q'

func newPushback(s Spec) (*pushback, error) {
	p := &pushback{waiting: map[string]*waiting{}, packs: map[string]*pushedPack{}}
	if _, err := rand.Read(p.origin[:]); err != nil {
		return nil, err
	}
	switch s.Stage.Input.Kind {
	case plan.KeyedElements, plan.Groups:
		var err error
		if p.keyed, err = coder.CompileWindowed(s.coders(), s.Stage.Input.Coder); err != nil {
			return nil, err
		}
	default:
		s = s.ofOneGroup()
	}
	p.keyedStore = newKeyedStore(s)
	p.folder = pushbackName
	if err := p.restore(); err != nil {
		return nil, err
	}
	p.spec.Restore = nil // a store that is made later begins with nothing
	return p, p.look()
}

func waitKey(side int, w []byte) []byte {
	return appendPart(binary.BigEndian.AppendUint16(nil, uint16(side)), w)
}

func pushedKey(group int, wait []byte) []byte {
	b := append(binary.BigEndian.AppendUint16(make([]byte, 0, 64), uint16(group)), byte(kindPushed))
	return append(b, wait...)
}

var errPushed = errors.New("what the store has of waiting elements is cut short")

// look finds out what waits in a store that was restored.
func (p *pushback) look() error {
	if !p.opened() {
		return nil
	}
	for g := p.first; g < p.end; g++ {
		prefix := pushedKey(g, nil)
		if err := p.over.Scan(prefix, after(prefix), func(key, value []byte) (bool, error) {
			rest := key[len(prefix):]
			if len(rest) < 2 {
				return false, errPushed
			}
			w, _, ok := cutPart(rest[2:])
			count, n := binary.Uvarint(value)
			if !ok || n <= 0 || len(value) < n+coder.TimestampSize {
				return false, errPushed
			}
			f := p.waits(int(binary.BigEndian.Uint16(rest)), bytes.Clone(w))
			f.count += int64(count)
			f.hold = min(f.hold, coder.Timestamp(value[n:]))
			return true, nil
		}); err != nil {
			return err
		}
	}
	return p.done()
}

func (p *pushback) waits(side int, w []byte) *waiting {
	id := string(waitKey(side, w))
	f := p.waiting[id]
	if f == nil {
		f = &waiting{side: side, window: w, hold: math.MaxInt64}
		p.waiting[id] = f
	}
	return f
}

// add has a record wait for a window of a side input. It reaches the store with flush.
func (p *pushback) add(f *waiting, timestamp int64, record []byte) error {
	group := 0
	if p.keyed != nil {
		var r coder.KV
		if err := p.keyed.CutKV(record, &r); err != nil {
			return err
		}
		group = shuffle.KeyGroup(r.Key(record), p.spec.KeyGroups)
	}
	id := string(pushedKey(group, waitKey(f.side, f.window)))
	k := p.packs[id]
	if k == nil {
		k = &pushedPack{group: group, wait: f, hold: math.MaxInt64}
		p.packs[id] = k
	}
	k.records = append(k.records, record...)
	k.count++
	k.hold = min(k.hold, timestamp)
	f.count++
	f.hold = min(f.hold, timestamp)
	p.size += len(record)
	if len(k.records) >= packBytes || p.size >= sendBytes {
		return p.flush()
	}
	return nil
}

// flush stages what was added, and commits it.
func (p *pushback) flush() error {
	if len(p.packs) == 0 {
		return nil
	}
	if err := p.open(); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(p.packs)) {
		k := p.packs[id]
		key := append(binary.BigEndian.AppendUint64([]byte(id), p.over.Next()), p.origin[:]...)
		value := coder.AppendTimestamp(binary.AppendUvarint(nil, uint64(k.count)), k.hold)
		p.over.Put(key, append(value, k.records...))
	}
	clear(p.packs)
	p.size = 0
	return p.over.Commit()
}

// take takes out what waits for a window, some at a time, in its order within a key group, and passes it on.
func (p *pushback) take(f *waiting, pass func(records []byte) error) error {
	if err := p.flush(); err != nil {
		return err
	}
	delete(p.waiting, string(waitKey(f.side, f.window)))
	for g := p.first; g < p.end; g++ {
		prefix := pushedKey(g, waitKey(f.side, f.window))
		for more := true; more; {
			var keys, values [][]byte
			size := 0
			more = false
			if err := p.over.Scan(prefix, after(prefix), func(key, value []byte) (bool, error) {
				if size >= sendBytes {
					more = true
					return false, nil
				}
				_, n := binary.Uvarint(value)
				if n <= 0 || len(value) < n+coder.TimestampSize {
					return false, errPushed
				}
				keys = append(keys, bytes.Clone(key))
				values = append(values, bytes.Clone(value[n+coder.TimestampSize:]))
				size += len(value)
				return true, nil
			}); err != nil {
				return err
			}
			for _, key := range keys {
				p.over.Delete(key)
			}
			for _, records := range values {
				if err := pass(records); err != nil {
					return err
				}
			}
			if err := p.flush(); err != nil {
				return err
			}
			if err := p.over.Commit(); err != nil {
				return err
			}
		}
	}
	return p.done()
}

// done gives the store back when nothing waits any more.
func (p *pushback) done() error {
	if len(p.waiting) > 0 || !p.opened() {
		return nil
	}
	return p.close()
}

// hold is the earliest timestamp of what waits.
func (p *pushback) hold() int64 {
	hold := coder.MaxTimestamp
	for _, f := range p.waiting {
		hold = min(hold, f.hold)
	}
	return hold
}

// snapshot writes what waits.
func (p *pushback) snapshot(directory string) error {
	if err := p.flush(); err != nil {
		return err
	}
	return p.keyedStore.snapshot(directory)
}
