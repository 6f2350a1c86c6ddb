package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

const (
	// scratchPattern is how the folders of all workers are named.
	scratchPattern = "trestle-worker-*"
	lockName       = "lock"
)

// claimScratch makes the worker's folder, which is the worker's for as long as it holds the lock in it, and removes those
// beside it whose workers were killed. The function that it returns removes the folder.
func claimScratch(dir string, log *slog.Logger) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the worker's folder (--scratch): %w", err)
	}
	// Locked under another name first: a file of the right one that is not locked belongs to a dead worker.
	lock := flock.New(filepath.Join(dir, lockName+".new"))
	locked, err := lock.TryLock()
	if err == nil && !locked {
		err = errors.New("another worker has it")
	}
	if err == nil {
		err = os.Rename(lock.Path(), filepath.Join(dir, lockName))
	}
	if err != nil {
		return nil, fmt.Errorf("lock the worker's folder %s (--scratch): %w", dir, err)
	}
	sweepScratch(dir, log)
	return func() error {
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return fmt.Errorf("remove the worker's folder: %w", err)
		}
		return nil
	}, nil
}

// sweepScratch removes what killed workers have left beside a worker's folder. What cannot be removed is the next one's
// affair.
func sweepScratch(own string, log *slog.Logger) {
	others, err := filepath.Glob(filepath.Join(filepath.Dir(own), scratchPattern))
	if err != nil {
		log.Warn("look for what earlier workers left", "error", err)
	}
	for _, dir := range others {
		if dir == own {
			continue
		}
		if err := sweepOne(dir); err != nil {
			log.Warn("remove what an earlier worker left", "folder", dir, "error", err)
		}
	}
}

func sweepOne(dir string) error {
	path := filepath.Join(dir, lockName)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // one that is just starting, or is being removed
		}
		return err
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDWR))
	locked, err := lock.TryLock()
	if err != nil || !locked {
		return ignoreMissing(err)
	}
	return errors.Join(os.RemoveAll(dir), lock.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
