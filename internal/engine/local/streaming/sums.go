package streaming

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"trestle/internal/kit/until"
)

// sums knows the files of a job's last snapshot: those that the next one shares with it are not read again.
type sums map[string]summed

type summed struct {
	info os.FileInfo
	sum  fileSum
}

// of sums up all files below a folder, until the context ends. written is how many bytes lie in files that the last snapshot did not have.
func (s sums) of(ctx context.Context, folder string) (now sums, written int64, err error) {
	now = sums{}
	err = eachFile(folder, func(name string, info os.FileInfo) error {
		was, had := s[name]
		if had && os.SameFile(was.info, info) && was.info.Size() == info.Size() && was.info.ModTime().Equal(info.ModTime()) {
			now[name] = was
			return nil
		}
		sum, err := sumFile(ctx, filepath.Join(folder, filepath.FromSlash(name)), info.Size())
		now[name] = summed{info, sum}
		written += sum.Size
		return err
	})
	return now, written, err
}

// eachFile calls f with the files below a folder, by their slashed path there.
func eachFile(folder string, f func(name string, info os.FileInfo) error) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(name), info)
	})
}

// sumFile sums up the first bytes of a file, which must have them. When the context ends, the error is its cause.
func sumFile(ctx context.Context, path string, size int64) (sum fileSum, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.LimitReader(until.Reader(ctx, f), size), make([]byte, 256<<10))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return fileSum{n, hex.EncodeToString(h.Sum(nil))}, err
}

// verify tells whether the files of a snapshot are those that its manifest has. The error is an errDamaged, or that of reading
// them.
func (m *manifest) verify(ctx context.Context, folder string) error {
	found := 0
	err := eachFile(folder, func(name string, info os.FileInfo) error {
		if name == manifestName {
			return nil
		}
		want, ok := m.Files[name]
		switch {
		case !ok:
			return fmt.Errorf("%s is not in its manifest: %w", name, errDamaged)
		case info.Size() != want.Size:
			return fmt.Errorf("%s has %d bytes, where it had %d: %w", name, info.Size(), want.Size, errDamaged)
		}
		found++
		sum, err := sumFile(ctx, filepath.Join(folder, filepath.FromSlash(name)), want.Size)
		if err == nil && sum != want {
			err = fmt.Errorf("%s does not read back as it was written: %w", name, errDamaged)
		}
		return err
	})
	if err == nil && found < len(m.Files) {
		for name := range m.Files {
			if _, err := os.Lstat(filepath.Join(folder, filepath.FromSlash(name))); err != nil {
				return fmt.Errorf("%s is not there: %w", name, errDamaged)
			}
		}
	}
	return err
}
