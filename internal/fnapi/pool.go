package fnapi

import (
	"math/bits"
	"sync"
)

// smallest and largest are the exponents of the smallest and the largest buffers that are kept, 4 KiB and 8 MiB: the Go
// SDK fills messages to 4 MB, and a little more.
const smallest, largest = 12, 23

// buffers are used again and again for messages. gRPC's own pool has no tier between 32 KiB and 1 MiB, and clears a whole
// buffer each time it is taken; here a buffer is at most twice as large as asked for and holds what was there before, which
// whoever takes it overwrites.
var buffers pool

// pool is a mem.BufferPool. It is safe for concurrent use.
type pool struct {
	tiers [largest - smallest + 1]sync.Pool // of *[]byte, whose capacities are powers of two
}

// Get returns a buffer of the given length.
func (p *pool) Get(length int) *[]byte {
	exponent := smallest
	if length > 1<<smallest {
		exponent = bits.Len(uint(length - 1))
	}
	if exponent > largest {
		buf := make([]byte, length)
		return &buf
	}
	if buf, ok := p.tiers[exponent-smallest].Get().(*[]byte); ok {
		*buf = (*buf)[:length]
		return buf
	}
	buf := make([]byte, length, 1<<exponent)
	return &buf
}

// Put takes a buffer back that Get has returned.
func (p *pool) Put(buf *[]byte) {
	exponent := bits.Len(uint(cap(*buf))) - 1
	if exponent >= smallest && exponent <= largest && cap(*buf) == 1<<exponent {
		p.tiers[exponent-smallest].Put(buf)
	}
}
