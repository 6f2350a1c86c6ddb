package shuffle

import (
	"errors"
	"fmt"
	"slices"
)

// Attempt tells whose data a block is: a bundle's try at its work. What a failed try has sent is taken back, so that the
// next may send it again. 0 is data that is never taken back. Numbers are not used again once they are settled, and only
// a few attempts are open at a time: one for each task that sends.
type Attempt uint64

var errSettleZero = errors.New("attempt 0 is data that is never taken back")

// tentative is what a grouper has of an open attempt: first a log, and once that has become too large, partitions.
type tentative struct {
	attempt Attempt
	log     attemptLog
	spread  bool        // into partitions
	parts   []partition // as the grouper's
	touched []int       // those that have something
}

// addTentative adds a block, of partition i, to what the grouper has of an attempt.
func (g *Grouper) addTentative(a Attempt, i int, block []byte, records int) error {
	t := g.tentative(a)
	if !t.spread {
		if t.log.size+int64(len(block)) <= g.store.tune.attemptLog {
			return g.log(&t.log, i, records, block)
		}
		if t.spread = true; t.parts == nil {
			t.parts = make([]partition, len(g.parts))
		}
		if err := g.replay(&t.log, t.part); err != nil {
			return err
		}
	}
	return g.add(t.part(i), block, records)
}

// tentative returns what there is of an open attempt, which it opens if it is not.
func (g *Grouper) tentative(a Attempt) *tentative {
	for _, t := range g.open {
		if t.attempt == a {
			return t
		}
	}
	t := &tentative{}
	if n := len(g.settled); n > 0 {
		t, g.settled = g.settled[n-1], g.settled[:n-1]
	}
	t.attempt = a
	g.open = append(g.open, t)
	return t
}

// part returns the attempt's own partition i.
func (t *tentative) part(i int) *partition {
	p := &t.parts[i]
	if !p.tentative {
		p.tentative = true
		t.touched = append(t.touched, i)
	}
	return p
}

// Settle ends an attempt. Its blocks count from now on, behind those that counted before, or are gone: the memory is free
// again at once, the disk's space where the file system can do that. An attempt of which nothing came is fine, and nothing
// of the attempt may be added afterwards. It may be called concurrently. A failed spill is final.
func (g *Grouper) Settle(a Attempt, keep bool) error {
	if a == 0 && !keep {
		return fmt.Errorf("settle a grouper's attempt: %w", errSettleZero)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed.Load():
		return ErrClosed
	case g.err != nil:
		return g.err
	}
	i := slices.IndexFunc(g.open, func(t *tentative) bool { return t.attempt == a })
	if i < 0 {
		return nil
	}
	// From here on it is not to be spilled as an open one.
	t := g.open[i]
	g.open = slices.Delete(g.open, i, i+1)
	if g.err = g.settle(t, keep); g.err != nil {
		return g.err
	}
	g.settled = append(g.settled, t)
	if !keep && !g.holds() {
		g.dropFree()
		g.releaseSorter()
	}
	return nil
}

// settle makes what there is of an attempt count, or gives it back.
func (g *Grouper) settle(t *tentative, keep bool) error {
	if !keep {
		g.dropLog(&t.log)
	} else if err := g.replay(&t.log, func(i int) *partition { return &g.parts[i] }); err != nil {
		return err
	}
	for _, i := range t.touched {
		if !keep {
			g.drop(&t.parts[i])
		} else if err := g.take(&g.parts[i], &t.parts[i]); err != nil {
			return err
		}
		t.parts[i].reset()
	}
	t.spread, t.touched = false, t.touched[:0]
	return nil
}

// holds reports whether any partition has records in memory.
func (g *Grouper) holds() bool {
	some := func(p partition) bool { return p.records > 0 }
	return slices.ContainsFunc(g.parts, some) ||
		slices.ContainsFunc(g.open, func(t *tentative) bool { return slices.ContainsFunc(t.parts, some) })
}

// drop gives back what an attempt's partition holds.
func (g *Grouper) drop(q *partition) {
	g.account.release(q.bytes + int64(len(q.runs))*runCost)
	for _, r := range q.runs {
		g.file.discard(r.off, r.end)
	}
}

// take makes what an attempt's partition has count. What p has in memory is older than the attempt's runs and has to stay
// before them: then it becomes a run itself.
func (g *Grouper) take(p, q *partition) error {
	t := &g.store.tune
	if p.records > 0 && (len(q.runs) > 0 || p.bytes+q.bytes > t.runBytes || p.records+q.records > t.runRecords) {
		if err := g.spill(p); err != nil {
			return err
		}
	}
	p.runs = append(p.runs, q.runs...)
	for p.records+q.records > g.indexed {
		if err := g.growIndex(p, p.records+q.records); err != nil {
			return err
		}
	}
	// Chunks are taken over as they are if that leaves p well filled. Else small attempts, one after the other, would
	// take up far more than they bring: the room that is left behind in p's last chunk is lost.
	if p.records == 0 || q.used >= int64(t.chunk/2) && 4*(p.used+q.used) >= 3*(p.bytes+q.bytes) {
		p.chunks = append(p.chunks, q.chunks...)
		p.bytes, p.used, p.records = p.bytes+q.bytes, p.used+q.used, p.records+q.records
		return nil
	}
	left := q.records
	for i, c := range q.chunks {
		n := left
		if i < len(q.chunks)-1 {
			var err error
			if n, err = countEntries(c); err != nil {
				return err
			}
		}
		left -= n
		if cap(c) > t.chunk {
			// It is one entry, and nothing would be gained by copying.
			p.chunks = append(p.chunks, c)
			p.bytes, p.used, p.records = p.bytes+int64(cap(c)), p.used+int64(len(c)), p.records+n
			continue
		}
		if err := g.add(p, c, n); err != nil {
			return err
		}
		g.recycle(c)
	}
	return nil
}

// reset empties the partition of an attempt that is settled, for one to come.
func (p *partition) reset() {
	clear(p.chunks)
	*p = partition{chunks: p.chunks[:0]}
}
