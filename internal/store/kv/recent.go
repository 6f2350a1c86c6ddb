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
	asked change    // what is looked for: a tree wants it as an entry
	ends  [2]change // the same of what is walked
	order []uint32  // the trees' beginnings; sorted unless there are new ones
	known int       // how many of order are sorted
	count int       // of changes
	size  int       // about how many bytes they take
}

type tree = btree.BTreeG[entry]

// entry is a change, with the bytes of its key in which those of a tree differ as a rule: a time, or a user's key. Most
// comparisons need not look further, which would be in memory that is not in the cache.
type entry struct {
	lead   uint64
	change *change
}

const (
	degree = 32
	// treeBytes and leadBytes are how much of a key says in which tree it is, and how much after that is an entry's lead.
	treeBytes = 3
	leadBytes = 8
)

// entry is the change as a tree has it.
func (c *change) entry() entry { return entry{lead(c.key), c} }

// lead is what follows a key's beginning, as a number that sorts as it does.
func lead(key []byte) uint64 {
	rest := key[min(len(key), treeBytes):]
	if len(rest) >= leadBytes {
		return binary.BigEndian.Uint64(rest)
	}
	var b [leadBytes]byte
	copy(b[:], rest)
	return binary.BigEndian.Uint64(b[:])
}

// before tells which of two entries of a tree comes first.
func before(a, b entry) bool {
	if a.lead != b.lead {
		return a.lead < b.lead
	}
	return bytes.Compare(a.change.key, b.change.key) < 0
}

func newRecent() recent { return recent{trees: map[uint32]*tree{}} }

// beginning is a key's first bytes, as a number that sorts as they do.
func beginning(key []byte) uint32 {
	var b [4]byte
	copy(b[1:], key[:min(len(key), treeBytes)])
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
		t = btree.NewG(degree, before)
		r.trees[at] = t
		r.order = append(r.order, at)
	}
	replaced, known := t.ReplaceOrInsert(c.entry())
	r.size += c.bytes()
	if known {
		r.size -= replaced.change.bytes()
	} else {
		r.count++
	}
	return replaced.change
}

func (r *recent) get(key []byte) (c *change, known bool) {
	if t := r.trees[beginning(key)]; t != nil {
		r.asked.key = key
		found, known := t.Get(r.asked.entry())
		return found.change, known
	}
	return nil, false
}

func (r *recent) remove(key []byte) (was *change) {
	t := r.trees[beginning(key)]
	if t == nil {
		return nil
	}
	r.asked.key = key
	removed, known := t.Delete(r.asked.entry())
	if known {
		r.size -= removed.change.bytes()
		r.count--
	}
	return removed.change
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
	first, last := beginning(lo), beginning(hi)
	more := true
	each := func(e entry) bool {
		more = f(e.change)
		return more
	}
	// A tree's entries are told apart by what follows the beginning: only an end that is in the tree says something of them.
	walk := func(at uint32) {
		t := r.trees[at]
		if t == nil {
			return
		}
		r.ends[0].key, r.ends[1].key = lo, hi
		switch from, to := r.ends[0].entry(), r.ends[1].entry(); {
		case first == last:
			t.AscendRange(from, to, each)
		case at == first:
			t.AscendGreaterOrEqual(from, each)
		case at == last:
			t.AscendLessThan(to, each)
		default:
			t.Ascend(each)
		}
	}
	if last <= first+1 { // within a kind, as most are
		for at := first; at <= last && more; at++ {
			walk(at)
		}
		return
	}
	for _, at := range r.sorted() {
		if at >= first && at <= last && more {
			walk(at)
		}
	}
}

// last is the last change of a key before hi that begins like lo.
func (r *recent) last(lo, hi []byte) (last *change) {
	t := r.trees[beginning(lo)]
	if t == nil {
		return nil
	}
	if beginning(hi) != beginning(lo) {
		e, _ := t.Max()
		return e.change
	}
	r.asked.key = hi
	t.DescendLessOrEqual(r.asked.entry(), func(e entry) bool {
		if bytes.Equal(e.change.key, hi) {
			return true
		}
		last = e.change
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
		// Each may wait for a flush or a compaction.
		if err := s.unwanted(); err != nil {
			return err
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
		batch.Reset()
		return nil
	}
	add := func(e entry) bool {
		c := e.change
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
