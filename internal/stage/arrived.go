package stage

import (
	"bytes"
	"slices"

	"trestle/internal/beam/grouping"
	"trestle/internal/shuffle"
)

// ofKey is the elements of one key that are taken up together.
type ofKey struct {
	key      []byte
	elements []grouping.Element
	values   [][]byte
}

// arrived is what a block has, by key, in the order in which the keys came. Its room is used again for the next block: most have few
// elements of many keys.
type arrived struct {
	keys    []ofKey
	index   map[string]int // where a key is among keys, unless it is very long
	windows [][]byte
}

// keptElements is for how many elements of a key, and for how many keys, room is kept.
const keptElements = 256

// add adds an entry, which points into its block.
func (a *arrived) add(e shuffle.Entry) {
	i, known := a.index[string(e.Key)]
	if len(e.Key) > indexedBytes {
		i, known = a.find(e.Key)
	}
	if !known {
		i = len(a.keys)
		if len(e.Key) <= indexedBytes {
			if a.index == nil {
				a.index = map[string]int{}
			}
			a.index[string(e.Key)] = i
		}
		if i < cap(a.keys) {
			a.keys = a.keys[:i+1]
		} else {
			a.keys = append(a.keys, ofKey{})
		}
		a.keys[i].key = e.Key
	}
	b := &a.keys[i]
	b.elements = append(b.elements, grouping.Element{Window: e.Window, Timestamp: e.Timestamp})
	b.values = append(b.values, e.Value)
}

// indexedBytes is how long a key may be to be in the index, which has a copy of it. A block has few larger ones.
const indexedBytes = 64 << 10

// find is where a key that is not in the index is among keys, if it came before.
func (a *arrived) find(key []byte) (i int, known bool) {
	i = slices.IndexFunc(a.keys, func(b ofKey) bool { return bytes.Equal(b.key, key) })
	return i, i >= 0
}

// windowsOf is the windows of a key's elements. It is valid until the next call.
func (a *arrived) windowsOf(b ofKey) [][]byte {
	a.windows = a.windows[:0]
	for _, e := range b.elements {
		a.windows = append(a.windows, e.Window)
	}
	return a.windows
}

// reset forgets the block.
func (a *arrived) reset() {
	if len(a.keys) > keptElements {
		*a = arrived{}
		return
	}
	for i := range a.keys {
		b := &a.keys[i]
		if len(b.elements) > keptElements {
			*b = ofKey{}
			continue
		}
		clear(b.elements)
		clear(b.values)
		*b = ofKey{elements: b.elements[:0], values: b.values[:0]}
	}
	clear(a.index)
	a.keys = a.keys[:0]
	if cap(a.windows) > 2*keptElements {
		a.windows = nil
	}
	clear(a.windows[:cap(a.windows)])
}
