package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

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

// pushbackName is the file of a snapshot with what waits for side inputs.
const pushbackName = "pushback"

// snapshot writes what waits. It goes through the queue once.
func (p *pushback) snapshot(ctx context.Context, store *shuffle.Store, directory string) error {
	if p.blocks == nil {
		return nil
	}
	old := p.blocks
	p.blocks = store.NewSpool()
	err := writeRecordFile(filepath.Join(directory, pushbackName), func(add func([]byte) error) error {
		for old.Len() > 0 {
			kept, err := old.Get(ctx)
			if err != nil {
				return err
			}
			if err := errors.Join(add(kept), p.blocks.Put(ctx, 0, kept)); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, old.Close())
}

// restore reads what snapshots have: of keyed blocks those of the task's key groups, whoever had them, of others what was a
// task's whole.
func (p *pushback) restore(s Spec) error {
	from := s.unkeyed()
	if s.keyed() {
		from = nil
		for _, r := range s.Restore {
			from = append(from, r.Directory)
		}
	}
	first, end := keyGroups(s.Index, s.Parallelism, s.KeyGroups)
	for _, directory := range from {
		err := readRecordFile(filepath.Join(directory, pushbackName), func(kept []byte) error {
			group, n := binary.Uvarint(kept)
			if n <= 0 {
				return fmt.Errorf("%s: a block without its key group: %w", directory, errSnapshotFormat)
			}
			if s.keyed() && (group < uint64(first) || group >= uint64(end)) {
				return nil
			}
			if p.blocks == nil {
				p.blocks = s.Store.NewSpool()
			}
			return p.blocks.Put(context.Background(), 0, kept)
		})
		if err != nil {
			return errors.Join(err, p.close())
		}
	}
	return nil
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
