package stage

import (
	"encoding/binary"
	"slices"

	"trestle/internal/beam/coder"
)

// Everything that a task keeps lies in one ordered store under keys that begin with the key group, in two bytes, so that a
// key group is one range of it, and what kind of thing it is. (docs/formats/state.md has them all.)
type kind byte

const (
	kindState  kind = 's' // key, window, state id, then what the state's kind has
	kindTimer  kind = 't' // key, window, family, tag → times and pane: a timer by its name
	kindEvent  kind = 'e' // time, then as kindTimer: event-time timers in order
	kindClock  kind = 'p' // time, then as kindTimer: processing-time timers in order
	kindHold   kind = 'h' // output timestamp, then as kindTimer: what holds the watermark back
	kindExpiry kind = 'x' // time, key, window: windows that something is kept of, by their end
	kindWindow kind = 'w' // key, window → state of package grouping
	kindValue  kind = 'v' // key, bag, number → value of a group
	kindMark   kind = 'm' // nothing → how far time had come at the last snapshot
	kindSorted kind = 'b' // time, key, number → window, pane, value: elements that wait for the watermark
	kindKey    kind = 'k' // key, number → a piece of a long key
	kindRefers kind = 'r' // key, kind, time, then as the kind has it: what of the queues has to do with a long key
)

const (
	// placeBytes is how long the beginning of a key is that says where it belongs: key group and kind.
	placeBytes = 3
	// queueBytes is how long that of a queue's is, with the time.
	queueBytes = placeBytes + coder.TimestampSize
)

// begin appends where the key of what a task keeps belongs.
func begin(b []byte, kd kind, group int) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(group)), byte(kd))
}

// appendPart appends bytes so that their end is known.
func appendPart(b, part []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}

// cutPart is the reverse of appendPart; ok is false when b is cut short.
func cutPart(b []byte) (part, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	end := n + int(size)
	return b[n:end:end], b[end:], true
}

// after is the first key that does not begin with the prefix, which does not end in 0xff bytes only.
func after(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// heads are lower bounds of the times in the queues of one kind, by key group: most key groups then need no look.
type heads struct {
	kind kind
	min  []int64
}

// newHeads are those of empty queues, or of queues of which nothing is known yet.
func newHeads(kd kind, keyGroups int, empty bool) *heads {
	h := &heads{kind: kd, min: make([]int64, keyGroups)}
	for i := range h.min {
		h.min[i] = -never - 1
		if empty {
			h.min[i] = never
		}
	}
	return h
}

// empty tells that there are no entries.
func (h *heads) empty() {
	for g := range h.min {
		h.min[g] = never
	}
}

// put tells of an entry.
func (h *heads) put(group int, at int64) { h.min[group] = min(h.min[group], at) }

// any tells whether something may be there before a time.
func (h *heads) any(before int64) bool {
	for _, at := range h.min {
		if at < before {
			return true
		}
	}
	return false
}

// never is later than any time.
const never = int64(1<<63 - 1)

// queueKey is the lower end of a queue of a key group from a time on.
func queueKey(kd kind, group int, at int64) []byte {
	return coder.AppendTimestamp(begin(make([]byte, 0, queueBytes), kd, group), at)
}

// queueEnd is the upper end of a queue of a key group.
func queueEnd(kd kind, group int) []byte {
	return begin(make([]byte, 0, placeBytes), kd+1, group)
}
