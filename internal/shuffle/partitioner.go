package shuffle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cespare/xxhash/v2"

	"trestle/internal/beam/coder"
)

// Partitioner cuts a harness's output into records and gathers them into keyed blocks. It belongs to one goroutine.
//
// It holds about 2.5 MiB once it has gathered [gatherBytes], whatever the number of key groups; that is not charged to a
// budget.
type Partitioner struct {
	records   *coder.Windowed
	keyGroups int
	emit      func(keyGroup int, block []byte) error
	err       error // the first failure: it stays

	panes   bool   // see KeepPanes
	paned   []byte // a pane and a value
	kv      coder.KV
	entries []byte    // what is gathered, in the order of arrival
	index   []located // where each of the entries is
	ends    []uint32  // per key group: counts, then where its entries end in order
	order   []uint32  // the index, by key group
	sorted  []byte    // the blocks, one behind the other
}

type located struct{ group, off, size uint32 }

// gatherBytes is how much is gathered before the blocks go out on their own: enough that with many key groups the blocks
// are not tiny, and still mostly in cache.
const gatherBytes = 1 << 20

// NewPartitioner returns a partitioner for records with the windowed coder w, whose element must be a KV. It hands each
// block to emit, which may use it only until it returns; blocks of one key group come in the order of the records.
func NewPartitioner(w *coder.Windowed, keyGroups int, emit func(keyGroup int, block []byte) error) (*Partitioner, error) {
	if _, _, ok := w.Value().KV(); !ok {
		return nil, fmt.Errorf("partition by key: coder %s is of %s, expected a windowed KV", w.Coder().ID(), w.Value().URN())
	}
	if keyGroups < 1 || keyGroups > math.MaxInt32 {
		return nil, fmt.Errorf("partition by key: expected at least one key group, got %d", keyGroups)
	}
	return &Partitioner{records: w, keyGroups: keyGroups, emit: emit, ends: make([]uint32, keyGroups)}, nil
}

// KeepPanes lets each entry's value begin with the encoded pane of its record: elements that are not grouped keep it.
func (p *Partitioner) KeepPanes() { p.panes = true }

// Write takes whole windowed values, one behind the other, as the SDK wrote them. A value in several windows becomes an
// entry for each. data is the caller's again when Write returns. An error, whether of malformed data or from emit, is
// final: Write and Flush return it from then on.
func (p *Partitioner) Write(data []byte) error {
	if p.err != nil {
		return p.err
	}
	total := len(data)
	for n := 0; len(data) > 0; n++ {
		if err := p.records.CutKV(data, &p.kv); err != nil {
			p.err = fmt.Errorf("cut the SDK's output into records: record %d, at byte %d of %d: %w", n, total-len(data), total, err)
			return p.err
		}
		if p.kv.Size <= 0 {
			p.err = fmt.Errorf("cut the SDK's output into records: record %d, at byte %d of %d, is empty", n, total-len(data), total)
			return p.err
		}
		if err := p.add(data); err != nil {
			return err
		}
		data = data[p.kv.Size:]
	}
	return nil
}

// add gathers the record that p.kv describes, which record starts with.
func (p *Partitioner) add(record []byte) error {
	key, value := p.kv.Key(record), p.kv.Value(record)
	if p.panes {
		p.paned = append(append(p.paned[:0], p.kv.Header.Pane(record)...), value...)
		value = p.paned
	}
	group := keyGroup(xxhash.Sum64(key), p.keyGroups)
	windows := p.kv.Header.Windows(record)
	if len(windows) == 0 {
		// The global window takes no bytes, and a value can be in it only once. One in no window at all is in no group.
		if p.kv.Header.Count == 0 {
			return nil
		}
		return p.gather(group, key, nil, p.kv.Header.Timestamp, value)
	}
	for len(windows) > 0 {
		n := len(windows)
		if p.kv.Header.Count > 1 {
			var err error
			if n, err = p.records.Window().Skip(windows); err != nil {
				p.err = fmt.Errorf("cut a record's windows: %w", err)
				return p.err
			}
			if n <= 0 {
				p.err = errors.New("cut a record's windows: expected windows that take at least a byte")
				return p.err
			}
		}
		if err := p.gather(group, key, windows[:n], p.kv.Header.Timestamp, value); err != nil {
			return err
		}
		windows = windows[n:]
	}
	return nil
}

func (p *Partitioner) gather(group int, key, window []byte, timestamp int64, value []byte) error {
	size := len(key) + len(window) + len(value) + 3*binary.MaxVarintLen64 + 8
	if len(p.entries)+size > gatherBytes {
		if err := p.Flush(); err != nil {
			return err
		}
		if size > math.MaxInt32 {
			p.err = fmt.Errorf("a record of %d bytes is larger than the %d that are supported", size, math.MaxInt32)
			return p.err
		}
	}
	off := len(p.entries)
	p.entries = appendEntry(p.entries, key, window, timestamp, value)
	p.index = append(p.index, located{uint32(group), uint32(off), uint32(len(p.entries) - off)})
	p.ends[group]++
	return nil
}

// Flush emits what is gathered, one block for each key group that has records.
func (p *Partitioner) Flush() error {
	if p.err != nil || len(p.index) == 0 {
		return p.err
	}
	// All of one key group are in order: of a large record there need not be another copy.
	if g := p.index[0].group; int(p.ends[g]) == len(p.index) {
		if p.err = p.emit(int(g), p.entries); p.err == nil {
			p.reset()
		}
		return p.err
	}
	// A counting sort: ends first holds how many entries a group has, then where they start, at last where they end.
	sum := uint32(0)
	for g, n := range p.ends {
		p.ends[g], sum = sum, sum+n
	}
	if cap(p.order) < len(p.index) {
		p.order = make([]uint32, cap(p.index))
	}
	p.order = p.order[:len(p.index)]
	for i := range p.index {
		g := p.index[i].group
		p.order[p.ends[g]] = uint32(i)
		p.ends[g]++
	}
	if cap(p.sorted) < len(p.entries) {
		p.sorted = make([]byte, 0, cap(p.entries))
	}
	p.sorted = p.sorted[:0]
	for i := 0; i < len(p.order); {
		group, start := p.index[p.order[i]].group, len(p.sorted)
		for end := int(p.ends[group]); i < end; i++ {
			e := p.index[p.order[i]]
			p.sorted = append(p.sorted, p.entries[e.off:e.off+e.size]...)
		}
		if p.err = p.emit(int(group), p.sorted[start:]); p.err != nil {
			return p.err
		}
	}
	p.reset()
	return nil
}

// reset forgets what is gathered, and the room that one very large record took.
func (p *Partitioner) reset() {
	clear(p.ends)
	p.index = p.index[:0]
	p.entries, p.sorted = p.entries[:0], p.sorted[:0]
	if cap(p.entries) > 2*gatherBytes {
		p.entries, p.sorted, p.paned = nil, nil, nil
	}
}
