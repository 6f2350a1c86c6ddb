package metric

import (
	"encoding/binary"
	"maps"
	"slices"
)

// maxStringSet bounds the bytes of a set's strings. Beam's SDKs hold their own sets to the same million, and drop
// what is beyond it.
const maxStringSet = 1_000_000

// stringSet is a set of strings.
type stringSet struct {
	values map[string]struct{}
	size   int
}

func (c *stringSet) merge(p []byte) error {
	r := reader{b: p}
	var more []string
	r.iterable(func() { more = append(more, r.text()) })
	if err := r.end(); err != nil {
		return err
	}
	if c.values == nil {
		c.values = map[string]struct{}{}
	}
	for _, s := range more {
		if _, ok := c.values[s]; ok || c.size+len(s) > maxStringSet {
			continue
		}
		c.values[s] = struct{}{}
		c.size += len(s)
	}
	return nil
}

func (c *stringSet) payload() []byte {
	b := newIterable(len(c.values))
	for _, s := range slices.Sorted(maps.Keys(c.values)) {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}
