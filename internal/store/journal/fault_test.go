package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trestle/internal/store/journal"
)

var errDisk = errors.New("no space left on device")

// faulty is a file whose calls fail when they are told to.
type faulty struct {
	*os.File
	write, sync, truncate bool
	partial               int // what a failing write writes none the less
	syncs                 int
}

func (f *faulty) WriteAt(b []byte, off int64) (int, error) {
	if !f.write {
		return f.File.WriteAt(b, off)
	}
	n, err := f.File.WriteAt(b[:min(f.partial, len(b))], off)
	return n, errors.Join(errDisk, err)
}

func (f *faulty) Sync() error {
	if f.sync {
		return errDisk
	}
	f.syncs++
	return f.File.Sync()
}

func (f *faulty) Truncate(size int64) error {
	if f.truncate {
		return errDisk
	}
	return f.File.Truncate(size)
}

func createFaulty(t *testing.T) (*journal.Journal, *faulty, string) {
	path := filepath.Join(t.TempDir(), "journal")
	f := new(faulty)
	j, err := journal.Create(path, journal.Options{Wrap: func(file *os.File) journal.File {
		f.File = file
		return f
	}})
	if err != nil {
		t.Fatal(err)
	}
	return j, f, path
}

// TestFailedWriteLeavesNothing fails a write after each of its bytes: readers never see it, and once the disk takes
// bytes again the journal goes on as if nothing had been.
func TestFailedWriteLeavesNothing(t *testing.T) {
	j, f, path := createFaulty(t)
	r, err := j.Reader()
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, j, "one")
	for partial := range 20 {
		f.write, f.partial = true, partial
		if err := j.Append([]byte("lost"), journal.Synced); !errors.Is(err, errDisk) || !strings.Contains(err.Error(), path) {
			t.Fatalf("Append: %v; want the disk's error, and the file", err)
		}
	}
	f.write = false
	appendAll(t, j, "two")
	closeAll(t, j)
	want := []string{"one", "two"}
	if d := cmp.Diff(want, readAll(t, r)); d != "" {
		t.Errorf("a reader (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, readFile(t, path)); d != "" {
		t.Errorf("the file (-want +got):\n%s", d)
	}
}

// TestUnknownEndIsFinal: when a half-written record cannot be cut off, or a sync fails, nothing more is taken, and what
// was written before is still read.
func TestUnknownEndIsFinal(t *testing.T) {
	for name, fail := range map[string]func(*faulty){
		"write and truncate": func(f *faulty) { f.write, f.truncate, f.partial = true, true, 5 },
		"sync":               func(f *faulty) { f.sync = true },
	} {
		t.Run(name, func(t *testing.T) {
			j, f, path := createFaulty(t)
			appendAll(t, j, "one")
			fail(f)
			if err := j.Append([]byte("lost"), journal.Synced); !errors.Is(err, errDisk) {
				t.Fatalf("Append: %v; want the disk's error", err)
			}
			f.write, f.truncate, f.sync = false, false, false
			if err := j.Append([]byte("two"), journal.Buffered); !errors.Is(err, errDisk) {
				t.Fatalf("Append after a failure that left the end unknown: %v; want the same error", err)
			}
			r, err := j.Reader()
			if err != nil {
				t.Fatal(err)
			}
			closeAll(t, j)
			if d := cmp.Diff([]string{"one"}, readAll(t, r)); d != "" {
				t.Errorf("a reader (-want +got):\n%s", d)
			}
			if got := readFile(t, path); got[0] != "one" {
				t.Errorf("the file: %q", got)
			}
		})
	}
}

// TestFailedCreateLeavesNothing: a header that is not written whole is not left behind.
func TestFailedCreateLeavesNothing(t *testing.T) {
	f := &faulty{write: true, partial: 3}
	path := filepath.Join(t.TempDir(), "journal")
	_, err := journal.Create(path, journal.Options{Wrap: func(file *os.File) journal.File {
		f.File = file
		return f
	}})
	if !errors.Is(err, errDisk) {
		t.Errorf("Create: %v; want the disk's error", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

// TestSyncs: the disk is asked where durability is, and only where something has been written since.
func TestSyncs(t *testing.T) {
	j, f, _ := createFaulty(t)
	expect := func(after string, want int) {
		t.Helper()
		if f.syncs != want {
			t.Errorf("%d syncs after %s; want %d", f.syncs, after, want)
		}
	}
	appendAll(t, j, "one", "two")
	expect("Create and buffered records", 0)
	for range 2 {
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
		expect("Sync", 1)
	}
	if err := j.Append([]byte("three"), journal.Synced); err != nil {
		t.Fatal(err)
	}
	expect("a synced record", 2)
	closeAll(t, j)
	expect("Close of what is durable", 2)
	if err := j.Sync(); err != nil {
		t.Errorf("Sync after Close: %v", err)
	}

	j, f, _ = createFaulty(t)
	appendAll(t, j, "one")
	closeAll(t, j)
	expect("Close of what is not", 1)
	j, f, _ = createFaulty(t)
	f.sync = true
	if err := j.Sync(); !errors.Is(err, errDisk) {
		t.Errorf("Sync: %v; want the disk's error", err)
	}
	f.sync = false
	if err := j.Append(nil, journal.Buffered); !errors.Is(err, errDisk) {
		t.Errorf("Append after a sync that failed: %v; want the same error", err)
	}
	closeAll(t, j)
}
