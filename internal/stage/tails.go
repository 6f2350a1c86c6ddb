package stage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"trestle/internal/beam/grouping"
)

// tail is the last values of a window of the key that a grouping has to do with. They lie in the window's entry of the store,
// behind its state: most windows never need an entry of their values.
type tail struct {
	window []byte
	n      int64 // how many values there are
	end    int64 // the number that the next would have; known once one has been added
	values []byte
}

const (
	// tailBytes is how much of values may stay in a window's entry, which is written anew with each change of the window.
	tailBytes = 1 << 10
	// keptTails is for how many windows room is kept for the next key.
	keptTails = 64
)

// tails are those of the windows that were loaded, in the order of their windows. Where windows merge there are none.
type tails []tail

// reset forgets all, and keeps room.
func (ts *tails) reset() {
	all := *ts
	if cap(all) > keptTails {
		all = nil
	}
	for i := range all {
		if cap(all[i].values) > 2*tailBytes {
			all[i].values = nil
		}
		all[i].window = nil
	}
	*ts = all[:0]
}

// add adds a window, which sorts after those that are there, without values.
func (ts *tails) add(window []byte) *tail {
	all := *ts
	if len(all) == cap(all) {
		all = append(all, tail{})
	} else {
		all = all[:len(all)+1]
	}
	*ts = all
	t := &all[len(all)-1]
	*t = tail{window: window, values: t.values[:0]}
	return t
}

// of is the tail of a window.
func (ts tails) of(window []byte) (*tail, error) {
	i, ok := slices.BinarySearchFunc(ts, window, func(t tail, w []byte) int { return bytes.Compare(t.window, w) })
	if !ok {
		return nil, fmt.Errorf("window %x was not loaded", window)
	}
	return &ts[i], nil
}

// read takes over what stands behind a window's state.
func (t *tail) read(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	values, n, err := cutPack(b)
	if err != nil {
		return err
	}
	t.n, t.values = n, append(t.values, values...)
	return nil
}

// add adds a value.
func (t *tail) add(at int64, value []byte) {
	t.values = append(t.values, value...)
	t.n++
	t.end = at + 1
}

// clear forgets the values.
func (t *tail) clear() { t.n, t.values = 0, t.values[:0] }

// spill gives a window's tail an entry of its own.
func (p *panes) spill(t *tail) {
	p.over.Insert(p.value(t.window, t.end-t.n), appendPack(make([]byte, 0, binary.MaxVarintLen32+len(t.values)), t.n, t.values))
	t.clear()
}

// appendTail is append where windows do not merge.
func (p *panes) appendTail(e *grouping.Effect, value []byte) error {
	t, err := p.tails.of(e.Window)
	if err != nil {
		return err
	}
	if len(t.values) >= packBytes {
		p.spill(t)
	}
	t.add(e.At, value)
	return nil
}

// save puts a window's state into the store, and what values there are with it.
func (p *panes) save(e *grouping.Effect) error {
	var t *tail
	more := 0
	if !p.machine.Merging() {
		var err error
		if t, err = p.tails.of(e.Window); err != nil {
			return err
		}
		if len(t.values) > tailBytes {
			p.spill(t)
		}
		more = len(t.values)
	}
	if e.New && isLong(p.at.name) {
		if err := p.keep(p.at.group, p.at.name, p.at.key); err != nil {
			return err
		}
	}
	// Key and value in one piece of memory.
	b := make([]byte, 0, placeBytes+3*binary.MaxVarintLen32+len(p.at.name)+len(e.Window)+len(e.State)+more)
	b = appendPart(appendEntry(b, kindWindow, p.at.group, p.at.name), e.Window)
	at := len(b)
	b = appendPart(b, e.State)
	if t != nil && t.n > 0 {
		b = appendPack(b, t.n, t.values)
	}
	put := p.over.Put
	if e.New {
		put = p.over.Insert
	}
	put(b[:at:at], b[at:])
	return nil
}

// gather adds the values of a pane to its record.
func (p *panes) gather(g *groupRecord, e *grouping.Effect) error {
	var t *tail
	apart := e.N // values that have entries of their own
	if !p.machine.Merging() {
		var err error
		if t, err = p.tails.of(e.Window); err != nil {
			return err
		}
		apart -= t.n
	}
	if apart > 0 {
		bag := p.bag(e.Bag)
		if t != nil && p.over.Fresh(p.window(e.Window)) {
			p.over.Bare(bag, after(bag)) // the values came with the window, or after it
		}
		if err := p.over.Scan(bag, after(bag), func(_, entry []byte) (bool, error) {
			values, n, err := cutPack(entry)
			if err == nil {
				err = g.add(values, n)
			}
			return g.n < apart, err
		}); err != nil {
			return err
		}
	}
	if t != nil && t.n > 0 {
		if err := g.add(t.values, t.n); err != nil {
			return err
		}
	}
	if g.n != e.N {
		return fmt.Errorf("a group in the store has %d values, where there should be %d", g.n, e.N)
	}
	return nil
}

// clear deletes the values of a bag.
func (p *panes) clear(e *grouping.Effect) error {
	if !p.machine.Merging() {
		t, err := p.tails.of(e.Window)
		if err != nil {
			return err
		}
		apart := e.N - t.n
		t.clear()
		if apart == 0 {
			return nil
		}
	}
	bag := p.bag(e.Bag)
	return p.over.DeleteRange(bag, after(bag))
}
