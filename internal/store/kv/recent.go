package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/google/btree"
)

// change is what has become of a key since the store's files were written.
type change struct {
	key, value []byte
	deleted    bool
	fresh      bool // the files have nothing of the key
}

// changeBytes is about what a change costs besides its bytes.
const changeBytes = 96

func (c *change) bytes() int { return len(c.key) + len(c.value) + changeBytes }

// recent is the changes of a store that are not in its files, in the order of keys. What is fresh is never deleted: it goes.
// A change that is in it does not change any more.
//
// Keys that begin alike (key group and kind) have a tree of their own: what a task does next is mostly of the key group of what it
// did before, and a small tree stays in the processor's cache.
type recent struct {
	trees map[uint32]*tree
	order []uint32 // the trees' beginnings; sorted unless there are new ones
	known int      // how many of order are sorted
	count int      // of changes
	size  int      // about how many bytes they take
}

type tree = btree.BTreeG[*change]

const degree = 32

func newRecent() recent { return recent{trees: map[uint32]*tree{}} }

// beginning is a key's first bytes, as a number that sorts as they do.
func beginning(key []byte) uint32 {
	var b [4]byte
	copy(b[1:], key[:min(len(key), 3)])
	return binary.BigEndian.Uint32(b[:])
}

// set sets what there is of a key, and answers with what there was, or nil. Whether it is fresh is for the caller to say only if
// there was nothing.
func (r *recent) set(c *change) (was *change) {
	was = r.put(c)
	if was != nil {
		c.fresh = was.fresh
	}
	return was
}

// put sets what there is of a key, and answers with what there was, or nil.
func (r *recent) put(c *change) (was *change) {
	at := beginning(c.key)
	t := r.trees[at]
	if t == nil {
		t = btree.NewG(degree, func(a, b *change) bool { return bytes.Compare(a.key, b.key) < 0 })
		r.trees[at] = t
		r.order = append(r.order, at)
	}
	was, known := t.ReplaceOrInsert(c)
	r.size += c.bytes()
	if known {
		r.size -= was.bytes()
	} else {
		r.count++
	}
	return was
}

func (r *recent) get(key []byte) (c *change, known bool) {
	if t := r.trees[beginning(key)]; t != nil {
		return t.Get(&change{key: key})
	}
	return nil, false
}

func (r *recent) remove(key []byte) (was *change) {
	t := r.trees[beginning(key)]
	if t == nil {
		return nil
	}
	was, known := t.Delete(&change{key: key})
	if known {
		r.size -= was.bytes()
		r.count--
	}
	return was
}

// restore takes a change of a key back, before which there was that.
func (r *recent) restore(key []byte, was *change) {
	r.remove(key)
	if was != nil {
		r.put(was)
	}
}

// ascend calls f with the changes of keys from lo on and before hi, in order, until it answers false.
func (r *recent) ascend(lo, hi []byte, f func(*change) bool) {
	from, to := &change{key: lo}, &change{key: hi}
	first, last := beginning(lo), beginning(hi)
	if last <= first+1 { // within a kind, as most are
		more := true
		for at := first; at <= last && more; at++ {
			if t := r.trees[at]; t != nil {
				t.AscendRange(from, to, func(c *change) bool {
					more = f(c)
					return more
				})
			}
		}
		return
	}
	more := true
	for _, at := range r.sorted() {
		if at >= first && at <= last && more {
			r.trees[at].AscendRange(from, to, func(c *change) bool {
				more = f(c)
				return more
			})
		}
	}
}

// last is the last change of a key before hi that begins like lo.
func (r *recent) last(lo, hi []byte) (last *change) {
	t := r.trees[beginning(lo)]
	if t == nil {
		return nil
	}
	t.DescendLessOrEqual(&change{key: hi}, func(c *change) bool {
		if bytes.Equal(c.key, hi) {
			return true
		}
		last = c
		return false
	})
	return last
}

// sorted is the trees' beginnings in their order.
func (r *recent) sorted() []uint32 {
	if r.known < len(r.order) {
		slices.Sort(r.order)
		r.known = len(r.order)
	}
	return r.order
}

// batchBytes is about how much goes to the files' memory table at a time.
const batchBytes = 512 << 10

// full tells whether recent changes are to go to the files, after it has told the cache how many there are.
func (s *Store) full() bool {
	unwritten := s.cache.unwritten.Add(int64(s.recent.size - s.charged))
	s.charged = s.recent.size
	if int64(s.charged) <= s.cache.floor() {
		return false
	}
	return s.charged > mostRecent || unwritten > s.cache.bytes
}

// mostRecent bounds the recent changes of a store: a checkpoint waits until they are written.
const mostRecent = 40 << 20

// write brings all recent changes into the files.
func (s *Store) write() error {
	batch := s.db.NewBatch()
	var err error
	push := func() error {
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
		batch.Reset()
		return nil
	}
	add := func(c *change) bool {
		if c.deleted {
			err = batch.Delete(c.key, nil)
		} else {
			err = batch.Set(c.key, c.value, nil)
		}
		if err == nil && batch.Len() >= batchBytes {
			err = push()
		}
		return err == nil
	}
	for _, at := range s.recent.sorted() {
		if err == nil {
			s.recent.trees[at].Ascend(add)
		}
	}
	if err == nil && s.next != s.nextWritten {
		err = batch.Set(sequence, binary.BigEndian.AppendUint64(nil, s.next), nil)
	}
	if err == nil {
		err = push()
	}
	if err != nil {
		_ = batch.Close() // there is nothing to be lost by it any more
		return fmt.Errorf("store: write: %w", err)
	}
	s.nextWritten = s.next
	s.writes++
	s.forget()
	return batch.Close()
}

// forget empties the recent changes.
func (s *Store) forget() {
	s.recent = newRecent()
	s.cache.unwritten.Add(-int64(s.charged))
	s.charged = 0
}
