package trigger

import (
	"encoding/binary"
	"fmt"
	"slices"

	"trestle/internal/beam/coder"
)

// maxSpan bounds delays, so that no sum of a few leaves int64: all of Beam's time.
const maxSpan = coder.MaxTimestamp - coder.MinTimestamp

// State is what a trigger remembers of one key and window. The zero State is that of a new window. A State belongs to
// the Machine that it was made by; copies share memory, Clone makes one that does not.
type State struct {
	bits  []byte  // which triggers are finished
	cells []int64 // counts; deadlines in milliseconds after unset. 0 in both cases is nothing yet
}

// unset is the cell 0 of a deadline: a millisecond before all time.
const unset = coder.MinTimestamp - 1

// Clone returns a State that shares nothing with s.
func (s *State) Clone() State { return State{bits: slices.Clone(s.bits), cells: slices.Clone(s.cells)} }

func (s *State) has(bit int) bool {
	return bit/8 < len(s.bits) && s.bits[bit/8]&(1<<(bit%8)) != 0
}

func (s *State) set(bit int, to bool) {
	if !to && bit/8 >= len(s.bits) {
		return
	}
	for bit/8 >= len(s.bits) {
		s.bits = append(s.bits, 0)
	}
	if to {
		s.bits[bit/8] |= 1 << (bit % 8)
	} else {
		s.bits[bit/8] &^= 1 << (bit % 8)
	}
}

func (s *State) cell(i int) int64 {
	if i < len(s.cells) {
		return s.cells[i]
	}
	return 0
}

func (s *State) setCell(i int, to int64) {
	if to == 0 && i >= len(s.cells) {
		return
	}
	for i >= len(s.cells) {
		s.cells = append(s.cells, 0)
	}
	s.cells[i] = to
}

// deadline returns the deadline in cell i; not ok when there is none.
func (s *State) deadline(i int) (ms int64, ok bool) {
	c := s.cell(i)
	return c + unset, c != 0
}

func (s *State) setDeadline(i int, ms int64) {
	s.setCell(i, clip(ms)-unset)
}

// clip holds a time within Beam's bounds.
func clip(ms int64) int64 { return min(max(ms, coder.MinTimestamp), coder.MaxTimestamp) }

// version is the first byte of an encoded State.
const version = 1

// AppendState appends the encoding of s: nothing for a State that is like a new one, else a byte of version, a bit a
// trigger, lowest first, and a varint for each count or deadline.
func (m *Machine) AppendState(dst []byte, s *State) []byte {
	if !slices.ContainsFunc(s.bits, func(b byte) bool { return b != 0 }) && !slices.ContainsFunc(s.cells, func(c int64) bool { return c != 0 }) {
		return dst
	}
	dst = append(dst, version)
	for i := range (m.bits + 7) / 8 {
		var b byte
		if i < len(s.bits) {
			b = s.bits[i]
		}
		dst = append(dst, b)
	}
	for i := range m.cells {
		dst = binary.AppendUvarint(dst, uint64(s.cell(i)))
	}
	return dst
}

// DecodeState decodes what AppendState wrote; b is the encoding and nothing else. The error says what is wrong with one
// that is of another version or of another trigger.
func (m *Machine) DecodeState(b []byte) (State, error) {
	if len(b) == 0 {
		return State{}, nil
	}
	if b[0] != version {
		return State{}, fmt.Errorf("state of trigger %s is of version %d, this version of Trestle reads %d", m.text, b[0], version)
	}
	b = b[1:]
	n := (m.bits + 7) / 8
	if len(b) < n {
		return State{}, fmt.Errorf("state of trigger %s is cut short", m.text)
	}
	s := State{bits: slices.Clone(b[:n])}
	if m.bits%8 != 0 && b[n-1]>>(m.bits%8) != 0 {
		return State{}, fmt.Errorf("state of trigger %s is of another trigger", m.text)
	}
	b = b[n:]
	for i := range m.cells {
		c, n := binary.Uvarint(b)
		switch {
		case n <= 0:
			return State{}, fmt.Errorf("state of trigger %s is cut short", m.text)
		case c > uint64(maxSpan)+1:
			return State{}, fmt.Errorf("state of trigger %s holds %d, which is no count and no time", m.text, c)
		}
		s.setCell(i, int64(c))
		b = b[n:]
	}
	if len(b) > 0 {
		return State{}, fmt.Errorf("state of trigger %s is followed by %d bytes", m.text, len(b))
	}
	return s, nil
}
