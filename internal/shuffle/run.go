package shuffle

// runWriter appends sorted entries to a grouper's spill file.
type runWriter struct {
	g     *Grouper
	run   run
	block []byte
}

// newRunWriter begins a run. Only one may be open at a time.
func (g *Grouper) newRunWriter() runWriter {
	if g.block == nil {
		g.block = newBlock(g.store.tune.block)
		g.account.force(int64(cap(g.block)))
	}
	return runWriter{g: g, run: run{off: g.file.end(), end: g.file.end()}, block: g.block}
}

func (w *runWriter) add(entry []byte) error {
	if len(w.block)+len(entry) > cap(w.block) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	// An entry larger than a block makes a block of its own size, which is not kept.
	w.block = append(w.block, entry...)
	return nil
}

func (w *runWriter) flush() error {
	n := len(payload(w.block))
	if n == 0 {
		return nil
	}
	if _, err := w.g.file.append(w.block); err != nil {
		return err
	}
	stored := w.g.file.end() - w.run.end - blockHeader
	w.run.packed = w.run.packed || stored != int64(n)
	w.run.end = w.g.file.end()
	w.run.maxBlock = max(w.run.maxBlock, n)
	w.block = w.g.block[:blockHeader]
	return nil
}

// endRun writes the rest of a run and gives it to p.
func (g *Grouper) endRun(p *partition, w *runWriter) error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.run.end > w.run.off {
		g.account.force(runCost)
		p.runs = append(p.runs, w.run)
	}
	return nil
}

// source walks the entries of a sorted sequence: a run, or what a partition has in memory.
type source struct {
	ok    bool   // there is a current entry
	order uint64 // of the current entry's key
	entry []byte // the current entry, whole
	n     int    // the size of its prefix

	// What a partition has in memory.
	part  *partition
	index []indexEntry // what is to come
	ready int          // how many of them are in their final order

	// A run.
	g      *Grouper
	reader blockReader
	run    run
	data   []byte // what is left of the block
}

func (s *source) prefix() []byte { return s.entry[:s.n] }

// next goes on to the next entry.
func (s *source) next() error {
	if s.part != nil {
		if s.ok = len(s.index) > 0; s.ok {
			if s.ready == 0 {
				s.ready = s.part.sortTies(s.index)
			}
			s.order, s.entry = s.index[0].order, s.part.record(s.index[0])
			s.n = len(prefixOf(s.entry))
			s.index, s.ready = s.index[1:], s.ready-1
		}
		return nil
	}
	if more, err := s.fill(); !more {
		return err
	}
	prefix, size, err := cutEntry(s.data)
	if err != nil {
		return err
	}
	key, _ := cutPrefixed(s.data, 0)
	s.order = sortOrder(s.g.store.hash(key))
	s.entry, s.n = s.data[:size], prefix
	s.data = s.data[size:]
	return nil
}

// nextIn goes on to the next entry if it is of the group with this prefix, and says so; most are, and of those neither
// hash nor prefix has to be found out.
func (s *source) nextIn(prefix []byte) (bool, error) {
	if s.part != nil {
		if s.ready == 0 || s.index[0].order != s.order {
			return false, nil
		}
		entry := s.part.record(s.index[0])
		if len(entry) < len(prefix) || string(entry[:len(prefix)]) != string(prefix) {
			return false, nil
		}
		s.entry, s.index, s.ready = entry, s.index[1:], s.ready-1
		return true, nil
	}
	if more, err := s.fill(); !more {
		return false, err
	}
	if len(s.data) < len(prefix) || string(s.data[:len(prefix)]) != string(prefix) {
		return false, nil
	}
	_, size, err := cutEntry(s.data)
	if err != nil {
		return false, err
	}
	s.entry, s.data = s.data[:size], s.data[size:]
	return true, nil
}

// fill sees that the next entry of a run is in memory; there is none when it returns false.
func (s *source) fill() (bool, error) {
	if len(s.data) > 0 {
		return true, nil
	}
	if s.run.off >= s.run.end {
		s.ok = false
		return false, nil
	}
	data, next, err := s.reader.read(s.g.file, s.run.off)
	if err != nil {
		s.ok = false
		return false, err
	}
	s.data, s.run.off, s.ok = data, next, true
	return len(data) > 0, nil
}
