package kv

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestDiskFull: a disk that takes no more of a store's files, of tables, of values apart or of manifests, fails what is to be written, by
// the file system's word and the place; the store can be closed, another is not opened, and one on a disk that has room again has
// what was in the last checkpoint.
func TestDiskFull(t *testing.T) {
	for _, ext := range []string{".sst", ".blob", ""} {
		t.Run(ext, func(t *testing.T) {
			cache := NewCache(1 << 20)
			defer cache.Close()
			disk := &fullDisk{FS: vfs.Default, ext: ext}
			dir := t.TempDir()
			store, first := filepath.Join(dir, "store"), filepath.Join(dir, "first")
			s, err := open(t.Context(), disk, store, cache, slog.New(slog.DiscardHandler), nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			o := s.NewOverlay()
			put := func(key string) {
				o.Put([]byte(key), bytes.Repeat([]byte(key), 1000))
				if err := o.Commit(); err != nil {
					t.Fatal(err)
				}
			}
			put("a")
			if err := s.Checkpoint(first); err != nil {
				t.Fatal(err)
			}
			disk.full.Store(true)
			put("b")
			err = s.Checkpoint(filepath.Join(dir, "second"))
			if err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) || !strings.Contains(err.Error(), store) {
				t.Errorf("a checkpoint on a full disk: %v", err)
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if ext == "" {
				_, err := open(t.Context(), disk, store, cache, slog.New(slog.DiscardHandler), []string{first}, nil, nil)
				if err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
					t.Errorf("a store on a full disk: %v", err)
				}
			}
			disk.full.Store(false)
			if s, err = open(t.Context(), disk, store, cache, slog.New(slog.DiscardHandler), []string{first}, nil, nil); err != nil {
				t.Fatal(err)
			}
			o = s.NewOverlay()
			for key, want := range map[string]bool{"a": true, "b": false} {
				if has, err := o.Has([]byte(key)); has != want || err != nil {
					t.Errorf("%s is there: %v, error %v", key, has, err)
				}
			}
			if err := o.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCutValues: as long as values apart are cut off, no table is finished; when their file is gone, tables are again.
func TestCutValues(t *testing.T) {
	dir := t.TempDir()
	disk := &fullDisk{FS: vfs.Default, ext: ".blob"}
	told := 0
	f := files{disk, &fate{cut: map[string]bool{}, broken: func(error) { told++ }}}
	values, err := f.Create(filepath.Join(dir, "1.blob"), "")
	if err != nil {
		t.Fatal(err)
	}
	table, err := f.Create(filepath.Join(dir, "2.sst"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	disk.full.Store(true)
	if n, err := values.Write([]byte("value")); n != 5 || err != nil || told != 1 {
		t.Errorf("values on a full disk: %d, %v, told %d times", n, err, told)
	}
	disk.full.Store(false)
	if err := values.Close(); err != nil {
		t.Error(err)
	}
	if _, err := table.Write([]byte("key")); err == nil || !strings.Contains(err.Error(), "1.blob") {
		t.Errorf("a table while values are cut off: %v", err)
	}
	if err := f.Remove(filepath.Join(dir, "1.blob")); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Write([]byte("key")); err != nil {
		t.Errorf("a table after that: %v", err)
	}
}

// fullDisk is a disk that is full at times, for files of one kind.
type fullDisk struct {
	vfs.FS
	ext  string
	full atomic.Bool
}

func (d *fullDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	made, err := d.FS.Create(name, category)
	if err != nil || filepath.Ext(name) != d.ext || d.ext == "" && !strings.HasPrefix(filepath.Base(name), "MANIFEST-") {
		return made, err
	}
	return fullFile{made, d}, nil
}

type fullFile struct {
	vfs.File
	disk *fullDisk
}

func (f fullFile) Write(b []byte) (int, error) {
	if f.disk.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(b)
}
