package stage

import (
	"context"
	"encoding/binary"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/shuffle"
)

// backlogBytes is about how much a backlog holds by itself; whole blocks of this size go to its spool.
const backlogBytes = 64 << 10

// backlog is a queue of values with their timestamps, first in first out, in bounded memory. It belongs to one goroutine.
type backlog struct {
	store  *shuffle.Store
	spool  *shuffle.Spool // nil before it is needed
	blocks int            // in the spool
	in     []byte         // what was put last
	out    []byte         // what is taken next, from next on
	next   int
}

// put appends a value, which it copies.
func (b *backlog) put(ctx context.Context, timestamp int64, value []byte) error {
	size := coder.TimestampSize + binary.MaxVarintLen64 + len(value)
	if len(b.in) > 0 && len(b.in)+size > backlogBytes {
		if b.spool == nil {
			b.spool = b.store.NewSpool()
		}
		if err := b.spool.Put(ctx, 0, b.in); err != nil {
			return fmt.Errorf("keep values until their window is known: %w", err)
		}
		b.blocks++
		b.in = b.in[:0]
	}
	b.in = coder.AppendTimestamp(b.in, timestamp)
	b.in = append(binary.AppendUvarint(b.in, uint64(len(value))), value...)
	return nil
}

// take returns the first value, of which there must be one. It is valid until the next call of take.
func (b *backlog) take(ctx context.Context) (value []byte, timestamp int64, err error) {
	if b.next == len(b.out) {
		b.next = 0
		if b.blocks > 0 {
			if b.out, err = b.spool.Get(ctx); err != nil {
				return nil, 0, fmt.Errorf("read values whose window is known: %w", err)
			}
			b.blocks--
		} else {
			b.out, b.in = b.in, b.out[:0]
		}
	}
	timestamp = coder.Timestamp(b.out[b.next:])
	start := b.next + coder.TimestampSize
	size, n := binary.Uvarint(b.out[start:])
	start += n
	b.next = start + int(size)
	return b.out[start:b.next], timestamp, nil
}

func (b *backlog) close() error {
	if b.spool == nil {
		return nil
	}
	return b.spool.Close()
}
