package kv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is the disk without forcing anything to it: a store does not outlive its process.
type files struct {
	vfs.FS
	*fate
}

// fate is what becomes of the tables and the values apart that are being written.
type fate struct {
	// closing is set when nobody will read them: flushes and compactions end, and closing the store does not wait for all that they
	// would have written.
	closing atomic.Bool
	// broken is told when one cannot be written.
	broken func(error)
	// cut are the names of values apart that could not be written, and whose writer does not know; as long as there are any, tables
	// fail.
	mu  sync.Mutex
	cut map[string]bool
}

// fails is why a table is not to be written.
func (f *fate) fails() error {
	if f.closing.Load() {
		return errUnwanted
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.cut {
		return fmt.Errorf("%s could not be written", name)
	}
	return nil
}

func (f *fate) cutOff(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[name] = true
}

// Remove removes a file, and with it what there is against tables on its account.
func (f files) Remove(name string) error {
	err := f.FS.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.cut, name)
	}
	return err
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
type file struct{ vfs.File }

// table is a file that its writer may fail to write.
type table struct {
	file
	*fate
}

func (f table) Write(b []byte) (int, error) {
	if err := f.fails(); err != nil {
		return 0, err
	}
	n, err := f.file.Write(b)
	if err != nil {
		f.broken(err)
	}
	return n, err
}

// apartFile has values apart. When the last write to it fails, or its closing, pebble closes it again and panics. The table that refers to
// the values is finished after them, and fails: so that nothing comes of either, and nobody need be told here.
type apartFile struct {
	file
	*fate
	name string
}

func (f apartFile) Write(b []byte) (int, error) {
	if f.closing.Load() {
		return len(b), nil
	}
	if _, err := f.file.Write(b); err != nil {
		f.failed(err)
	}
	return len(b), nil
}

func (f apartFile) Close() error {
	if err := f.file.Close(); err != nil {
		f.failed(err)
	}
	return nil
}

func (f apartFile) failed(err error) {
	f.cutOff(f.name)
	f.broken(err)
}

// file makes one of a file that is written. What pebble has of its own state, it takes for broken when a write fails.
func (f files) file(name string, made vfs.File) vfs.File {
	switch filepath.Ext(name) {
	case ".sst":
		return table{file{made}, f.fate}
	case ".blob":
		return apartFile{file{made}, f.fate, name}
	}
	if strings.HasPrefix(filepath.Base(name), "MANIFEST-") {
		return manifest{file{made}, f.fate}
	}
	return file{made}
}

// manifest is what pebble writes a store's changes of tables to. After one failed write it fails for ever, and a flush that meets that is
// tried again at once, also while pebble opens the store and waits for it: for ever, with no way to end it. So nothing fails there, and
// who uses the store is told that it is broken.
type manifest struct {
	file
	*fate
}

func (f manifest) Write(b []byte) (int, error) {
	if _, err := f.file.Write(b); err != nil {
		f.broken(err)
	}
	return len(b), nil
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
	return file{made}, nil
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
