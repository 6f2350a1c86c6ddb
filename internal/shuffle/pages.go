package shuffle

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// Pages keeps records that can be read again from any page on: an iterable side input, or a group that is too large for
// one message. Past the budget it is on disk.
type Pages struct {
	store *Store
	list  *blockList

	mu     sync.Mutex
	err    error // a failed append: final
	sealed bool
	size   int64
	count  int64
}

// NewPages returns empty pages.
func (s *Store) NewPages() *Pages {
	p := &Pages{store: s, list: s.newBlockList(s.tune.block)}
	s.add(p)
	return p
}

// Append adds a record, which it copies. It may be called concurrently, until Seal.
func (p *Pages) Append(rec []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.sealed:
		return ErrSealed
	case p.err != nil:
		return p.err
	}
	if p.err = p.list.grow(binary.MaxVarintLen64 + len(rec)); p.err != nil {
		return p.err
	}
	p.list.cur = append(binary.AppendUvarint(p.list.cur, uint64(len(rec))), rec...)
	p.size += int64(len(rec))
	p.count++
	return nil
}

// Seal ends the appending; reading is possible from then on.
func (p *Pages) Seal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.sealed:
		return ErrSealed
	case p.err != nil:
		return p.err
	}
	if p.err = p.list.seal(); p.err != nil {
		return p.err
	}
	p.sealed = true
	return nil
}

// Read returns whole records from page on, one behind the other: as many as fit into maxBytes, but at least one. next is
// the page of the record that follows, or -1 at the end. Page 0 is the start; any other must be one that Read returned.
// The data is the caller's to keep. It may be called concurrently, after Seal.
func (p *Pages) Read(page int64, maxBytes int) (data []byte, next int64, err error) {
	if !p.isSealed() {
		return nil, 0, fmt.Errorf("read page %d: not sealed yet", page)
	}
	block, off, err := p.list.place(page)
	if err != nil {
		return nil, 0, err
	}
	r := takeReader()
	defer r.done()
	data = []byte{}
	for first := true; block < p.list.len(); block, off = block+1, 0 {
		b, err := p.list.read(r, block)
		if err != nil {
			return nil, 0, fmt.Errorf("read page %d: %w", page, err)
		}
		if first && !startsRecord(b, off) {
			return nil, 0, fmt.Errorf("page %d: expected one that an earlier read returned", page)
		}
		for off < len(b) {
			rec, end := cutPrefixed(b, off)
			if end < 0 {
				return nil, 0, fmt.Errorf("read page %d: expected a length-prefixed record at byte %d of block %d", page, off, block)
			}
			if !first && len(data)+len(rec) > maxBytes {
				return data, pageAt(block, off), nil
			}
			data, off, first = append(data, rec...), end, false
		}
	}
	return data, -1, nil
}

// startsRecord reports whether one of the length-prefixed records of b starts at off.
func startsRecord(b []byte, off int) bool {
	o := 0
	for o >= 0 && o < off {
		o = skipPrefixed(b, o)
	}
	return o == off && off < len(b) || off == 0
}

func (p *Pages) isSealed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sealed
}

// Size is the number of bytes of all records together.
func (p *Pages) Size() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size
}

// Count is the number of records.
func (p *Pages) Count() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Close releases everything, the disk's space included. It may be called at any time; whoever reads or appends then gets
// [ErrClosed]. It is idempotent.
func (p *Pages) Close() error {
	p.store.remove(p)
	return p.list.close()
}
