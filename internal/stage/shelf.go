package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"trestle/internal/beam/coder"
	"trestle/internal/store/kv"
)

// shelf is what a splittable DoFn has put off, in an ordered store of its own, by when it is due (docs/formats/state.md): however much
// lies there, what is due next and what holds the watermark is found at once, and memory has only what the store's cache does. The store
// is there from when something is put off first.
type shelf struct {
	keyedStore
	rests   line // what waits
	drained line // the same of what a drain has truncated
	holds   line
}

// Kinds of entries of its store. All are of key group 0; behind the time is a number, which is that of the part.
const (
	kindRests   kind = 'p' // when it is due, number → hold, flags, record
	kindDrained kind = 'd' // the same
	kindHolds   kind = 'h' // hold, number → nothing
)

// shelfName is the store's folder in the task's own, and in a snapshot.
const shelfName = "later"

// line is entries of one kind in their order. It knows where they begin: where many were taken out that have the time of one that is
// left, a look from that time on would pass all their graves.
type line struct {
	kind kind
	from []byte // no entry is before it; nil when there is none at all
	sure bool   // the first is there
}

func (l *line) put(key []byte) {
	if l.from == nil || bytes.Compare(key, l.from) < 0 {
		l.from, l.sure = key, true
	}
}

// gone says that an entry was taken out.
func (l *line) gone(key []byte) {
	if bytes.Equal(key, l.from) {
		l.sure = false
	}
}

func newShelf(s Spec) (*shelf, error) {
	own := s
	own.Index, own.Parallelism, own.KeyGroups, own.Restore = 0, 1, 1, nil
	if s.same() {
		own.Restore = []Restore{{Directory: s.Restore[0].Directory, Parallelism: 1}}
	}
	h := &shelf{keyedStore: newKeyedStore(own), rests: line{kind: kindRests}, drained: line{kind: kindDrained}, holds: line{kind: kindHolds}}
	h.folder = shelfName
	if err := h.restore(); err != nil {
		return nil, err
	}
	h.spec.Restore = nil // a store that is made later begins with nothing
	if h.opened() {
		for _, l := range h.lines() {
			l.from = begin(nil, l.kind, 0)
		}
	}
	if s.same() {
		return h, nil
	}
	if err := h.deal(s); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *shelf) lines() []*line { return []*line{&h.rests, &h.drained, &h.holds} }

// shelfKey is the key of an entry, with the time at which it stands.
func shelfKey(kd kind, at int64, number []byte) []byte {
	return append(coder.AppendTimestamp(begin(make([]byte, 0, queueBytes+len(number)), kd, 0), at), number...)
}

// deal takes what is this task's of what tasks of another number put off: it is dealt out in turn, so that all get some.
func (h *shelf) deal(s Spec) error {
	n := 0
	for _, r := range s.Restore {
		checkpoint := filepath.Join(r.Directory, shelfName)
		if _, err := os.Stat(checkpoint); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := h.dealOne(s, checkpoint, &n); err != nil {
			return fmt.Errorf("%s: %w", checkpoint, err)
		}
	}
	if !h.opened() {
		return nil
	}
	return h.over.Commit()
}

func (h *shelf) dealOne(s Spec, checkpoint string, n *int) (err error) {
	dir := filepath.Join(s.State.Directory, shelfName+"-dealt")
	store, err := kv.Open(s.wanted, dir, s.State.Cache, s.Log, []string{checkpoint}, []byte{0, 0}, []byte{0, 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	over := store.NewOverlay()
	defer func() { err = errors.Join(err, over.Close()) }()
	for _, l := range []*line{&h.rests, &h.drained} {
		err := over.Scan(begin(nil, l.kind, 0), begin(nil, l.kind+1, 0), func(key, value []byte) (bool, error) {
			if *n++; (*n-1)%s.Parallelism != s.Index {
				return true, nil
			}
			p, err := readPutOff(key, value)
			if err != nil {
				return false, err
			}
			return true, h.put(l, p)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// put puts a part of an element into a line, at when it is due.
func (h *shelf) put(l *line, p putOff) error {
	if err := h.open(); err != nil {
		return err
	}
	number := binary.BigEndian.AppendUint64(nil, h.over.Next())
	key := shelfKey(l.kind, p.due, number)
	h.over.Insert(key, p.append(make([]byte, 0, binary.MaxVarintLen64+1+len(p.record))))
	l.put(key)
	if p.hold < coder.MaxTimestamp { // else it holds nothing
		key := shelfKey(kindHolds, p.hold, number)
		h.over.Insert(key, nil)
		h.holds.put(key)
	}
	if h.over.Size() < sendBytes {
		return nil
	}
	return h.over.Commit()
}

// readPutOff reads an entry; what there is of it is the store's no longer.
func readPutOff(key, value []byte) (p putOff, err error) {
	p, ok := cutPutOff(value)
	if len(key) != queueBytes+numberBytes || !ok {
		return p, fmt.Errorf("a part of an element: %w", ErrSnapshot)
	}
	p.due = coder.Timestamp(key[placeBytes:])
	return p, nil
}

// append appends what there is of a part but when it is due: its hold as a varint, a byte that says whether it is unbounded, its record.
func (p putOff) append(b []byte) []byte {
	return append(append(binary.AppendVarint(b, p.hold), boolByte(p.unbounded)), p.record...)
}

// cutPutOff is append's inverse. The part keeps nothing of b.
func cutPutOff(b []byte) (p putOff, ok bool) {
	hold, n := binary.Varint(b)
	if n <= 0 || len(b) <= n || b[n] > 1 {
		return p, false
	}
	return putOff{record: bytes.Clone(b[n+1:]), hold: hold, unbounded: b[n] == 1}, true
}

// numberBytes is how long the number at the end of a key is.
const numberBytes = 8

// take takes out what is first in a line, of what is due at a time: so many at the most, and about resumeBytes of them.
func (h *shelf) take(l *line, until int64, count int) ([]putOff, error) {
	if l.from == nil {
		return nil, nil
	}
	var parts []putOff
	var keys [][]byte
	size := 0
	err := h.over.Scan(l.from, begin(nil, l.kind+1, 0), func(key, value []byte) (bool, error) {
		if coder.Timestamp(key[placeBytes:]) > until {
			return false, nil
		}
		p, err := readPutOff(key, value)
		if err != nil {
			return false, err
		}
		parts, keys = append(parts, p), append(keys, bytes.Clone(key))
		size += len(value)
		return size < resumeBytes && len(parts) < count, nil
	})
	if err != nil || len(parts) == 0 {
		return nil, err
	}
	l.from, l.sure = bytes.Clone(keys[len(keys)-1]), false
	for i, key := range keys {
		if hold := parts[i].hold; hold < coder.MaxTimestamp {
			held := shelfKey(kindHolds, hold, key[queueBytes:])
			h.holds.gone(held)
			h.over.Delete(held)
		}
		h.over.Delete(key)
	}
	return parts, h.over.Commit()
}

// first is the time of a line's first entry; never when it has none.
func (h *shelf) first(l *line) (int64, error) {
	if l.from != nil && !l.sure {
		var first []byte
		if err := h.over.Scan(l.from, begin(nil, l.kind+1, 0), func(key, _ []byte) (bool, error) {
			first = bytes.Clone(key)
			return false, nil
		}); err != nil {
			return 0, err
		}
		if first != nil && len(first) != queueBytes+numberBytes {
			return 0, fmt.Errorf("a part of an element: %w", ErrSnapshot)
		}
		l.from, l.sure = first, true
	}
	if l.from == nil {
		return never, nil
	}
	return coder.Timestamp(l.from[placeBytes:]), nil
}

// any tells whether something is in a line.
func (h *shelf) any(l *line) (bool, error) {
	_, err := h.first(l)
	return l.from != nil, err
}

// some tells whether something is put off.
func (h *shelf) some() (bool, error) {
	if some, err := h.any(&h.rests); some || err != nil {
		return some, err
	}
	return h.any(&h.drained)
}

// snapshot writes what is put off.
func (h *shelf) snapshot(directory string) error {
	if some, err := h.some(); !some || err != nil {
		return err
	}
	return h.keyedStore.snapshot(directory)
}
