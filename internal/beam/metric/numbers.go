package metric

import (
	"cmp"
	"fmt"
	"slices"
)

// sumInt64 is a counter. It wraps around as the SDKs' counters do.
type sumInt64 struct{ v int64 }

func (c *sumInt64) merge(p []byte) error {
	r := reader{b: p}
	v := r.varint()
	if err := r.end(); err != nil {
		return err
	}
	c.v += v
	return nil
}

func (c *sumInt64) payload() []byte { return appendVarint(nil, c.v) }

// sumDouble is a counter of doubles.
type sumDouble struct{ v float64 }

func (c *sumDouble) merge(p []byte) error {
	r := reader{b: p}
	v := r.double()
	if err := r.end(); err != nil {
		return err
	}
	c.v += v
	return nil
}

func (c *sumDouble) payload() []byte { return appendDouble(nil, c.v) }

// distribution is a count, a sum, and the extremes.
type distribution[T int64 | float64] struct {
	number[T]
	count         int64
	sum, min, max T
	seen          bool
}

func (c *distribution[T]) merge(p []byte) error {
	r := reader{b: p}
	count, sum, lo, hi := r.varint(), c.read(&r), c.read(&r), c.read(&r)
	if err := r.end(); err != nil {
		return err
	}
	if count < 0 {
		return fmt.Errorf("payload is a distribution of %d values", count)
	}
	switch {
	case !c.seen || c.count == 0:
		c.min, c.max = lo, hi
	case count > 0:
		// An empty distribution's extremes mean nothing: SDKs differ in what they write there.
		c.min, c.max = min(c.min, lo), max(c.max, hi)
	}
	c.seen = true
	c.count += count
	c.sum += sum
	return nil
}

func (c *distribution[T]) payload() []byte {
	b := c.write(appendVarint(nil, c.count), c.sum)
	return c.write(c.write(b, c.min), c.max)
}

// latest is a gauge: the value with the latest timestamp, and of several with that one the last that was added.
type latest[T int64 | float64] struct {
	number[T]
	at   int64 // milliseconds since the epoch
	v    T
	seen bool
}

func (c *latest[T]) merge(p []byte) error {
	r := reader{b: p}
	at, v := r.varint(), c.read(&r)
	if err := r.end(); err != nil {
		return err
	}
	if !c.seen || at >= c.at {
		c.at, c.v, c.seen = at, v, true
	}
	return nil
}

func (c *latest[T]) payload() []byte { return c.write(appendVarint(nil, c.at), c.v) }

// maxExtremes bounds a top-n or bottom-n metric. The payload does not say which n the user asked for, and no SDK
// reports more than a few dozen values.
const maxExtremes = 1000

// extremes are the largest or the smallest values, the most extreme first.
type extremes[T int64 | float64] struct {
	number[T]
	largest bool
	values  []T
}

func (c *extremes[T]) merge(p []byte) error {
	r := reader{b: p}
	var more []T
	r.iterable(func() { more = append(more, c.read(&r)) })
	if err := r.end(); err != nil {
		return err
	}
	c.values = append(c.values, more...)
	slices.SortFunc(c.values, func(a, b T) int {
		if c.largest {
			a, b = b, a
		}
		return cmp.Compare(a, b)
	})
	c.values = slices.Clip(c.values[:min(len(c.values), maxExtremes)])
	return nil
}

func (c *extremes[T]) payload() []byte {
	b := newIterable(len(c.values))
	for _, v := range c.values {
		b = c.write(b, v)
	}
	return b
}
