package streaming

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"trestle/internal/stage"
)

// sideLog has all that has come on a side input, for the next server to read it again. It grows at its end only: a
// snapshot has a link to it, and says how much of it counts.
type sideLog struct {
	path string
	file *os.File
	size int64
	hash hash.Hash // of all of it
	buf  []byte
}

// openSides makes the logs of a stage's side inputs, which are the first task's.
func (t *task) openSides() error {
	if t.job.cfg.Snapshots == "" || t.index != 0 {
		return nil
	}
	for i := range t.stage.plan.SideInputs {
		log := &sideLog{hash: sha256.New(), path: filepath.Join(t.job.cfg.State.Directory, t.name()+"-"+sideName(i))}
		if err := os.MkdirAll(t.job.cfg.State.Directory, 0o700); err != nil {
			return err
		}
		var err error
		if log.file, err = os.OpenFile(log.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		t.sides = append(t.sides, log)
	}
	return nil
}

// add appends a block.
func (l *sideLog) add(records []byte) error {
	l.buf = append(binary.AppendUvarint(l.buf[:0], uint64(len(records))), records...)
	n, err := l.file.Write(l.buf)
	l.size += int64(n)
	l.hash.Write(l.buf[:n])
	return err
}

// sum is of what there is now.
func (l *sideLog) sum() fileSum { return fileSum{l.size, hex.EncodeToString(l.hash.Sum(nil))} }

func (l *sideLog) close() error { return l.file.Close() }

// restoreSides brings what a snapshot has of the side inputs to the task.
func (t *task) restoreSides(ctx context.Context) error {
	for i, part := range t.restored.Sides {
		if i >= len(t.sides) {
			return t.errorf("restore", errors.New("the snapshot has more side inputs than the stage"))
		}
		path := filepath.Join(t.job.restoreFolder(), t.name(), sideName(i)) // of the first task, of which there is always one
		err := readSide(path, part.Size, func(records []byte) error {
			if err := t.sides[i].add(records); err != nil {
				return err
			}
			return t.task.Process(ctx, stage.Delivery{Input: stage.MainInput + 1 + i}, records)
		})
		if err != nil {
			return t.errorf("restore", fmt.Errorf("%s: %w", path, err))
		}
	}
	return nil
}

// readSide reads the blocks in the first bytes of a log.
func readSide(path string, size int64, each func(records []byte) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := bufio.NewReader(io.LimitReader(f, size))
	for {
		n, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n > uint64(size) {
			return errors.New("a block is longer than the file")
		}
		records := make([]byte, n)
		if _, err := io.ReadFull(r, records); err != nil {
			return err
		}
		if err := each(records); err != nil {
			return err
		}
	}
}
