// Package coder walks encoded bytes without decoding values: it finds where elements, keys, windows and panes begin
// and end in what an SDK wrote.
//
// A coder of the pipeline is compiled once to a short program of skips. All encodings are those of Beam's nested
// context, in which every element tells its own end; they are defined with the StandardCoders in
// beam_runner_api.proto. What the runner does not know how to walk must be inside a length prefix.
//
// The package is pure. Compiled coders are immutable and may be used by many goroutines.
package coder

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"trestle/internal/beam/urn"
)

// Coder walks elements of one coder of a pipeline. It is immutable.
type Coder struct {
	id, urn string
	prog    []step
	// fixed is the size of every element, or -1 when sizes vary. An element of a coder whose sizes vary has at
	// least one byte, which is what bounds the loops over counts that come from outside.
	fixed int
	comps []*Coder
}

// ID is the coder's id among the pipeline's coders.
func (c *Coder) ID() string { return c.id }

// URN is the coder's URN.
func (c *Coder) URN() string { return c.urn }

// Fixed returns the size in bytes of every element, or false when the size differs from element to element.
func (c *Coder) Fixed() (int, bool) { return c.fixed, c.fixed >= 0 }

// KV returns the coders of the key and of the value; ok is false when the coder is not beam:coder:kv:v1.
func (c *Coder) KV() (key, value *Coder, ok bool) {
	if c.urn != urn.CoderKV {
		return nil, nil, false
	}
	return c.comps[0], c.comps[1], true
}

// Element returns the coder of an iterable's elements; ok is false when the coder is neither
// beam:coder:iterable:v1 nor beam:coder:state_backed_iterable:v1.
func (c *Coder) Element() (elem *Coder, ok bool) {
	if c.urn != urn.CoderIterable && c.urn != urn.CoderStateBackedIterable {
		return nil, false
	}
	return c.comps[0], true
}

// Skip returns the size in bytes of the first element in b. The error wraps io.ErrUnexpectedEOF when b ends before
// the element does; any other error means that the bytes are no encoding of this coder.
func (c *Coder) Skip(b []byte) (int, error) { return c.walk(b, 0) }

// op is what a step of a program skips.
type op uint8

const (
	opFixed    op = iota // n bytes
	opVarint             // one varint
	opPrefix             // a varint and as many bytes as it says
	opCall               // one element of sub: programs stay short however often a coder is shared
	opIterable           // elements of sub behind a count of 4 bytes, or chunks when the count is -1
	opBacked             // the same, with a token in place of the last chunk allowed
	opWindows            // a count of 4 bytes and as many windows of sub
	opPane               // a pane
	opNullable           // a byte 0, or a byte 1 and an element of sub
	opTimer              // a timer's clear bit; when it is not set, the two timestamps and the pane
)

type step struct {
	op  op
	n   int
	sub *Coder
}

// errShort says that the bytes end within an element. It is one value, since it is met at every seam of a stream.
var errShort = fmt.Errorf("coder: the bytes end within an element: %w", io.ErrUnexpectedEOF)

// malformed says that the bytes at offset are not what the coder would have written.
func (c *Coder) malformed(offset int, format string, args ...any) error {
	return fmt.Errorf("coder %q (%s): at byte %d: %s", c.id, c.urn, offset, fmt.Sprintf(format, args...))
}

// walk returns the offset behind the element that starts at o; o is at most len(b). Recursion goes only as deep as
// coders nest, which Compile bounds.
func (c *Coder) walk(b []byte, o int) (int, error) {
	for i := range c.prog {
		s := &c.prog[i]
		var err error
		switch s.op {
		case opFixed:
			if s.n > len(b)-o {
				return 0, errShort
			}
			o += s.n
		case opVarint:
			if o < len(b) && b[o] < 0x80 {
				o++
				continue
			}
			_, o, err = c.varint(b, o)
		case opPrefix:
			o, err = c.prefixed(b, o)
		case opCall:
			o, err = s.sub.walk(b, o)
		case opIterable:
			o, err = c.iterable(b, o, s.sub, false)
		case opBacked:
			o, err = c.iterable(b, o, s.sub, true)
		case opWindows:
			_, _, o, err = c.windows(b, o, s.sub)
		case opPane:
			o, err = c.pane(b, o)
		case opNullable:
			o, err = c.nullable(b, o, s.sub)
		case opTimer:
			o, err = c.timerTail(b, o)
		}
		if err != nil {
			return 0, err
		}
	}
	return o, nil
}

// varint reads a varint: seven bits a byte, the lowest first, at most 64 bits in ten bytes.
func (c *Coder) varint(b []byte, o int) (uint64, int, error) {
	v, n := binary.Uvarint(b[o:])
	switch {
	case n > 0:
		return v, o + n, nil
	case n == 0:
		return 0, 0, errShort
	default:
		return 0, 0, c.malformed(o, "a varint of more than 64 bits")
	}
}

// prefixed skips a length and as many bytes.
func (c *Coder) prefixed(b []byte, o int) (int, error) {
	if o >= len(b) {
		return 0, errShort
	}
	n, at := uint64(b[o]), o
	o++
	if n >= 0x80 {
		var err error
		if n, o, err = c.varint(b, at); err != nil {
			return 0, err
		}
		if n > math.MaxInt64 {
			return 0, c.malformed(at, "a length of %d", int64(n))
		}
	}
	if n > uint64(len(b)-o) {
		return 0, errShort
	}
	return o + int(n), nil
}

// elements skips n elements of sub. The work is bounded by the bytes and not by n.
func elements(b []byte, o int, sub *Coder, n uint64) (int, error) {
	if sub.fixed >= 0 {
		if sub.fixed > 0 && n > uint64((len(b)-o)/sub.fixed) {
			return 0, errShort
		}
		return o + sub.fixed*int(n), nil
	}
	var err error
	for ; n > 0; n-- {
		if o, err = sub.walk(b, o); err != nil {
			return 0, err
		}
	}
	return o, nil
}

// count reads the four bytes that begin an iterable.
func count(b []byte, o int) (int32, int, error) {
	if len(b)-o < 4 {
		return 0, 0, errShort
	}
	return int32(binary.BigEndian.Uint32(b[o:])), o + 4, nil
}

func (c *Coder) iterable(b []byte, o int, sub *Coder, backed bool) (int, error) {
	n, o, err := count(b, o)
	if err != nil {
		return 0, err
	}
	if n >= 0 {
		return elements(b, o, sub, uint64(n))
	}
	if n != -1 {
		return 0, c.malformed(o-4, "an iterable of %d elements", n)
	}
	for {
		at := o
		var chunk uint64
		if chunk, o, err = c.varint(b, o); err != nil {
			return 0, err
		}
		switch {
		case chunk == 0:
			return o, nil
		case backed && int64(chunk) == -1:
			return c.prefixed(b, o)
		case chunk > math.MaxInt64:
			return 0, c.malformed(at, "a chunk of %d elements", int64(chunk))
		}
		if o, err = elements(b, o, sub, chunk); err != nil {
			return 0, err
		}
	}
}

// windows skips a windowed value's or timer's windows; it returns their number and where the first one starts.
// The proto would allow chunks, which no SDK writes and which would part the windows: they are refused.
func (c *Coder) windows(b []byte, o int, sub *Coder) (n int, start, end int, err error) {
	k, o, err := count(b, o)
	if err != nil {
		return 0, 0, 0, err
	}
	switch {
	case k < 0:
		return 0, 0, 0, c.malformed(o-4, "a number of windows of %d", k)
	case k > 1 && sub.fixed == 0:
		// Windows are a set, and there is only one global window.
		return 0, 0, 0, c.malformed(o-4, "%d global windows", k)
	}
	end, err = elements(b, o, sub, uint64(k))
	return int(k), o, end, err
}

func (c *Coder) pane(b []byte, o int) (int, error) {
	if o >= len(b) {
		return 0, errShort
	}
	kind, at := b[o]>>4, o
	o++
	if kind > 2 {
		return 0, c.malformed(at, "a pane of the unknown encoding %d", kind)
	}
	var err error
	for ; kind > 0; kind-- {
		if _, o, err = c.varint(b, o); err != nil {
			return 0, err
		}
	}
	return o, nil
}

func (c *Coder) nullable(b []byte, o int, sub *Coder) (int, error) {
	if o >= len(b) {
		return 0, errShort
	}
	switch b[o] {
	case 0:
		return o + 1, nil
	case 1:
		return sub.walk(b, o+1)
	default:
		return 0, c.malformed(o, "a null indicator of %d", b[o])
	}
}

func (c *Coder) timerTail(b []byte, o int) (int, error) {
	if o >= len(b) {
		return 0, errShort
	}
	switch b[o] {
	case 1:
		return o + 1, nil
	case 0:
		if len(b)-o < 17 {
			return 0, errShort
		}
		return c.pane(b, o+17)
	default:
		return 0, c.malformed(o, "a clear bit of %d", b[o])
	}
}
