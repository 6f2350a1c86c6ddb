package grouping

import (
	"encoding/binary"
	"fmt"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger"
)

// Key is the windows of one key while something happens to them. See the package's comment for how it is used.
type Key struct {
	m       *Machine
	cells   map[string]*cell
	order   []*cell // of cells, as they were loaded or made
	made    []*cell // all since the Key was reset
	free    []*cell // to be used again
	touched []*cell // those that may have changed
	effects []Effect
	bytes   []byte // what effects point to
	now     Now
}

// NewKey returns a Key with no windows.
func (m *Machine) NewKey() *Key { return &Key{m: m, cells: map[string]*cell{}} }

// Reset forgets all windows.
func (k *Key) Reset() {
	clear(k.cells)
	k.free, k.made = append(k.free, k.made...), k.made[:0]
	k.order, k.touched, k.effects, k.bytes = k.order[:0], k.touched[:0], k.effects[:0], k.bytes[:0]
}

// Load adds a window with its state, as the latest Save had it. The bytes are not kept. The error says what is wrong with
// a state that is not of this version and strategy.
func (k *Key) Load(w, state []byte) error {
	c, err := k.add(w)
	if err != nil {
		return err
	}
	if c.persisted, err = k.m.decodeState(state, c.end); err != nil {
		return fmt.Errorf("state of a grouping, of window %x: %w", w, err)
	}
	c.told = c.outside()
	c.stored = true
	return nil
}

// add adds a window that has no state.
func (k *Key) add(w []byte) (*cell, error) {
	end, expiry, err := k.m.bounds(w)
	if err != nil {
		return nil, err
	}
	var c *cell
	if n := len(k.free); n > 0 {
		c, k.free = k.free[n-1], k.free[:n-1]
	} else {
		c = &cell{}
	}
	k.made = append(k.made, c)
	*c = cell{window: append(c.window[:0], w...), end: end, expiry: expiry}
	c.persisted = persisted{hold: None, processing: None}
	c.told = c.outside()
	if k.m.Merging() {
		for _, other := range k.order {
			c.bag = max(c.bag, other.bag+1)
		}
	}
	k.cells[string(c.window)] = c
	k.order = append(k.order, c)
	return c, nil
}

func (k *Key) start(now Now) {
	k.now = now
	k.effects, k.bytes, k.touched = k.effects[:0], k.bytes[:0], k.touched[:0]
}

// Elements takes up elements, in their order, and returns what is to be done. Where Machine.Asks, merges is what became of
// the windows that Unmerged named; elsewhere nil. The effects are valid until the Key is used again, or reset.
func (k *Key) Elements(now Now, elements []Element, merges []Merge) ([]Effect, error) {
	k.start(now)
	into, err := k.mergeCustom(merges)
	if err != nil {
		return nil, err
	}
	for i, e := range elements {
		_, expiry, err := k.m.bounds(e.Window)
		if err != nil {
			return nil, err
		}
		if now.Input > expiry {
			k.effects = append(k.effects, Effect{Kind: Drop, Window: e.Window, Element: i, Dropped: Late})
			continue
		}
		w := e.Window
		if to, ok := into[string(w)]; ok {
			w = to
		} else if k.m.sessions {
			if w, err = k.mergeSession(w); err != nil {
				return nil, err
			}
		}
		c := k.cells[string(w)]
		if c == nil {
			if c, err = k.add(w); err != nil {
				return nil, err
			}
		}
		if c.closed {
			k.effects = append(k.effects, Effect{Kind: Drop, Window: e.Window, Element: i, Dropped: Closed})
			continue
		}
		k.element(c, i, e)
	}
	return k.finish(), nil
}

func (k *Key) element(c *cell, i int, e Element) {
	k.touch(c)
	k.effects = append(k.effects, Effect{Kind: Append, Window: c.window, Element: i, Bag: k.bag(c), At: c.values})
	c.values++
	c.fresh = true
	k.hold(c, e.Timestamp)
	at := k.at(c)
	k.m.trigger.Elements(&c.trigger, 1, at)
	c.merged = false
	if k.m.trigger.Ready(&c.trigger, at) {
		k.fire(c, at)
	}
}

// Wake looks after a window whose timer has come. The effects are valid until the Key is used again, or reset.
func (k *Key) Wake(now Now, w []byte) ([]Effect, error) {
	k.start(now)
	c := k.cells[string(w)]
	if c == nil {
		return nil, nil
	}
	k.touch(c)
	if now.Input > c.expiry {
		if !c.closed {
			k.pane(c, true)
		}
		k.remove(c)
		return k.finish(), nil
	}
	if at := k.at(c); !c.closed && k.m.trigger.Ready(&c.trigger, at) {
		k.fire(c, at)
	}
	return k.finish(), nil
}

// at is where the window stands in time.
func (k *Key) at(c *cell) trigger.At {
	return trigger.At{End: c.end, Watermark: k.now.Input, Processing: k.now.Processing}
}

func (k *Key) touch(c *cell) {
	if !c.touched {
		c.touched = true
		k.touched = append(k.touched, c)
	}
}

// fire fires the trigger, which is ready.
func (k *Key) fire(c *cell, at trigger.At) {
	k.m.trigger.Fire(&c.trigger, at)
	closes := k.m.trigger.Finished(&c.trigger) && !k.m.trigger.FinishedByClock()
	k.pane(c, closes)
	if closes {
		c.persisted = persisted{closed: true, hold: None, processing: None, bag: c.bag}
	}
}

// pane puts out what is there, if it is to be seen, and releases the window's hold. last says that no other pane follows.
func (k *Key) pane(c *cell, last bool) {
	timestamp := min(c.hold, c.end)
	c.hold = None
	pane := k.describe(c, last)
	if c.fresh || pane.Timing == coder.OnTime && k.m.fireAlways || last && k.m.emitAlways {
		k.effects = append(k.effects, Effect{
			Kind: Emit, Window: c.window, Bag: k.bag(c), N: c.values, Timestamp: timestamp, Pane: pane,
		})
		c.panes, c.timing, c.nonSpeculative = pane.Index+1, pane.Timing, pane.NonSpeculative
	}
	c.fresh = false
	if c.values > 0 && (last || !k.m.accumulating) {
		k.effects = append(k.effects, Effect{Kind: Clear, Window: c.window, Bag: k.bag(c), N: c.values})
		c.values = 0
	}
}

// describe is the PaneInfo of a pane that goes out now.
func (k *Key) describe(c *cell, last bool) coder.PaneInfo {
	p := coder.PaneInfo{First: c.panes == 0, Last: last, Index: c.panes}
	if c.panes > 0 {
		p.NonSpeculative = c.nonSpeculative + 1
	}
	switch {
	case k.now.Output > c.end || c.panes > 0 && c.timing != coder.Early:
		p.Timing = coder.Late
	case k.now.Input <= c.end:
		p.Timing = coder.Early
		p.NonSpeculative = -1
	default:
		p.Timing = coder.OnTime
	}
	return p
}

// bag names the window's bag.
func (k *Key) bag(c *cell) []byte {
	if !k.m.Merging() {
		return c.window
	}
	return k.bagName(c.bag)
}

func (k *Key) bagName(id uint64) []byte {
	start := len(k.bytes)
	k.bytes = binary.AppendUvarint(k.bytes, id)
	return k.bytes[start:len(k.bytes):len(k.bytes)]
}

// hold holds the output watermark for an element.
func (k *Key) hold(c *cell, timestamp int64) {
	h := c.end
	if k.m.outputTime != pipepb.OutputTime_END_OF_WINDOW {
		// An element of the global window may be of its last day, which is behind the window's end.
		h = min(max(timestamp, coder.MinTimestamp), c.end)
	}
	switch {
	case h < k.now.Output || k.now.Input > c.end: // too late to hold it
	case c.hold == None:
		c.hold = h
	case k.m.outputTime == pipepb.OutputTime_LATEST_IN_PANE:
		c.hold = max(c.hold, h)
	default:
		c.hold = min(c.hold, h)
	}
}

// finish appends what has changed of the windows that were touched.
func (k *Key) finish() []Effect {
	for _, c := range k.touched {
		c.touched = false
		if c.gone {
			k.forget(c)
			continue
		}
		if at := k.at(c); c.merged && !c.closed && k.m.trigger.Ready(&c.trigger, at) {
			k.fire(c, at)
		}
		c.merged = false
		c.event, c.processing = expiryTimer, None
		if !c.closed {
			event, processing := k.m.trigger.Wake(&c.trigger, k.at(c))
			if event != trigger.Forever && c.end < c.expiry {
				c.event = endTimer
			}
			c.processing = processing
		}
		k.changes(c)
		start := len(k.bytes)
		k.bytes = k.m.appendState(k.bytes, &c.persisted, c.end)
		k.effects = append(k.effects, Effect{Kind: Save, Window: c.window, State: k.bytes[start:len(k.bytes):len(k.bytes)], New: !c.stored})
		c.stored = true
	}
	return k.effects
}

// changes appends the timers and the hold of the window that have changed.
func (k *Key) changes(c *cell) {
	was, is := c.told, c.outside()
	if a, b := c.at(was.event), c.at(is.event); a != b {
		k.effects = append(k.effects, Effect{Kind: EventTimer, Window: c.window, Was: a, Is: b})
	}
	if was.processing != is.processing {
		k.effects = append(k.effects, Effect{Kind: ProcessingTimer, Window: c.window, Was: was.processing, Is: is.processing})
	}
	if was.hold != is.hold {
		k.effects = append(k.effects, Effect{Kind: Hold, Window: c.window, Was: was.hold, Is: is.hold})
	}
	c.told = is
}

// forget takes back all that the host has of a window whose values are gone.
func (k *Key) forget(c *cell) {
	c.persisted = persisted{hold: None, processing: None}
	k.changes(c)
	if c.stored {
		k.effects = append(k.effects, Effect{Kind: Forget, Window: c.window})
	}
}

// remove takes a window out, which finish will have forgotten. One that is the same may come in its place.
func (k *Key) remove(c *cell) {
	c.gone = true
	k.touch(c)
	delete(k.cells, string(c.window))
	k.order = slices.DeleteFunc(k.order, func(other *cell) bool { return other == c })
}
