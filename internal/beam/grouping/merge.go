package grouping

import (
	"bytes"
	"fmt"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/trigger"
	"trestle/internal/beam/window"
)

// Unmerged returns the windows that their SDK is to merge, where Machine.Asks, before Elements can take up the elements:
// those of the elements and those that are open. It returns none when no element has a window that is not open already.
func (k *Key) Unmerged(now Now, elements []Element) ([][]byte, error) {
	if !k.m.Asks() {
		return nil, nil
	}
	var windows [][]byte
	seen := map[string]bool{}
	for _, e := range elements {
		_, expiry, err := k.m.bounds(e.Window)
		if err != nil {
			return nil, err
		}
		c := k.cells[string(e.Window)]
		if now.Input > expiry || seen[string(e.Window)] || c != nil && !c.closed {
			continue
		}
		seen[string(e.Window)] = true
		windows = append(windows, e.Window)
	}
	if len(windows) == 0 {
		return nil, nil
	}
	for _, c := range k.order {
		if !c.closed {
			windows = append(windows, c.window)
		}
	}
	return windows, nil
}

// mergeCustom merges windows as their SDK has answered, and returns what became of each.
func (k *Key) mergeCustom(merges []Merge) (into map[string][]byte, err error) {
	for i, m := range merges {
		if slices.ContainsFunc(merges[:i], func(other Merge) bool { return bytes.Equal(other.Into, m.Into) }) {
			return nil, fmt.Errorf("the SDK merged windows into %x twice", m.Into)
		}
		within := false
		for _, w := range m.From {
			if into[string(w)] != nil {
				return nil, fmt.Errorf("the SDK merged the window %x into %x and %x", w, into[string(w)], m.Into)
			}
			if into == nil {
				into = map[string][]byte{}
			}
			into[string(w)] = m.Into
			within = within || bytes.Equal(w, m.Into)
		}
		if c := k.cells[string(m.Into)]; c != nil && !c.closed && !within {
			return nil, fmt.Errorf("the SDK merged windows into %x, which is a window that it did not merge", m.Into)
		}
	}
	for _, m := range merges {
		var open []*cell
		for _, w := range m.From {
			if c := k.cells[string(w)]; c != nil && !c.closed {
				open = append(open, c)
			}
		}
		if err := k.merge(open, m.Into, len(m.From) > 1); err != nil {
			return nil, err
		}
	}
	return into, nil
}

// mergeSession merges the open windows that the window of a new element overlaps, and returns the window that the element
// belongs to then.
func (k *Key) mergeSession(w []byte) ([]byte, error) {
	merged, _, err := window.DecodeInterval(w)
	if err != nil {
		return nil, fmt.Errorf("window of a group: %w", err)
	}
	if c := k.cells[string(w)]; c != nil && !c.closed {
		return w, nil // what it overlaps has been merged with it
	}
	var open []*cell
	for _, c := range k.order {
		if c.closed {
			continue
		}
		other, _, err := window.DecodeInterval(c.window)
		if err != nil {
			return nil, fmt.Errorf("window of a group: %w", err)
		}
		// Open windows lie apart, so that what overlaps the merged window overlaps the new one.
		if other.Start < merged.End && merged.Start < other.End {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return w, nil
	}
	for _, c := range open {
		other, _, err := window.DecodeInterval(c.window)
		if err != nil {
			return nil, fmt.Errorf("window of a group: %w", err)
		}
		merged.Start, merged.End = min(merged.Start, other.Start), max(merged.End, other.End)
	}
	result := window.AppendInterval(nil, merged)
	return result, k.merge(open, result, true)
}

// merge makes one window of open ones; anew says that the result is not to be a closed window that was there before.
func (k *Key) merge(open []*cell, result []byte, anew bool) error {
	to := k.cells[string(result)]
	if to != nil && to.closed && anew {
		// What the closed window was has been put out; its state is overwritten.
		to.persisted = persisted{hold: None, processing: None, bag: to.bag}
		k.touch(to)
	}
	if len(open) == 0 || len(open) == 1 && open[0] == to {
		return nil
	}
	// So that it does not matter in which order they were loaded.
	slices.SortFunc(open, func(a, b *cell) int { return bytes.Compare(a.window, b.window) })
	if to == nil {
		var err error
		if to, err = k.add(result); err != nil {
			return err
		}
	}
	k.touch(to)
	sum := persisted{hold: None, processing: None}
	var largest *cell
	states := make([]*trigger.State, 0, len(open))
	for _, c := range open {
		states = append(states, &c.trigger)
		sum.fresh = sum.fresh || c.fresh
		if c.hold != None && (sum.hold == None || (c.hold > sum.hold) == (k.m.outputTime == pipepb.OutputTime_LATEST_IN_PANE)) {
			sum.hold = c.hold
		}
		if largest == nil || c.values > largest.values {
			largest = c
		}
		if c == to {
			sum.panes, sum.timing, sum.nonSpeculative = c.panes, c.timing, c.nonSpeculative
		}
	}
	sum.bag, sum.values = largest.bag, largest.values
	for _, c := range open {
		if c != largest && c.values > 0 {
			k.effects = append(k.effects, Effect{
				Kind: Move, From: k.bagName(c.bag), Bag: k.bagName(sum.bag), At: sum.values, N: c.values,
			})
			sum.values += c.values
		}
	}
	sum.trigger = k.m.trigger.Merge(states, k.at(to))
	if sum.fresh && k.m.outputTime == pipepb.OutputTime_END_OF_WINDOW {
		sum.hold = None
		if to.end >= k.now.Output && to.end >= k.now.Input {
			sum.hold = to.end
		}
	}
	to.persisted = sum
	to.merged = true
	for _, c := range open {
		if c != to {
			k.remove(c)
		}
	}
	return nil
}
