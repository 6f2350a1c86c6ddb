package grouping

import (
	"encoding/binary"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger"
)

// cell is a window of the key.
type cell struct {
	window []byte
	end    int64
	expiry int64

	persisted // what the state has
	told      outside
	stored    bool // the host has a state
	touched   bool // it is among Key.touched
	merged    bool // it has become of others, and its trigger has not been asked yet
	gone      bool // nothing of it is left
}

// persisted is what is remembered of a window.
type persisted struct {
	trigger trigger.State
	closed  bool // the trigger has finished
	fresh   bool // values came in since the last pane
	// What the last pane was; no panes: there was none.
	panes          int64
	timing         coder.Timing
	nonSpeculative int64
	hold           int64 // where the values since the last pane hold the watermark, None if they do not
	bag            uint64
	values         int64 // in the bag
	// The timers that are set.
	event      eventTimer
	processing int64
}

// outside is what the host has of a window besides its state.
type outside struct {
	event            eventTimer
	processing, hold int64
}

// outside is what the host is to have. It need not know of a hold that the event timer implies: as long as that is set, the
// input's watermark has not come to it, and the output's is not past that.
func (c *cell) outside() outside {
	o := outside{c.event, c.processing, c.hold}
	if o.hold >= c.at(o.event)-1 {
		o.hold = None
	}
	return o
}

// eventTimer is a time that follows from the window.
type eventTimer uint8

const (
	noTimer eventTimer = iota
	endTimer
	expiryTimer
)

// at is the time of the timer.
func (c *cell) at(t eventTimer) int64 {
	switch t {
	case endTimer:
		return c.end + 1
	case expiryTimer:
		return c.expiry + 1
	default:
		return None
	}
}

// version is the first byte of a state.
const version = 1

// The flags of a state, which its second byte starts: a varint. The last pane's timing is behind them, in two bits, and
// the event timer in two more.
const (
	flagClosed = 1 << iota
	flagFresh
	flagPanes
	flagHold
	flagValues
	flagProcessing
	flagTrigger
	timingShift = iota
	timerShift  = timingShift + 2
	flagEnd     = timerShift + 2
)

// appendState appends the state of a window that ends at end: version, flags, and in varints what the flags announce
// (docs/formats/grouping.md).
func (m *Machine) appendState(dst []byte, p *persisted, end int64) []byte {
	dst = append(dst, version)
	flags := uint64(p.event) << timerShift
	for _, f := range []struct {
		is   bool
		flag uint64
	}{
		{p.closed, flagClosed}, {p.fresh, flagFresh}, {p.hold != None, flagHold}, {p.values > 0 || p.bag > 0, flagValues},
		{p.processing != None, flagProcessing},
		{p.panes > 0, flagPanes | uint64(p.timing)<<timingShift},
	} {
		if f.is {
			flags |= f.flag
		}
	}
	start := len(dst)
	dst = m.trigger.AppendState(dst, &p.trigger)
	length := len(dst) - start
	if length > 0 {
		flags |= flagTrigger
	}
	// The trigger's state is last; what is before it goes in between.
	var head [8 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(head[:0], flags)
	if flags&flagPanes != 0 {
		b = binary.AppendUvarint(b, uint64(p.panes))
		b = binary.AppendUvarint(b, uint64(p.nonSpeculative+1))
	}
	if flags&flagHold != 0 {
		b = binary.AppendUvarint(b, uint64(end-p.hold))
	}
	if flags&flagValues != 0 {
		b = binary.AppendUvarint(b, p.bag)
		b = binary.AppendUvarint(b, uint64(p.values))
	}
	if flags&flagProcessing != 0 {
		b = binary.AppendVarint(b, p.processing)
	}
	dst = append(dst, b...)
	copy(dst[start+len(b):], dst[start:start+length])
	copy(dst[start:], b)
	return dst
}

// decodeState decodes what appendState wrote; b is the encoding and nothing else.
func (m *Machine) decodeState(b []byte, end int64) (persisted, error) {
	p := persisted{hold: None, processing: None}
	if len(b) == 0 {
		return p, fmt.Errorf("it is empty")
	}
	if b[0] != version {
		return p, fmt.Errorf("it is of version %d, this version of Trestle reads %d", b[0], version)
	}
	r := reader{b: b[1:]}
	flags := r.uvarint(1<<flagEnd - 1)
	p.closed, p.fresh = flags&flagClosed != 0, flags&flagFresh != 0
	p.timing = coder.Timing(flags >> timingShift & 3)
	p.event = eventTimer(flags >> timerShift & 3)
	if p.event > expiryTimer || p.timing > coder.Late || p.timing != 0 && flags&flagPanes == 0 {
		r.bad = true
	}
	if flags&flagPanes != 0 {
		p.panes = int64(r.uvarint(maxCount))
		p.nonSpeculative = int64(r.uvarint(maxCount)) - 1
		r.bad = r.bad || p.panes == 0 || p.nonSpeculative >= p.panes || (p.nonSpeculative < 0) != (p.timing == coder.Early)
	}
	if flags&flagHold != 0 {
		p.hold = end - int64(r.uvarint(uint64(coder.MaxTimestamp-coder.MinTimestamp)))
		r.bad = r.bad || p.hold < coder.MinTimestamp
	}
	if flags&flagValues != 0 {
		p.bag = r.uvarint(maxCount)
		p.values = int64(r.uvarint(maxCount))
		r.bad = r.bad || p.bag == 0 && p.values == 0
	}
	if flags&flagProcessing != 0 {
		v, n := binary.Varint(r.b)
		if n <= 0 || v < coder.MinTimestamp || v > coder.MaxTimestamp+1 { // Synchronized times are one later.
			r.bad = true
		} else {
			p.processing, r.b = v, r.b[n:]
		}
	}
	if r.bad {
		return p, fmt.Errorf("it is cut short or holds what no state does")
	}
	if (flags&flagTrigger != 0) != (len(r.b) > 0) {
		return p, fmt.Errorf("it is cut short, or followed by %d bytes", len(r.b))
	}
	var err error
	p.trigger, err = m.trigger.DecodeState(r.b)
	return p, err
}

// maxCount bounds counts in a state.
const maxCount = 1<<62 - 1

// reader reads varints, and remembers when one was not there or out of bounds.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > limit {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}
