package shuffle

// Groups iterates the groups of a sealed [Grouper]: a group is the values of one key in one window. It belongs to one
// goroutine.
//
// All windows of a key come one after the other, in the order of their bytes; keys come in no order that means anything.
// The values of a group that were added by one goroutine come in the order in which they were added. No group is ever
// in memory as a whole because of its size: values are read from the runs as they are asked for.
type Groups struct {
	g      *Grouper
	err    error // the first failure: it stays
	parts  []int // partitions still to come
	open   int   // the partition that is being iterated, or -1
	reads  int64 // charged for block buffers
	merger *merger

	prefix      []byte // of the current group, a copy
	key, window []byte // parts of prefix
	fresh       bool   // the current group's first value is at the merger's top
	more        bool   // the current group may have values left
}

func newGroups(g *Grouper) *Groups {
	gs := &Groups{g: g, open: -1}
	// Partitions that are in memory as a whole come first: that makes room for merging the others.
	for _, spilled := range []bool{false, true} {
		for i := range g.parts {
			p := &g.parts[i]
			if (p.records > 0 || len(p.runs) > 0) && len(p.runs) > 0 == spilled {
				gs.parts = append(gs.parts, i)
			}
		}
	}
	return gs
}

// Next goes on to the next group and says whether there is one; what is left of the current one is skipped.
func (gs *Groups) Next() (bool, error) {
	for gs.more {
		if _, _, _, err := gs.NextValue(); err != nil {
			return false, err
		}
	}
	if gs.err != nil {
		return false, gs.err
	}
	for gs.merger == nil || !gs.merger.top().ok {
		if ok, err := gs.nextPartition(); !ok {
			return false, gs.fail(err)
		}
	}
	gs.prefix = append(gs.prefix[:0], gs.merger.top().prefix()...)
	gs.key, gs.window = prefixParts(gs.prefix)
	gs.fresh, gs.more = true, true
	return true, nil
}

// Key is the current group's encoded key. It is valid until the next call of Next.
func (gs *Groups) Key() []byte { return gs.key }

// Window is the current group's encoded window. It is valid until the next call of Next.
func (gs *Groups) Window() []byte { return gs.window }

// NextValue returns the current group's next value, with its timestamp in milliseconds; ok is false when there is none
// left. The value is valid until the next call of NextValue or Next.
func (gs *Groups) NextValue() (value []byte, timestamp int64, ok bool, err error) {
	if !gs.more || gs.err != nil {
		return nil, 0, false, gs.err
	}
	if gs.g.closed.Load() {
		return nil, 0, false, gs.fail(ErrClosed)
	}
	top := gs.merger.top()
	if !gs.fresh {
		same, err := top.nextIn(gs.prefix)
		if err != nil {
			return nil, 0, false, gs.fail(err)
		}
		if !same {
			// This source is through with the group, a later one may have more of it.
			if err := top.next(); err != nil {
				return nil, 0, false, gs.fail(err)
			}
			gs.merger.replay()
			if top = gs.merger.top(); !top.ok || string(top.prefix()) != string(gs.prefix) {
				gs.more = false
				return nil, 0, false, nil
			}
		}
	}
	gs.fresh = false
	timestamp, value = entryRest(top.entry[len(gs.prefix):])
	return value, timestamp, true, nil
}

func (gs *Groups) fail(err error) error {
	if err != nil && gs.err == nil {
		gs.err, gs.more = err, false
	}
	return err
}

// nextPartition lets go of the current partition and opens the next, if there is one.
func (gs *Groups) nextPartition() (bool, error) {
	g := gs.g
	gs.merger = nil
	if gs.open >= 0 {
		p := &g.parts[gs.open]
		g.account.release(p.bytes + int64(len(p.runs))*runCost + gs.reads)
		*p, gs.reads, gs.open = partition{}, 0, -1
	}
	if g.closed.Load() {
		return false, ErrClosed
	}
	if len(gs.parts) == 0 {
		g.releaseSorter()
		return false, nil
	}
	gs.open, gs.parts = gs.parts[0], gs.parts[1:]
	p := &g.parts[gs.open]
	if err := gs.narrow(p); err != nil {
		return false, err
	}
	sources, reads, err := g.openRuns(p.runs)
	if err != nil {
		return false, err
	}
	gs.reads = reads
	if p.records > 0 {
		index, err := g.sorter.sort(p, g.store.hash)
		if err != nil {
			return false, err
		}
		s := &source{part: p, index: index}
		if err := s.next(); err != nil {
			return false, err
		}
		sources = append(sources, s)
	}
	gs.merger = newMerger(sources)
	return true, nil
}

// releaseSorter gives back what only sorting, writing runs and merging need.
func (g *Grouper) releaseSorter() {
	g.account.release(int64(g.indexed)*indexCost + int64(cap(g.block)))
	g.indexed, g.block, g.sorter = 0, nil, sorter{}
}

// openRuns returns a source for each run, at its first entry, and what is charged for their buffers.
func (g *Grouper) openRuns(runs []run) (sources []*source, charged int64, err error) {
	for _, r := range runs {
		charged += r.buffers()
	}
	g.account.force(charged)
	for _, r := range runs {
		s := &source{g: g, run: r}
		if err := s.next(); err != nil {
			g.account.release(charged)
			return nil, 0, err
		}
		sources = append(sources, s)
	}
	return sources, charged, nil
}

// narrow merges a partition's runs until the rest can be read at once.
func (gs *Groups) narrow(p *partition) error {
	g := gs.g
	for {
		var batches [][]run
		size := int64(0)
		start := 0
		for i, r := range p.runs {
			if i-start >= 2 && size+r.buffers() > g.store.tune.merge {
				batches = append(batches, p.runs[start:i])
				start, size = i, 0
			}
			size += r.buffers()
		}
		batches = append(batches, p.runs[start:])
		if len(batches) <= 1 {
			return nil
		}
		merged := partition{}
		for _, b := range batches {
			if len(b) == 1 {
				g.account.force(runCost)
				merged.runs = append(merged.runs, b[0])
				continue
			}
			if err := g.mergeRuns(&merged, b); err != nil {
				return err
			}
		}
		g.account.release(int64(len(p.runs)) * runCost)
		p.runs = merged.runs
	}
}

// mergeRuns merges runs into one, which it gives to p.
func (g *Grouper) mergeRuns(p *partition, runs []run) error {
	sources, charged, err := g.openRuns(runs)
	if err != nil {
		return err
	}
	defer g.account.release(charged)
	w := g.newRunWriter()
	for m := newMerger(sources); m.top().ok; m.replay() {
		if err := w.add(m.top().entry); err != nil {
			return err
		}
		if err := m.top().next(); err != nil {
			return err
		}
	}
	return g.endRun(p, &w)
}
