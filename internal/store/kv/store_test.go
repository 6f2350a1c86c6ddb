package kv

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type fixture struct {
	t     *testing.T
	dir   string
	cache *Cache
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), cache: NewCache(1 << 20)}
	t.Cleanup(f.cache.Close)
	return f
}

func (f *fixture) open(name string, from []string, lo, hi []byte) (*Store, *Overlay) {
	f.t.Helper()
	s, err := Open(f.t.Context(), filepath.Join(f.dir, name), f.cache, slog.New(slog.DiscardHandler), from, lo, hi)
	if err != nil {
		f.t.Fatal(err)
	}
	o := s.NewOverlay()
	f.t.Cleanup(func() {
		if err := o.Close(); err != nil {
			f.t.Error(err)
		}
		if err := s.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return s, o
}

func (f *fixture) all(o *Overlay) string {
	f.t.Helper()
	var b strings.Builder
	if err := o.Scan([]byte{0}, []byte{0xff}, func(k, v []byte) (bool, error) {
		fmt.Fprintf(&b, "%s=%d ", k, len(v))
		return true, nil
	}); err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

func (f *fixture) checkpoint(s *Store, o *Overlay, name string) string {
	f.t.Helper()
	dir := filepath.Join(f.dir, name)
	if err := o.Commit(); err != nil {
		f.t.Fatal(err)
	}
	if err := s.Checkpoint(dir); err != nil {
		f.t.Fatal(err)
	}
	return dir
}

// files are the names and sizes of what is in a folder.
func (f *fixture) files(dir string) (all []string) {
	f.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %d", e.Name(), info.Size()))
	}
	return all
}

func TestACheckpointIsTheStoreAsItWas(t *testing.T) {
	f := newFixture(t)
	s, o := f.open("first", nil, nil, nil)
	o.Put([]byte("a"), []byte("1"))
	o.Put([]byte("b"), make([]byte, 1000))
	number := o.Next()
	dir := f.checkpoint(s, o, "cut")
	o.Put([]byte("c"), []byte("later"))
	o.Delete([]byte("a"))
	if err := o.Commit(); err != nil {
		t.Fatal(err)
	}
	_, again := f.open("second", []string{dir}, nil, nil)
	if got := f.all(again); got != "a=1 b=1000" {
		t.Errorf("restored: %s", got)
	}
	if got := f.all(o); got != "b=1000 c=5" {
		t.Errorf("the store went on as %s", got)
	}
	if n := again.Next(); n <= number {
		t.Errorf("numbers begin again at %d, after %d", n, number)
	}
}

// What a checkpoint copies, and does not share with others, stays small however many there were before: a job that runs for
// days takes one every few seconds.
func TestCheckpointsDoNotGrow(t *testing.T) {
	f := newFixture(t)
	s, o := f.open("long", nil, nil, nil)
	largest := int64(0)
	for i := range 400 { // of which each tells the manifest some 80 bytes
		o.Put([]byte("a"), fmt.Append(nil, i))
		dir := f.checkpoint(s, o, fmt.Sprint(i))
		manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
		if err != nil || len(manifests) != 1 {
			t.Fatalf("manifests %v, %v", manifests, err)
		}
		info, err := os.Stat(manifests[0])
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	// When one is begun anew differs by some changes.
	if largest < manifestBytes*3/4 || largest > manifestBytes+4<<10 {
		t.Errorf("a manifest had %d bytes, want about %d", largest, manifestBytes)
	}
}

// How much a range takes on disk is told once it is in files, and of ranges that have some.
func TestUsage(t *testing.T) {
	f := newFixture(t)
	s, o := f.open("used", nil, nil, nil)
	noise := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	o.Put([]byte("b"), noise)
	f.checkpoint(s, o, "written")
	for _, c := range []struct {
		lo, hi      string
		least, most uint64
	}{{"b", "c", 1 << 20, 2 << 20}, {"c", "d", 0, 0}} {
		if n, err := s.Usage([]byte(c.lo), []byte(c.hi)); err != nil || n < c.least || n > c.most {
			t.Errorf("%s to %s: %d bytes, %v", c.lo, c.hi, n, err)
		}
	}
}

func TestHeirsGetTheirShares(t *testing.T) {
	f := newFixture(t)
	s, o := f.open("low", nil, nil, nil)
	for _, k := range []string{"a", "b", "c"} {
		o.Put([]byte(k), []byte("x"))
	}
	low := f.checkpoint(s, o, "low cut")
	s, o = f.open("high", nil, nil, nil)
	for _, k := range []string{"d", "e", "f"} {
		o.Put([]byte(k), make([]byte, 500))
	}
	for range 7 {
		o.Next()
	}
	high := f.checkpoint(s, o, "high cut")
	before := [][]string{f.files(low), f.files(high)}

	for _, c := range []struct {
		from   []string
		lo, hi string
		want   string
	}{
		{[]string{low}, "b", "", "b=1 c=1"},
		{[]string{low}, "a", "b", "a=1"},
		{[]string{low, high}, "b", "e", "b=1 c=1 d=500"},
		{[]string{low, high}, "\x00", "", "a=1 b=1 c=1 d=500 e=500 f=500"},
	} {
		var hi []byte
		if c.hi != "" {
			hi = []byte(c.hi)
		}
		_, o := f.open(fmt.Sprintf("heir of %d, %x to %x", len(c.from), c.lo, c.hi), c.from, []byte(c.lo), hi)
		if got := f.all(o); got != c.want {
			t.Errorf("from %d checkpoints, %q to %q: %s, want %s", len(c.from), c.lo, c.hi, got, c.want)
		}
		if n := o.Next(); len(c.from) == 2 && n <= 7 {
			t.Errorf("numbers begin again at %d", n)
		}
	}
	for i, dir := range []string{low, high} {
		if after := f.files(dir); !slices.Equal(after, before[i]) {
			t.Errorf("%s had %q, and has %q", dir, before[i], after)
		}
	}
}

func TestABrokenCheckpointIsRefused(t *testing.T) {
	f := newFixture(t)
	for _, from := range [][]string{{filepath.Join(f.dir, "nothing")}, {f.dir, filepath.Join(f.dir, "nothing")}} {
		if s, err := Open(t.Context(), filepath.Join(f.dir, "new"), f.cache, slog.New(slog.DiscardHandler), from, nil, nil); err == nil {
			t.Errorf("opened from %q", from)
			_ = s.Close()
		}
	}
}
