package coder

import (
	"errors"
	"fmt"
	"math"

	"trestle/internal/beam/urn"
)

// errBacked says that an iterable's elements are not in place.
var errBacked = errors.New("coder: the rest of the iterable is in state")

// EachElement calls f with each element of the iterable that b starts with, and returns the iterable's size in bytes. The
// element is a part of b. An error of f ends it and is returned. Other errors are those of Skip; it also fails when the
// coder is no iterable's, and when elements have to be read from state.
func (c *Coder) EachElement(b []byte, f func(element []byte) error) (size int, err error) {
	sub, ok := c.Element()
	if !ok {
		return 0, fmt.Errorf("coder %q (%s) is not of %s", c.id, c.urn, urn.CoderIterable)
	}
	n, o, err := count(b, 0)
	switch {
	case err != nil:
		return 0, err
	case n >= 0:
		return eachOf(b, o, sub, uint64(n), f)
	case n != -1:
		return 0, c.malformed(0, "an iterable of %d elements", n)
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
		case int64(chunk) == -1 && c.urn == urn.CoderStateBackedIterable:
			return 0, errBacked
		case chunk > math.MaxInt64:
			return 0, c.malformed(at, "a chunk of %d elements", int64(chunk))
		}
		if o, err = eachOf(b, o, sub, chunk, f); err != nil {
			return 0, err
		}
	}
}

// eachOf calls f with each of n elements of sub. Elements without bytes are refused beyond one: nothing bounds their number.
func eachOf(b []byte, o int, sub *Coder, n uint64, f func(element []byte) error) (int, error) {
	if sub.fixed == 0 && n > 1 {
		return 0, sub.malformed(o, "%d elements of no bytes", n)
	}
	for ; n > 0; n-- {
		end, err := sub.walk(b, o)
		if err != nil {
			return 0, err
		}
		if err := f(b[o:end]); err != nil {
			return 0, err
		}
		o = end
	}
	return o, nil
}
