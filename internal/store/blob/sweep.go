package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// abandoned is the age past which a temporary file has no writer: a writer that has put nothing into its file for this
// long is dead (kill -9). Another live server may be writing to the same folder, so younger ones are left alone.
const abandoned = time.Hour

// sweep removes the temporary files that writers which died have left in a folder.
func sweep(dir string) error {
	var errs []error
	walk := func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // another server's sweep or write was quicker
			}
			return err
		}
		if entry.IsDir() || !strings.HasSuffix(path, ".tmp") {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if time.Since(info.ModTime()) < abandoned {
			return nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		return nil
	}
	errs = append(errs, filepath.WalkDir(dir, walk))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep temporary files: %w", err)
	}
	return nil
}
