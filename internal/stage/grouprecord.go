package stage

import (
	"encoding/binary"
	"fmt"

	"trestle/internal/shuffle"
)

// groupRecord writes the record of a pane: KV<K, Iterable<V>>.
type groupRecord struct {
	large largeGroups // nil when all values have to be in the record
	buf   []byte
	count int   // where the number of the values is
	n     int64 // values so far
	pages *shuffle.Pages
	held  int // bytes of values that are not in the record
}

// begin begins the values of a record behind what buf has, its header and key.
func (g *groupRecord) begin(buf []byte) {
	g.buf = buf
	// beam:coder:iterable:v1: the number of elements in four bytes, then the elements. The number is known at the end.
	g.count = len(g.buf)
	g.buf = append(g.buf, 0, 0, 0, 0)
}

// add adds n values, one behind the other.
func (g *groupRecord) add(values []byte, n int64) error {
	g.n += n
	if g.pages != nil {
		return g.page(values)
	}
	g.buf = append(g.buf, values...)
	if g.large == nil || len(g.buf)-g.count <= inlineBytes {
		return nil
	}
	// What is there so far becomes the first page, whose inner bounds do not matter.
	g.pages = g.large.newPages()
	values = g.buf[g.count+4:]
	g.buf = g.buf[:g.count]
	return g.page(values)
}

func (g *groupRecord) page(values []byte) error {
	if err := g.pages.Append(values); err != nil {
		return fmt.Errorf("large group: %w", err)
	}
	return nil
}

// end returns the buffer with the record.
func (g *groupRecord) end() ([]byte, error) {
	switch {
	case g.pages != nil:
		if err := g.pages.Seal(); err != nil {
			return g.buf, fmt.Errorf("large group: %w", err)
		}
		g.held = int(g.pages.Size())
		g.buf = appendToken(g.buf, g.large.keep(g.pages))
	case g.n > 1<<31-1:
		return g.buf, fmt.Errorf("a group has %d values, more than an iterable can hold in place (%d): the SDK does not offer beam:coder:state_backed_iterable:v1", g.n, 1<<31-1)
	default:
		binary.BigEndian.PutUint32(g.buf[g.count:], uint32(g.n))
	}
	return g.buf, nil
}

// appendToken appends a beam:coder:state_backed_iterable:v1 whose values are all elsewhere: a count of -1, no element in
// place (a chunk of -1), and the token.
func appendToken(buf, token []byte) []byte {
	buf = append(buf, 0xff, 0xff, 0xff, 0xff)
	buf = binary.AppendUvarint(buf, ^uint64(0))
	return append(binary.AppendUvarint(buf, uint64(len(token))), token...)
}
