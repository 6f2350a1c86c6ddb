package coder

import (
	"encoding/binary"
	"fmt"
)

// Timing says when a pane fired, relative to the watermark. The values are those of the encoding.
type Timing uint8

const (
	// Early panes fired before the watermark passed the window's end.
	Early Timing = 0
	// OnTime is the pane that fired when the watermark passed the window's end.
	OnTime Timing = 1
	// Late panes fired after that.
	Late Timing = 2
	// Unknown is the timing of elements that no trigger has fired.
	Unknown Timing = 3
)

// PaneInfo tells which of its window's firings an element came from.
type PaneInfo struct {
	Timing Timing
	// First and Last say that no pane of the window was, or will be, before or after this one.
	First, Last bool
	// Index counts the window's panes from 0; NonSpeculative counts those that were not early, and is -1 in an
	// early pane.
	Index, NonSpeculative int64
}

// NoFiring is the pane of an element that has not been grouped yet.
var NoFiring = PaneInfo{Timing: Unknown, First: true, Last: true}

// OnTimeAndOnly is the pane of a window that fires once, when the watermark passes its end: what a GroupByKey in
// batch puts out.
var OnTimeAndOnly = PaneInfo{Timing: OnTime, First: true, Last: true}

// AppendPane appends an encoded pane: a byte of flags, and the indices that the flags do not imply
// (StandardCoders.WINDOWED_VALUE in beam_runner_api.proto).
func AppendPane(dst []byte, p PaneInfo) []byte {
	flags := byte(p.Timing&3) << 2
	if p.Last {
		flags |= 2
	}
	if p.First {
		flags |= 1
	}
	switch {
	case p.Timing == Unknown || p.Index == 0 && p.NonSpeculative == 0:
		return append(dst, flags)
	case p.Timing == Early || p.Index == p.NonSpeculative:
		return binary.AppendUvarint(append(dst, flags|1<<4), uint64(p.Index))
	default:
		dst = binary.AppendUvarint(append(dst, flags|2<<4), uint64(p.Index))
		return binary.AppendUvarint(dst, uint64(p.NonSpeculative))
	}
}

// paneCoder stands for the pane in errors.
var paneCoder = &Coder{id: "pane", urn: "pane"}

// Pane decodes the pane at the start of b and returns its size. The error wraps io.ErrUnexpectedEOF when b ends
// within it.
func Pane(b []byte) (PaneInfo, int, error) {
	end, err := paneCoder.pane(b, 0)
	if err != nil {
		return PaneInfo{}, 0, fmt.Errorf("decode pane: %w", err)
	}
	p := PaneInfo{Timing: Timing(b[0] >> 2 & 3), Last: b[0]&2 != 0, First: b[0]&1 != 0}
	switch b[0] >> 4 {
	case 1:
		i, _ := binary.Uvarint(b[1:])
		p.Index, p.NonSpeculative = int64(i), int64(i)
		if p.Timing == Early {
			p.NonSpeculative = -1
		}
	case 2:
		i, n := binary.Uvarint(b[1:])
		j, _ := binary.Uvarint(b[1+n:])
		p.Index, p.NonSpeculative = int64(i), int64(j)
	}
	return p, end, nil
}
