package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/btree"
)

// Overlay is a store with changes that are not in it yet: reads see them. It belongs to one goroutine at a time, and there
// is one of a store at a time, through which all of the store's reads and writes go.
type Overlay struct {
	store   *Store
	changes *btree.BTreeG[change]
	cleared *btree.BTreeG[span] // disjoint; the store's keys in them do not count
	size    int
	got     []byte           // what Get has answered with
	base    *pebble.Iterator // over the store as it is without the changes; nil before it is needed
}

type change struct {
	key, value []byte
	deleted    bool
}

// span is the keys from lo on and before hi.
type span struct{ lo, hi []byte }

const degree = 16

// NewOverlay returns the store with no changes. The caller commits or discards them, and closes the overlay before the
// store.
func (s *Store) NewOverlay() *Overlay {
	return &Overlay{
		store:   s,
		changes: btree.NewG(degree, func(a, b change) bool { return bytes.Compare(a.key, b.key) < 0 }),
		cleared: btree.NewG(degree, func(a, b span) bool { return bytes.Compare(a.lo, b.lo) < 0 }),
	}
}

// Next is a number greater than all that were returned before, of this store and of the checkpoints that it came from.
func (o *Overlay) Next() uint64 {
	o.store.next++
	return o.store.next
}

// Size is about how many bytes of changes are held in memory.
func (o *Overlay) Size() int { return o.size }

// Put stages a value. Key and value are the overlay's from now on.
func (o *Overlay) Put(key, value []byte) { o.stage(change{key: key, value: value}) }

// Delete stages the removal of a key, which need not be there. The key is the overlay's from now on.
func (o *Overlay) Delete(key []byte) { o.stage(change{key: key, deleted: true}) }

// changeBytes is about what a change costs besides its bytes.
const changeBytes = 96

func (o *Overlay) stage(c change) {
	old, replaced := o.changes.ReplaceOrInsert(c)
	if replaced {
		o.size -= len(old.key) + len(old.value) + changeBytes
	}
	o.size += len(c.key) + len(c.value) + changeBytes
}

// DeleteRange stages the removal of all keys from lo on and before hi. Both are the overlay's from now on.
func (o *Overlay) DeleteRange(lo, hi []byte) {
	var gone []change
	o.changes.AscendRange(change{key: lo}, change{key: hi}, func(c change) bool {
		gone = append(gone, c)
		return true
	})
	for _, c := range gone {
		o.changes.Delete(c)
		o.size -= len(c.key) + len(c.value) + changeBytes
	}
	// One span takes the place of all that it touches.
	in := span{lo, hi}
	var touched []span
	o.cleared.DescendLessOrEqual(in, func(s span) bool {
		if bytes.Compare(s.hi, lo) >= 0 {
			touched = append(touched, s)
		}
		return false
	})
	o.cleared.AscendRange(in, span{lo: hi}, func(s span) bool {
		touched = append(touched, s)
		return true
	})
	for _, s := range touched {
		o.cleared.Delete(s)
		o.size -= len(s.lo) + len(s.hi) + changeBytes
		if bytes.Compare(s.lo, in.lo) < 0 {
			in.lo = s.lo
		}
		if bytes.Compare(s.hi, in.hi) > 0 {
			in.hi = s.hi
		}
	}
	o.cleared.ReplaceOrInsert(in)
	o.size += len(in.lo) + len(in.hi) + changeBytes
}

// hides tells whether a key of the store does not count, and from where on keys do again.
func (o *Overlay) hides(key []byte) (until []byte, hidden bool) {
	o.cleared.DescendLessOrEqual(span{lo: key}, func(s span) bool {
		until, hidden = s.hi, bytes.Compare(key, s.hi) < 0
		return false
	})
	return until, hidden
}

// Get returns the value of a key; ok is false when there is none. The value is valid until the next call of a method.
func (o *Overlay) Get(key []byte) (value []byte, ok bool, err error) {
	if c, staged := o.changes.Get(change{key: key}); staged {
		return c.value, !c.deleted, nil
	}
	if _, hidden := o.hides(key); hidden {
		return nil, false, nil
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

func (o *Overlay) iterator() (*pebble.Iterator, error) {
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
	var failed error
	done := false
	// stored passes on the keys of the store before a key, and leaves the one with it out.
	ok := it.SeekGE(lo)
	stored := func(before []byte, skip bool) bool {
		for ok {
			key := it.Key()
			c := bytes.Compare(key, before)
			if c > 0 || c == 0 && !skip {
				return true
			}
			if c == 0 {
				ok = it.Next()
				return true
			}
			if until, hidden := o.hides(key); hidden {
				ok = it.SeekGE(until)
				continue
			}
			value, err := it.ValueAndErr()
			more := err == nil
			if more {
				more, err = f(key, value)
			} else {
				err = broken(err)
			}
			if !more || err != nil {
				failed, done = err, true
				return false
			}
			ok = it.Next()
		}
		return true
	}
	o.changes.AscendRange(change{key: lo}, change{key: hi}, func(c change) bool {
		if !stored(c.key, true) {
			return false
		}
		if c.deleted {
			return true
		}
		more, err := f(c.key, c.value)
		if !more || err != nil {
			failed, done = err, true
			return false
		}
		return true
	})
	if !done {
		stored(hi, false)
	}
	return errors.Join(failed, broken(it.Error()))
}

// Commit brings the changes into the store.
func (o *Overlay) Commit() error {
	batch := o.store.db.NewBatch()
	err := o.write(batch)
	if err == nil {
		err = batch.Commit(pebble.NoSync)
	}
	if err = errors.Join(err, batch.Close()); err != nil {
		return fmt.Errorf("store: write: %w", err)
	}
	return o.Discard()
}

// write turns cleared spans into removals of the keys that are there: many small range tombstones would double the cost of
// later reads.
func (o *Overlay) write(batch *pebble.Batch) error {
	if o.cleared.Len() > 0 {
		it, err := o.iterator()
		if err != nil {
			return err
		}
		o.cleared.Ascend(func(s span) bool {
			for ok := it.SeekGE(s.lo); ok && bytes.Compare(it.Key(), s.hi) < 0; ok = it.Next() {
				if err = batch.Delete(it.Key(), nil); err != nil {
					return false
				}
			}
			err = it.Error()
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	var err error
	o.changes.Ascend(func(c change) bool {
		if c.deleted {
			err = batch.Delete(c.key, nil)
		} else {
			err = batch.Set(c.key, c.value, nil)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	return batch.Set(sequence, binary.BigEndian.AppendUint64(nil, o.store.next), nil)
}

// Discard forgets the changes.
func (o *Overlay) Discard() error {
	o.changes.Clear(false)
	o.cleared.Clear(false)
	o.size = 0
	return o.Close()
}

// Close lets the store go. The overlay can be used again; changes stay.
func (o *Overlay) Close() error {
	if o.base == nil {
		return nil
	}
	err := o.base.Close()
	o.base = nil
	return broken(err)
}
