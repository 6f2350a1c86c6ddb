package metric

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// reader decodes a payload; after a failure it stays at the failure.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.b = err, nil
	}
}

// varint reads a beam:coder:varint:v1.
func (r *reader) varint() int64 {
	v, n := binary.Uvarint(r.b)
	switch {
	case r.err != nil:
		return 0
	case n == 0:
		r.fail(fmt.Errorf("payload ends within a varint: %w", io.ErrUnexpectedEOF))
		return 0
	case n < 0:
		r.fail(errors.New("payload has a varint of more than 64 bits"))
		return 0
	}
	r.b = r.b[n:]
	return int64(v)
}

// double reads a beam:coder:double:v1.
func (r *reader) double() float64 {
	p := r.take(8)
	if r.err != nil {
		return 0
	}
	return math.Float64frombits(binary.BigEndian.Uint64(p))
}

// text reads a beam:coder:string_utf8:v1.
func (r *reader) text() string { return string(r.take(r.varint())) }

func (r *reader) take(n int64) []byte {
	switch {
	case r.err != nil:
		return nil
	case n < 0:
		r.fail(fmt.Errorf("payload has a length of %d", n))
		return nil
	case n > int64(len(r.b)):
		r.fail(fmt.Errorf("payload has %d bytes where %d should be: %w", len(r.b), n, io.ErrUnexpectedEOF))
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

// iterable reads a beam:coder:iterable:v1, with element for each element. Every element has at least a byte, so what
// the count claims costs no more than what the payload holds.
func (r *reader) iterable(element func()) {
	p := r.take(4)
	if r.err != nil {
		return
	}
	n := int64(int32(binary.BigEndian.Uint32(p)))
	chunks := n == -1
	if chunks {
		n = r.varint()
	}
	for r.err == nil {
		if n < 0 {
			r.fail(fmt.Errorf("payload has an iterable of %d elements", n))
		}
		for ; n > 0 && r.err == nil; n-- {
			element()
		}
		if !chunks {
			return
		}
		if n = r.varint(); n == 0 {
			return
		}
	}
}

// end returns the first failure; bytes that are left over are one too.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return fmt.Errorf("payload has %d bytes too many", len(r.b))
	}
	return r.err
}

// number is how numbers of a type are read and written.
type number[T int64 | float64] struct {
	read  func(*reader) T
	write func([]byte, T) []byte
}

var (
	int64s  = number[int64]{(*reader).varint, appendVarint}
	doubles = number[float64]{(*reader).double, appendDouble}
)

func appendVarint(dst []byte, v int64) []byte { return binary.AppendUvarint(dst, uint64(v)) }

func appendDouble(dst []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
}

// newIterable begins the encoding of an iterable of a known length.
func newIterable(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
