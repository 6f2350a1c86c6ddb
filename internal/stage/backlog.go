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
	out    []byte         // what is taken next
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
	switch {
	case len(b.out) > 0:
	case b.blocks > 0:
		if b.out, err = b.spool.Get(ctx); err != nil {
			return nil, 0, fmt.Errorf("read values whose window is known: %w", err)
		}
		b.blocks--
	default:
		b.out, b.in = b.in, b.out
	}
	timestamp = coder.Timestamp(b.out)
	size, n := binary.Uvarint(b.out[coder.TimestampSize:])
	start := coder.TimestampSize + n
	end := start + int(size)
	value, b.out = b.out[start:end], b.out[end:]
	return value, timestamp, nil
}

func (b *backlog) close() error {
	if b.spool == nil {
		return nil
	}
	return b.spool.Close()
}
