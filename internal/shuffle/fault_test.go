package shuffle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// faults is a file system on which the nth operation fails: 0 is the first.
type faults struct {
	osFiles
	mu   sync.Mutex
	left int
	kind string // of the operation that failed
	read func(b []byte)
	err  error
}

func (f *faults) op(kind string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == -1 {
		f.kind = kind
		return f.err
	}
	return nil
}

func (f *faults) Create(dir string) (File, error) {
	if err := f.op("create"); err != nil {
		return nil, err
	}
	h, err := f.osFiles.Create(dir)
	return faultFile{h, f}, err
}

type faultFile struct {
	File
	f *faults
}

func (h faultFile) WriteAt(b []byte, off int64) (int, error) {
	if err := h.f.op("write"); err != nil {
		n, _ := h.File.WriteAt(b[:len(b)/2], off) // as a full disk does
		return n, err
	}
	return h.File.WriteAt(b, off)
}

func (h faultFile) ReadAt(b []byte, off int64) (int, error) {
	if err := h.f.op("read"); err != nil {
		return 0, err
	}
	n, err := h.File.ReadAt(b, off)
	if h.f.read != nil {
		h.f.read(b[:n])
	}
	return n, err
}

func (h faultFile) Close() error { return errors.Join(h.File.Close(), h.f.op("close")) }

// scenarios use each structure so that it spills and reads back.
var scenarios = map[string]func(s *Store) error{
	"grouper": func(s *Store) error {
		g, err := fillGrouper(s)
		if err != nil {
			return err
		}
		gs, err := g.Seal()
		if err != nil {
			return err
		}
		for {
			if ok, err := gs.Next(); !ok {
				return errors.Join(err, g.Close())
			}
		}
	},
	"table": func(s *Store) error {
		g, err := fillGrouper(s)
		if err != nil {
			return err
		}
		gs, err := g.Seal()
		if err != nil {
			return err
		}
		t, err := s.BuildTable(gs)
		if err != nil {
			return err
		}
		for page := int64(0); page >= 0; {
			if _, page, err = t.Lookup([]byte("key3"), []byte("w"), page, 10); err != nil {
				return err
			}
		}
		for page := int64(0); page >= 0; {
			if _, page, err = t.Keys([]byte("w"), page, 10); err != nil {
				return err
			}
		}
		return errors.Join(t.Close(), g.Close())
	},
	"pages": func(s *Store) error {
		p := s.NewPages()
		for i := range 100 {
			if err := p.Append(bytes.Repeat([]byte{1}, i)); err != nil {
				return err
			}
		}
		if err := p.Seal(); err != nil {
			return err
		}
		for page := int64(0); page >= 0; {
			var err error
			if _, page, err = p.Read(page, 100); err != nil {
				return err
			}
		}
		return p.Close()
	},
	"spool": func(s *Store) error {
		q := s.NewSpool()
		for i := range 100 {
			if err := q.Put(ctx, 0, bytes.Repeat([]byte{1}, i)); err != nil {
				return err
			}
		}
		q.Seal()
		for {
			if _, err := q.Get(ctx); err == io.EOF {
				return q.Close()
			} else if err != nil {
				return err
			}
		}
	},
	"grouper's attempts": func(s *Store) error {
		g := s.NewGrouper(8)
		for i := range 300 {
			a := Attempt(i / 50 * 2)
			key := fmt.Append(nil, "key", i%5)
			entry := appendEntry(nil, key, []byte("w"), 0, bytes.Repeat([]byte{1}, i%100))
			for _, a := range []Attempt{a, a + 1} {
				if err := g.Add(a, keyGroup(s.hash(key), 8), entry); err != nil {
					return err
				}
			}
			if i%50 == 49 {
				if err := errors.Join(g.Settle(a, true), g.Settle(a+1, false)); err != nil {
					return err
				}
			}
		}
		gs, err := g.Seal()
		if err != nil {
			return err
		}
		for {
			if ok, err := gs.Next(); !ok {
				return errors.Join(err, g.Close())
			}
		}
	},
	"spool's attempts": func(s *Store) error {
		q := s.NewSpool()
		for i := range 300 {
			a := Attempt(i / 50 * 2)
			for _, a := range []Attempt{a, a + 1} {
				if err := q.Put(ctx, a, bytes.Repeat([]byte{1}, i%100)); err != nil {
					return err
				}
			}
			if i%50 == 49 {
				if err := errors.Join(q.Settle(a, true), q.Settle(a+1, false)); err != nil {
					return err
				}
			}
		}
		q.Seal()
		for {
			if _, err := q.Get(ctx); err == io.EOF {
				return q.Close()
			} else if err != nil {
				return err
			}
		}
	},
}

func fillGrouper(s *Store) (*Grouper, error) {
	g := s.NewGrouper(8)
	for i := range 150 {
		key := fmt.Append(nil, "key", i%5)
		err := g.Add(0, keyGroup(s.hash(key), 8), appendEntry(nil, key, []byte("w"), 0, bytes.Repeat([]byte{1}, i)))
		if err != nil {
			return nil, err
		}
	}
	return g, nil
}

// sample picks some of the numbers below n: the first, ever fewer, the last.
func sample(n int) (picked []int) {
	for i := 0; i < n; i++ {
		picked = append(picked, i)
		if i > 30 && i < n-10 {
			i = min(i+i/8, n-10)
		}
	}
	return picked
}

// TestEachOperationFails fails one file operation after the other: the error comes out, and nothing is left behind.
func TestEachOperationFails(t *testing.T) {
	for name, scenario := range scenarios {
		t.Run(name, func(t *testing.T) {
			run := func(n int) (*Store, *faults, error) {
				s := NewStore(t.TempDir(), NewBudget(0))
				s.tune = tiny
				s.tune.floor = 200
				disk := &faults{left: n, err: syscall.ENOSPC}
				s.files = disk
				return s, disk, errors.Join(scenario(s), s.Close())
			}
			_, disk, err := run(math.MaxInt)
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			kinds := map[string]int{}
			for _, n := range sample(math.MaxInt - disk.left) {
				s, disk, err := run(n)
				kinds[disk.kind]++
				if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("operation %d, %q, failed, but the result is %v", n, disk.kind, err)
				} else if !strings.Contains(err.Error(), s.dir) {
					t.Errorf("operation %d, %s: the error does not name the folder: %v", n, disk.kind, err)
				}
				if s.budget.Used() != 0 {
					t.Errorf("operation %d, %s: %d bytes are still held", n, disk.kind, s.budget.Used())
				}
				if err := s.Close(); err != nil {
					t.Errorf("operation %d: a second close: %v", n, err)
				}
			}
			for _, kind := range []string{"create", "write", "read", "close"} {
				if kinds[kind] == 0 {
					t.Errorf("no %s ever failed", kind)
				}
			}
		})
	}
}

func TestFullDiskMessage(t *testing.T) {
	s := newTestStore(t, 0, tiny)
	disk := &faults{left: 7, err: syscall.ENOSPC}
	s.files = disk
	_, err := fillGrouper(s)
	if err == nil || disk.kind != "write" {
		t.Fatalf("got %v from a failed %q", err, disk.kind)
	}
	for _, want := range []string{s.dir, "no space left", fmt.Sprintf("after %d bytes", s.Spilled()), "free space there"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// TestCorruptBlock changes what a read returns: each time an error names where, and none is taken for data.
func TestCorruptBlock(t *testing.T) {
	for name, scenario := range scenarios {
		t.Run(name, func(t *testing.T) {
			run := func(n int) (*Store, int, error) {
				s := newTestStore(t, 0, tiny)
				s.tune.floor = 200
				reads := 0
				s.files = &faults{left: -1, read: func(b []byte) {
					if reads == n {
						b[n%len(b)] ^= 1 << (n % 8)
					}
					reads++
				}}
				err := scenario(s)
				return s, reads, err
			}
			_, total, err := run(-1)
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			for _, n := range sample(total) {
				s, _, err := run(n)
				if err == nil || !strings.Contains(err.Error(), "at offset ") || !strings.Contains(err.Error(), s.dir) {
					t.Fatalf("read %d was corrupt: got %v, expected an error with file and offset", n, err)
				}
			}
		})
	}
}

// TestNothingInTheFolder: spill files are unlinked while they are in use, and closed with the store.
func TestNothingInTheFolder(t *testing.T) {
	before := openFiles(t)
	for name, use := range map[string]func(s *Store) error{
		"grouper": func(s *Store) error { _, err := fillGrouper(s); return err },
		"spool": func(s *Store) error {
			q := s.NewSpool()
			var errs []error
			for range 100 {
				errs = append(errs, q.Put(ctx, 0, make([]byte, 500)))
			}
			return errors.Join(errs...)
		},
	} {
		s := newTestStore(t, 0, tiny)
		if err := use(s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Spilled() == 0 {
			t.Errorf("%s: nothing was spilled", name)
		}
		found, err := os.ReadDir(s.dir)
		if err != nil || len(found) > 0 {
			t.Errorf("%s: found %v, %v in the folder", name, found, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are still open", after-before)
	}
}

// openFiles counts the process's open files below a temporary folder.
func openFiles(t *testing.T) (n int) {
	found, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no list of open files here: %v", err)
	}
	for _, f := range found {
		if target, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.Contains(target, "spill-") {
			n++
		}
	}
	return n
}
