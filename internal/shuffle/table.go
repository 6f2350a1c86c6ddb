package shuffle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Table is a multimap side input: the values of each key in each window. The entries are sorted as the grouper sorts
// them, in blocks that are on disk past the budget; in memory there is one number for each block. It is immutable and
// safe for concurrent use.
type Table struct {
	store     *Store
	keyGroups int
	entries   *blockList   // entries as in keyed blocks; no block has entries of two partitions
	keys      *blockList   // each key once for each of its windows: both with their lengths, window first
	parts     []blockRange // by partition
	first     []uint64     // the order of each block's first entry
}

// blockRange is the blocks from lo to before hi.
type blockRange struct{ lo, hi int }

// BuildTable reads all groups into a table. It leaves the grouper open: that can be closed once this returns.
func (s *Store) BuildTable(g *Groups) (*Table, error) {
	t := &Table{
		store: s, keyGroups: g.g.keyGroups,
		entries: s.newBlockList(s.tune.tableBlock), keys: s.newBlockList(s.tune.tableBlock),
		parts: make([]blockRange, len(g.g.parts)),
	}
	s.add(t)
	if err := t.build(g); err != nil {
		return nil, errors.Join(fmt.Errorf("build a side input's table: %w", err), t.Close())
	}
	return t, nil
}

func (t *Table) build(g *Groups) error {
	part := -1
	for {
		ok, err := g.Next()
		if err != nil {
			return err
		}
		if ok && g.open == part {
			if err := t.addGroup(g); err != nil {
				return err
			}
			continue
		}
		// The partition ends, and the block with it.
		if err := t.entries.flush(); err != nil {
			return err
		}
		if part >= 0 {
			t.parts[part].hi = t.entries.len()
		}
		if !ok {
			return errors.Join(t.entries.seal(), t.keys.seal())
		}
		part = g.open
		t.parts[part] = blockRange{lo: t.entries.len()}
		if err := t.addGroup(g); err != nil {
			return err
		}
	}
}

func (t *Table) addGroup(g *Groups) error {
	if err := t.keys.grow(len(g.Key()) + len(g.Window()) + 2*binary.MaxVarintLen64); err != nil {
		return err
	}
	t.keys.cur = appendPrefix(t.keys.cur, g.Window(), g.Key())
	order := sortOrder(t.store.hash(g.Key()))
	for {
		_, _, ok, err := g.NextValue()
		if !ok {
			return err
		}
		entry := g.merger.top().entry
		if err := t.entries.grow(len(entry)); err != nil {
			return err
		}
		if len(payload(t.entries.cur)) == 0 {
			if err := t.entries.charge(8); err != nil {
				return err
			}
			t.first = append(t.first, order)
		}
		t.entries.cur = append(t.entries.cur, entry...)
	}
}

func appendPrefix(b, first, second []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(first))), first...)
	return append(binary.AppendUvarint(b, uint64(len(second))), second...)
}

// Lookup returns the encoded values of a key in a window from page on, one behind the other: as many as fit into maxBytes,
// but at least one. next is the page of the value that follows, or -1 at the end. For a key that is not there it returns
// no data and -1. Page 0 is the start; any other must be one that Lookup returned for this key and window. The data is
// the caller's to keep.
func (t *Table) Lookup(key, window []byte, page int64, maxBytes int) (data []byte, next int64, err error) {
	prefix := appendPrefix(nil, key, window)
	hash := t.store.hash(key)
	part := t.parts[keyGroup(hash, t.keyGroups)%len(t.parts)]
	r := takeReader()
	defer r.done()
	block, off, err := t.entries.place(page)
	if err == nil && page == 0 {
		block, err = t.seek(r, part, sortOrder(hash), prefix)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("look a key up in a side input: %w", err)
	}
	data = []byte{}
	found := false
	for start := block; block < part.hi && t.first[block] <= sortOrder(hash); block, off = block+1, 0 {
		b, err := t.entries.read(r, block)
		if err != nil {
			return nil, 0, fmt.Errorf("look a key up in a side input: %w", err)
		}
		if page != 0 && block == start && !startsEntry(b, off, prefix) {
			break
		}
		for off < len(b) {
			n, size, err := cutEntry(b[off:])
			if err != nil {
				return nil, 0, fmt.Errorf("look a key up in a side input: byte %d of block %d: %w", off, block, err)
			}
			if !bytes.Equal(b[off:off+n], prefix) {
				if found {
					return data, -1, nil
				}
				off += size
				continue
			}
			_, value := entryRest(b[off+n:])
			if found && len(data)+len(value) > maxBytes {
				return data, pageAt(block, off), nil
			}
			data, found = append(data, value...), true
			off += size
		}
	}
	if page != 0 && !found {
		return nil, 0, fmt.Errorf("look a key up in a side input: page %d: expected one that an earlier lookup of this key returned", page)
	}
	return data, -1, nil
}

// seek returns the block in which the first entry with the prefix is, if there is any.
func (t *Table) seek(r *blockReader, part blockRange, order uint64, prefix []byte) (int, error) {
	first := t.first[part.lo:part.hi]
	// The blocks whose first entry has the order itself: many only if a key has many values, in several windows perhaps.
	lo, _ := slices.BinarySearch(first, order)
	hi := len(first)
	if order+1 != 0 {
		hi, _ = slices.BinarySearch(first, order+1)
	}
	// Among them, the first that starts with the prefix or something behind it.
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		b, err := t.entries.read(r, part.lo+mid)
		if err != nil {
			return 0, err
		}
		if comparePrefix(prefixOf(b), prefix) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	// What is looked for may start within the block before.
	return part.lo + max(lo-1, 0), nil
}

// startsEntry reports whether an entry with the prefix starts at off in b.
func startsEntry(b []byte, off int, prefix []byte) bool {
	o := 0
	for o < off && o < len(b) {
		_, size, err := cutEntry(b[o:])
		if err != nil {
			return false
		}
		o += size
	}
	return o == off && bytes.HasPrefix(b[o:], prefix)
}

// Keys returns the encoded keys that have values in a window, each once, as Lookup returns values.
func (t *Table) Keys(window []byte, page int64, maxBytes int) (data []byte, next int64, err error) {
	block, off, err := t.keys.place(page)
	if err != nil {
		return nil, 0, fmt.Errorf("list a side input's keys: %w", err)
	}
	r := takeReader()
	defer r.done()
	data = []byte{}
	found := false
	for start := block; block < t.keys.len(); block, off = block+1, 0 {
		b, err := t.keys.read(r, block)
		if err != nil {
			return nil, 0, fmt.Errorf("list a side input's keys: %w", err)
		}
		if block == start && off != 0 && !startsKey(b, off) {
			return nil, 0, fmt.Errorf("list a side input's keys: page %d: expected one that an earlier call returned", page)
		}
		for off < len(b) {
			w, end := cutPrefixed(b, off)
			key, end := cutPrefixed(b, end)
			if end < 0 {
				return nil, 0, fmt.Errorf("list a side input's keys: expected a window and a key at byte %d of block %d", off, block)
			}
			if bytes.Equal(w, window) {
				if found && len(data)+len(key) > maxBytes {
					return data, pageAt(block, off), nil
				}
				data, found = append(data, key...), true
			}
			off = end
		}
	}
	return data, -1, nil
}

func startsKey(b []byte, off int) bool {
	o := 0
	for o >= 0 && o < off {
		o = skipPrefixed(b, skipPrefixed(b, o))
	}
	return o == off && off < len(b)
}

// Close releases everything, the disk's space included. It may be called at any time; whoever reads then gets
// [ErrClosed]. It is idempotent.
func (t *Table) Close() error {
	t.store.remove(t)
	return errors.Join(t.entries.close(), t.keys.close())
}
