package kv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is the disk without forcing anything to it: a store does not outlive its process.
type files struct {
	vfs.FS
	// closing is set when nobody will read what is written to tables and to values apart: flushes and compactions end, and closing
	// the store does not wait for all that they would have written.
	closing *atomic.Bool
}

// errUnwanted is a write's error when the store is being closed.
var errUnwanted = errors.New("the store is being closed")

// untouched is the disk of a checkpoint that is only read. Pebble's lock would be a file more in it, which stays there: a snapshot
// with it is not what was written, and nobody writes to one.
type untouched struct{ vfs.FS }

func (untouched) Lock(string) (io.Closer, error) { return noLock{}, nil }

type noLock struct{}

func (noLock) Close() error { return nil }

// file forwards no Sync.
type file struct {
	vfs.File
	closing *atomic.Bool // nil for a file whose writes never fail
	silent  bool         // what is written when the store is being closed is dropped, and its writer does not hear of it
}

func (f file) Write(b []byte) (int, error) {
	if f.closing != nil && f.closing.Load() {
		if f.silent {
			return len(b), nil
		}
		return 0, errUnwanted
	}
	return f.File.Write(b)
}

// file makes one of a file that is written. What pebble has of its own state, it takes for broken when a write fails.
func (f files) file(name string, made vfs.File) file {
	switch filepath.Ext(name) {
	case ".sst":
		return file{File: made, closing: f.closing}
	case ".blob":
		// When the last write to values apart fails, pebble closes the file twice and panics. The table that refers to them is finished
		// after them: its writes fail, so that nothing comes of either.
		return file{File: made, closing: f.closing, silent: true}
	}
	return file{File: made}
}

func (file) Sync() error                { return nil }
func (file) SyncData() error            { return nil }
func (file) SyncTo(int64) (bool, error) { return false, nil }

func (f files) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	made, err := f.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return f.file(name, made), nil
}

func (f files) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	made, err := f.FS.ReuseForWrite(old, name, category)
	if err != nil {
		return nil, err
	}
	return f.file(name, made), nil
}

func (f files) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	made, err := f.FS.OpenReadWrite(name, category, opts...)
	if err != nil {
		return nil, err
	}
	return f.file(name, made), nil
}

func (f files) OpenDir(name string) (vfs.File, error) {
	made, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return file{File: made}, nil
}

// link puts the files of one directory into another, which is made: linked where the file system can, else copied.
func link(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		if err := linkFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func linkFile(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(fmt.Errorf("copy %s: %w", from, err), in.Close(), out.Close())
	}
	return errors.Join(in.Close(), out.Close())
}
