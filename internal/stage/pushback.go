package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/shuffle"
)

// pushback keeps what arrives on the main input of a streaming plan's task until its side inputs can be read: blocks, and
// the watermark behind them. A side input can be read when all of it is there.
type pushback struct {
	waits  int // side inputs that are not complete
	blocks *shuffle.Spool
	millis int64 // the main input's watermark, as the engine told it
}

// blocked tells whether the main input has to wait.
func (p *pushback) blocked() bool { return p.waits > 0 }

// add keeps a block.
func (p *pushback) add(ctx context.Context, store *shuffle.Store, from Delivery, block []byte) error {
	if p.blocks == nil {
		p.blocks = store.NewSpool()
	}
	kept := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen32+len(block)), uint64(from.KeyGroup))
	if err := p.blocks.Put(ctx, 0, append(kept, block...)); err != nil {
		return fmt.Errorf("keep what waits for a side input: %w", err)
	}
	return nil
}

// release brings all that was kept to the intake.
func (p *pushback) release(ctx context.Context, to intake) error {
	for p.blocks != nil && p.blocks.Len() > 0 {
		kept, err := p.blocks.Get(ctx)
		if err != nil {
			return fmt.Errorf("read what waited for a side input: %w", err)
		}
		keyGroup, n := binary.Uvarint(kept)
		if n <= 0 {
			return errors.New("read what waited for a side input: a block without its key group")
		}
		if err := to.process(ctx, Delivery{KeyGroup: int(keyGroup)}, kept[n:]); err != nil {
			return err
		}
	}
	return p.close()
}

func (p *pushback) close() error {
	if p.blocks == nil {
		return nil
	}
	err := p.blocks.Close()
	p.blocks = nil
	return err
}

// sideWatermark takes note of a side input's watermark; released is true when the main input need not wait any more.
func (t *task) sideWatermark(ctx context.Context, side int, millis int64) (released bool, err error) {
	if millis < coder.MaxTimestamp {
		return false, nil
	}
	if err := t.spec.Views.end(side); err != nil {
		return false, err
	}
	p := &t.stream.pushback
	p.waits--
	if p.blocked() {
		return false, nil
	}
	return true, p.release(ctx, t.intake)
}
