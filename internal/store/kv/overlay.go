package kv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Overlay is a store with changes that are not in it yet: reads see them. It belongs to one goroutine at a time, and there
// is one of a store at a time, through which all of the store's reads and writes go.
//
// Committed changes stay in memory as long as the [Cache] has room for them (recent): what is put and deleted before the next
// checkpoint, such as most timers, never costs the store anything.
type Overlay struct {
	store  *Store
	direct bool             // committed changes go to the store's files at once
	undo   []undo           // of the changes since the last commit
	size   int              // of the changes since the last commit
	got    []byte           // what Get has answered with
	base   *pebble.Iterator // over the store's files; nil before it is needed
	bare   span             // the files have no key in it
	of     int              // what base and bare are of: Store.writes
}

// undo is what there was of a key in the store's recent changes before a change; nil when there was nothing.
type undo struct {
	key []byte
	was *change
}

// span is the keys from lo on and before hi.
type span struct{ lo, hi []byte }

// holds tells whether all keys from lo on and before hi are in the span.
func (s span) holds(lo, hi []byte) bool {
	return s.hi != nil && bytes.Compare(s.lo, lo) <= 0 && bytes.Compare(hi, s.hi) <= 0
}

// NewOverlay returns the store with no changes. The caller commits or discards them, and closes the overlay before the
// store.
func (s *Store) NewOverlay() *Overlay { return &Overlay{store: s} }

// NewDirectOverlay is NewOverlay for a store that is read by [Store.Freeze] as well: its commits reach the files at once.
func (s *Store) NewDirectOverlay() *Overlay { return &Overlay{store: s, direct: true} }

// Next is a number greater than all that were returned before, of this store and of the checkpoints that it came from.
func (o *Overlay) Next() uint64 {
	o.store.next++
	return o.store.next
}

// Size is about how many bytes of changes there are since the last commit.
func (o *Overlay) Size() int { return o.size }

// Put stages a value. Key and value are the overlay's from now on.
func (o *Overlay) Put(key, value []byte) { o.stage(&change{key: key, value: value}) }

// Insert is Put for a key of which the caller knows that it is not there, as Get would tell: when it is deleted before it has
// reached a file, nothing is left of it.
func (o *Overlay) Insert(key, value []byte) { o.stage(&change{key: key, value: value, fresh: true}) }

// Delete stages the removal of a key, which need not be there. The key is the overlay's from now on.
func (o *Overlay) Delete(key []byte) {
	was := o.store.recent.remove(key)
	if was == nil || !was.fresh {
		o.store.recent.set(&change{key: key, deleted: true})
	}
	o.note(undo{key, was}, len(key)+changeBytes)
}

// stage makes a change that leaves an entry.
func (o *Overlay) stage(c *change) { o.note(undo{c.key, o.store.recent.set(c)}, c.bytes()) }

// note keeps what is needed to take a change of about so many bytes back.
func (o *Overlay) note(u undo, size int) {
	o.undo = append(o.undo, u)
	o.size += size
}

// DeleteRange stages the removal of all keys from lo on and before hi.
func (o *Overlay) DeleteRange(lo, hi []byte) error {
	var gone [][]byte
	o.store.recent.ascend(lo, hi, func(c *change) bool {
		if !c.deleted {
			gone = append(gone, c.key)
		}
		return true
	})
	for _, key := range gone {
		o.Delete(key)
	}
	it, err := o.iterator()
	if err != nil || o.bare.holds(lo, hi) {
		return err
	}
	// One by one: many small range tombstones would double the cost of later reads.
	for ok := it.SeekGE(lo); ok && bytes.Compare(it.Key(), hi) < 0; ok = it.Next() {
		if _, known := o.store.recent.get(it.Key()); !known {
			o.Delete(slices.Clone(it.Key()))
		}
	}
	return broken(it.Error())
}

// Get returns the value of a key; ok is false when there is none. The value is valid until the next call of a method.
func (o *Overlay) Get(key []byte) (value []byte, ok bool, err error) {
	if c, known := o.store.recent.get(key); known {
		return c.value, !c.deleted, nil
	}
	// Not by the iterator: this asks the tables' filters, and stops at the newest that has the key.
	value, closer, err := o.store.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, broken(err)
	}
	o.got = append(o.got[:0], value...)
	return o.got, true, broken(closer.Close())
}

// Has tells whether a key is there. Its value is not read.
func (o *Overlay) Has(key []byte) (bool, error) {
	if c, known := o.store.recent.get(key); known {
		return !c.deleted, nil
	}
	it, err := o.iterator()
	if err != nil {
		return false, err
	}
	ok := it.SeekGE(key) && bytes.Equal(it.Key(), key)
	return ok, broken(it.Error())
}

// Last returns the last key from lo on and before hi, and its value, if no file can have one there: ok is false where there is
// none, and where that is not known. Both are valid until the next call of a method.
func (o *Overlay) Last(lo, hi []byte) (key, value []byte, ok bool) {
	c := o.store.recent.last(lo, hi)
	if c == nil || !c.fresh || bytes.Compare(c.key, lo) < 0 {
		return nil, nil, false
	}
	return c.key, c.value, true
}

// Fresh tells whether a key is there that is in no file.
func (o *Overlay) Fresh(key []byte) bool {
	c, known := o.store.recent.get(key)
	return known && c.fresh
}

// Bare says that no file has a key from lo on and before hi: the next calls need not look.
func (o *Overlay) Bare(lo, hi []byte) {
	if o.of != o.store.writes {
		return // iterator begins anew
	}
	o.bare = span{append(o.bare.lo[:0], lo...), append(o.bare.hi[:0], hi...)}
}

// iterator is over the store's files as they are, of which bare is true as well.
func (o *Overlay) iterator() (*pebble.Iterator, error) {
	if o.of != o.store.writes {
		if err := o.Close(); err != nil {
			return nil, err
		}
		o.of = o.store.writes
	}
	if o.base == nil {
		var err error
		if o.base, err = o.store.db.NewIter(&pebble.IterOptions{UpperBound: sequence}); err != nil {
			return nil, broken(err)
		}
	}
	return o.base, nil
}

func broken(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("store: read: %w", err)
}

// Scan calls f with the keys from lo on and before hi, in order, until it answers false or fails. Key and value are valid
// until f returns, and no other method may be called before Scan has returned.
func (o *Overlay) Scan(lo, hi []byte, f func(key, value []byte) (more bool, err error)) error {
	it, err := o.iterator()
	if err != nil {
		return err
	}
	s := scan{f: f}
	if !o.bare.holds(lo, hi) {
		s.files = it
		s.ok = it.SeekGE(lo)
		if !s.ok || bytes.Compare(it.Key(), hi) >= 0 {
			s.ok = false
			if it.Error() == nil {
				o.bare = span{append(o.bare.lo[:0], lo...), append(o.bare.hi[:0], hi...)}
			}
		}
	}
	o.store.recent.ascend(lo, hi, s.changed)
	if !s.done {
		s.stored(hi)
	}
	if s.files != nil {
		s.err = errors.Join(s.err, broken(s.files.Error()))
	}
	return s.err
}

// scan is a Scan under way.
type scan struct {
	f     func(key, value []byte) (more bool, err error)
	files *pebble.Iterator
	ok    bool // it is at a key
	done  bool
	err   error
}

// changed passes on an entry of the recent changes, and what the files have before it.
func (s *scan) changed(c *change) bool {
	s.stored(c.key)
	if s.done {
		return false
	}
	if s.ok && bytes.Equal(s.files.Key(), c.key) {
		s.ok = s.files.Next()
	}
	if !c.deleted {
		s.pass(c.key, c.value)
	}
	return !s.done
}

// stored passes on what the files have before a key.
func (s *scan) stored(before []byte) {
	for s.ok && !s.done && bytes.Compare(s.files.Key(), before) < 0 {
		value, err := s.files.ValueAndErr()
		if err != nil {
			s.err, s.done = broken(err), true
			return
		}
		s.pass(s.files.Key(), value)
		if !s.done {
			s.ok = s.files.Next()
		}
	}
}

func (s *scan) pass(key, value []byte) {
	more, err := s.f(key, value)
	s.err, s.done = err, !more || err != nil
}

// Commit makes the changes the store's.
func (o *Overlay) Commit() error {
	o.forget()
	s := o.store
	if !o.direct && !s.full() {
		return nil
	}
	if err := o.Close(); err != nil {
		return err
	}
	return s.write()
}

// Discard forgets the changes since the last commit.
func (o *Overlay) Discard() error {
	for _, u := range slices.Backward(o.undo) {
		o.store.recent.restore(u.key, u.was)
	}
	o.forget()
	return nil
}

// forget forgets how to take changes back.
func (o *Overlay) forget() {
	clear(o.undo)
	if cap(o.undo) > mostUndo {
		o.undo = nil
	}
	o.undo, o.size = o.undo[:0], 0
}

// mostUndo is how many changes' room is kept for the next bundle.
const mostUndo = 4 << 10

// Close lets the store go. The overlay can be used again; changes stay.
func (o *Overlay) Close() error {
	o.bare = span{}
	if o.base == nil {
		return nil
	}
	err := o.base.Close()
	o.base = nil
	return broken(err)
}
