package shuffle

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ErrSealed is what Add, Append and the like return after Seal.
var ErrSealed = errors.New("shuffle: sealed")

// Grouper brings the entries of equal key and window together, in bounded memory: an external sort by the key's hash.
//
// Entries are kept in chunks, by partition, untouched. When the budget refuses more, one partition is sorted (its index,
// not its bytes) and appended to the grouper's one spill file as a run. The iteration sorts what is left of each
// partition and merges it with the partition's runs. Sorting partitions instead of everything keeps the gathering of
// records in cache, which is what a sort of small records costs most.
//
// An open attempt has a log of the blocks as they came, and when that is large, partitions and runs of its own, which
// become the grouper's when the attempt is kept.
type Grouper struct {
	store     *Store
	keyGroups int
	account   account
	closed    atomic.Bool

	mu      sync.Mutex // guards what follows while entries are added; afterwards it is the iteration's
	err     error      // a failed spill: final, for what was to be written is lost
	sealed  bool
	parts   []partition
	open    []*tentative // attempts that are not settled
	settled []*tentative // empty, to be used again: no more than were open at a time
	free    [][]byte     // empty chunks of full size, still charged
	sorter  sorter
	indexed int // records whose sorting is charged
	file    *spillFile
	block   []byte // where the records of a run are gathered for the disk
}

// partition holds the entries of some of the key groups.
type partition struct {
	chunks  [][]byte
	bytes   int64 // that the chunks occupy
	used    int64 // that are in the chunks
	records int
	runs    []run

	tentative bool // an open attempt's, and in use
}

// run is a sorted part of a partition: consecutive blocks of the spill file.
type run struct {
	off, end int64
	maxBlock int  // the largest block's payload
	packed   bool // some block is compressed
}

// buffers is what reading the run takes.
func (r *run) buffers() int64 {
	if r.packed {
		return 2 * int64(r.maxBlock)
	}
	return int64(r.maxBlock)
}

// runCost is what a run's description takes in memory: itself, and what the slice may have in reserve.
const runCost = 48

// indexCost is what sorting takes for a record: an index entry and its copy.
const indexCost = 32

// NewGrouper returns a grouper for keys that are spread over keyGroups key groups, of which any may come.
func (s *Store) NewGrouper(keyGroups int) *Grouper {
	g := &Grouper{
		store: s, keyGroups: max(keyGroups, 1), account: s.account(),
		parts: make([]partition, min(max(keyGroups, 1), s.tune.partitions)),
		file:  &spillFile{store: s},
	}
	s.add(g)
	return g
}

// Add takes the entries of a keyed block, which it copies. Those of an attempt other than 0 count once it is settled: see
// [Grouper.Settle]. It may be called concurrently. A malformed block is refused whole. A failed spill is final.
func (g *Grouper) Add(a Attempt, keyGroup int, block []byte) error {
	if len(block) == 0 {
		return nil
	}
	if err := g.check(keyGroup, block); err != nil {
		return fmt.Errorf("group a block of key group %d: %w", keyGroup, err)
	}
	n, err := countEntries(block)
	if err != nil {
		return fmt.Errorf("group a block of key group %d: %w", keyGroup, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed.Load():
		return ErrClosed
	case g.sealed:
		return ErrSealed
	case g.err != nil:
		return g.err
	}
	i := keyGroup % len(g.parts)
	if a != 0 {
		g.err = g.addTentative(a, i, block, n)
	} else {
		g.err = g.add(&g.parts[i], block, n)
	}
	return g.err
}

// check sees that the block's first key is of the key group: a key in two partitions would make two groups.
func (g *Grouper) check(group int, block []byte) error {
	if group < 0 || group >= g.keyGroups {
		return fmt.Errorf("expected a key group below %d", g.keyGroups)
	}
	key, end := cutPrefixed(block, 0)
	if end < 0 {
		return fmt.Errorf("expected a length-prefixed key in %d bytes", len(block))
	}
	if want := keyGroup(g.store.hash(key), g.keyGroups); want != group {
		return fmt.Errorf("its first key is of key group %d of %d", want, g.keyGroups)
	}
	return nil
}

func (g *Grouper) add(p *partition, block []byte, records int) error {
	for len(block) > 0 {
		room := 0
		if n := len(p.chunks); n > 0 {
			room = cap(p.chunks[n-1]) - len(p.chunks[n-1])
		}
		size, count := len(block), records
		if size > room {
			var err error
			if size, count, err = fit(block, room); err != nil {
				return err
			}
		}
		if count == 0 {
			_, need, err := cutEntry(block)
			if err != nil {
				return err
			}
			if err := g.grow(p, need); err != nil {
				return err
			}
			continue
		}
		if p.records+count > g.indexed {
			if err := g.growIndex(p, p.records+count); err != nil {
				return err
			}
			continue // p may have been spilled
		}
		last := &p.chunks[len(p.chunks)-1]
		*last = append(*last, block[:size]...)
		p.used += int64(size)
		p.records += count
		records -= count
		block = block[size:]
	}
	return nil
}

// fit returns how many of the block's entries, of how many bytes together, fit into room.
func fit(block []byte, room int) (size, count int, err error) {
	for size < len(block) {
		_, n, err := cutEntry(block[size:])
		if err != nil {
			return 0, 0, err
		}
		if size+n > room {
			break
		}
		size += n
		count++
	}
	return size, count, nil
}

// grow gives p a chunk with room for an entry of size bytes.
func (g *Grouper) grow(p *partition, size int) error {
	t := &g.store.tune
	if p.bytes >= t.runBytes || p.records >= t.runRecords {
		if err := g.spill(p); err != nil {
			return err
		}
	}
	want := t.firstChunk
	if n := len(p.chunks); n > 0 {
		want = min(2*cap(p.chunks[n-1]), t.chunk)
	}
	if want = max(want, min(size, t.chunk)); size > t.chunk {
		want = size // an entry larger than a chunk has one to itself
	}
	chunk, err := g.chunk(want, !p.tentative || want == t.chunk)
	if err != nil {
		return err
	}
	p.chunks = append(p.chunks, chunk)
	p.bytes += int64(cap(chunk))
	return nil
}

// chunk returns an empty chunk of the given size, or if it may be larger, of the full size when there is one to be used
// again.
func (g *Grouper) chunk(size int, larger bool) ([]byte, error) {
	for {
		if n := len(g.free); n > 0 && larger && size <= g.store.tune.chunk {
			c := g.free[n-1]
			g.free = g.free[:n-1]
			return c, nil
		}
		if g.account.try(int64(size)) {
			return make([]byte, 0, size), nil
		}
		if ok, err := g.makeRoom(); err != nil {
			return nil, err
		} else if !ok {
			g.account.force(int64(size))
			return make([]byte, 0, size), nil
		}
	}
}

// growIndex charges what sorting a partition of the given records takes, in steps.
func (g *Grouper) growIndex(p *partition, records int) error {
	want := max(256, min(2*g.indexed, g.store.tune.runRecords), records)
	for !g.account.try(int64(want-g.indexed) * indexCost) {
		want = max(records, g.indexed) // without the reserve
		if g.account.try(int64(want-g.indexed) * indexCost) {
			break
		}
		ok, err := g.makeRoom()
		if err != nil {
			return err
		}
		if p.records == 0 && len(p.chunks) == 0 {
			return nil // it was the one to go: the caller looks anew
		}
		if !ok {
			g.account.force(int64(want-g.indexed) * indexCost)
			break
		}
	}
	g.indexed = want
	return nil
}

// makeRoom gives up free chunks or spills the partition, or the log, that is best spilled; it reports whether there was
// any.
func (g *Grouper) makeRoom() (bool, error) {
	if len(g.free) > 0 {
		g.dropFree()
		return true, nil
	}
	// One that is on disk already anyway, if it is worth a run; else the largest.
	var best, worth *partition
	look := func(p *partition) {
		if p.records == 0 {
			return
		}
		if best == nil || p.bytes > best.bytes {
			best = p
		}
		if len(p.runs) > 0 && p.bytes >= g.store.tune.worthRun && (worth == nil || p.bytes > worth.bytes) {
			worth = p
		}
	}
	for i := range g.parts {
		look(&g.parts[i])
	}
	var log *attemptLog
	for _, t := range g.open {
		if t.log.bytes > 0 && (log == nil || t.log.bytes > log.bytes) {
			log = &t.log
		}
		for _, i := range t.touched {
			look(&t.parts[i])
		}
	}
	if worth != nil {
		best = worth
	}
	switch {
	case log != nil && (best == nil || best.bytes < int64(g.store.tune.chunk/4)):
		// A log is read back before it is sorted, which costs more, unless the alternative are tiny runs.
		return true, g.spillLog(log)
	case best == nil:
		return false, nil
	}
	return true, g.spill(best)
}

// spill sorts a partition and appends it to the file as a run. Its full-sized chunks are kept for use, the rest is freed.
func (g *Grouper) spill(p *partition) error {
	index, err := g.sorter.sort(p, g.store.hash)
	if err != nil {
		return err
	}
	w := g.newRunWriter()
	for len(index) > 0 {
		n := p.sortTies(index)
		for _, e := range index[:n] {
			if err := w.add(p.record(e)); err != nil {
				return err
			}
		}
		index = index[n:]
	}
	if err := g.endRun(p, &w); err != nil {
		return err
	}
	for _, c := range p.chunks {
		g.recycle(c)
	}
	clear(p.chunks)
	p.chunks, p.bytes, p.used, p.records = p.chunks[:0], 0, 0, 0
	return nil
}

// recycle keeps a chunk for use if it is of the full size, else it is freed.
func (g *Grouper) recycle(c []byte) {
	if cap(c) == g.store.tune.chunk {
		g.free = append(g.free, c[:0])
	} else {
		g.account.release(int64(cap(c)))
	}
}

func (g *Grouper) dropFree() {
	for _, c := range g.free {
		g.account.release(int64(cap(c)))
	}
	g.free = nil
}

// Seal ends the adding and returns the groups, which can be iterated once. The grouper must stay open meanwhile. All
// attempts must be settled: as long as one is open, Seal fails and changes nothing.
func (g *Grouper) Seal() (*Groups, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed.Load():
		return nil, ErrClosed
	case g.sealed:
		return nil, ErrSealed
	case g.err != nil:
		return nil, g.err
	case len(g.open) > 0:
		return nil, fmt.Errorf("seal a grouper: attempt %d is not settled (%d are open); each must be kept or dropped first",
			g.open[0].attempt, len(g.open))
	}
	g.sealed = true
	g.settled = nil
	g.dropFree()
	return newGroups(g), nil
}

// Close releases everything, the disk's space included. It may be called at any time, also while Add or an iteration of
// the groups is under way, which then fail with [ErrClosed]. It is idempotent.
func (g *Grouper) Close() error {
	if g.closed.Swap(true) {
		return nil
	}
	err := g.file.close()
	// An Add under way ends first: what it still charges must not outlive the account.
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.sealed {
		clear(g.parts) // the iteration lets go of them itself
		g.open, g.settled, g.free = nil, nil, nil
	}
	g.account.close()
	g.store.remove(g)
	return err
}
