package journal_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/store/journal"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func create(t testing.TB) (*journal.Journal, string) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := journal.Create(path, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return j, path
}

func appendAll(t testing.TB, j *journal.Journal, records ...string) {
	t.Helper()
	for _, r := range records {
		if err := j.Append([]byte(r), journal.Buffered); err != nil {
			t.Fatal(err)
		}
	}
}

func closeAll(t testing.TB, c ...io.Closer) {
	t.Helper()
	for _, c := range c {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// open opens the journal, and returns its records as Open visits them.
func open(path string, o journal.Options) (*journal.Journal, []string, error) {
	records := []string{}
	j, err := journal.Open(path, o, func(b []byte) error {
		records = append(records, string(b))
		return nil
	})
	return j, records, err
}

// readAll reads a journal to its end.
func readAll(t testing.TB, r *journal.Reader) []string {
	t.Helper()
	records := []string{}
	for {
		b, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			closeAll(t, r)
			return records
		}
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, string(b))
	}
}

func readFile(t testing.TB, path string) []string {
	t.Helper()
	r, err := journal.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(t, r)
}

func contents(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsComeBack(t *testing.T) {
	large := strings.Repeat("large ", 100_000)
	want := []string{"first", "", "third", large, "last"}
	j, path := create(t)
	if _, err := journal.Create(path, journal.Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create of what is there: %v; want fs.ErrExist", err)
	}
	appendAll(t, j, want[:3]...)
	closeAll(t, j, j)
	if err := j.Append(nil, journal.Synced); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("Append after Close: %v; want ErrClosed", err)
	}
	j, got, err := open(path, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want[:3], got); d != "" {
		t.Errorf("opened (-want +got):\n%s", d)
	}
	appendAll(t, j, want[3:]...)
	r, err := j.Reader()
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, j)
	if d := cmp.Diff(want, readAll(t, r)); d != "" {
		t.Errorf("read (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, readFile(t, path)); d != "" {
		t.Errorf("read from the file (-want +got):\n%s", d)
	}
}

// TestReadersFollow has many readers, early and late ones, follow one journal while several goroutines write to it: all
// see the same records in the same order, each writer's in its own.
func TestReadersFollow(t *testing.T) {
	const writers, each, readers = 4, 200, 8
	j, _ := create(t)
	got := make([][]string, readers)
	var writing, reading sync.WaitGroup
	follow := func(i int) {
		r, err := j.Reader()
		if err != nil {
			t.Error(err)
			return
		}
		reading.Go(func() { got[i] = readAll(t, r) })
	}
	for i := range readers / 2 {
		follow(i)
	}
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if err := j.Append(fmt.Appendf(nil, "%d %d", w, i), journal.Durability(i%50 == 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := readers / 2; i < readers; i++ {
		follow(i)
	}
	writing.Wait()
	closeAll(t, j)
	reading.Wait()
	if len(got[0]) != writers*each {
		t.Fatalf("%d records; want %d", len(got[0]), writers*each)
	}
	next := make([]int, writers)
	for _, r := range got[0] {
		var w, i int
		if _, err := fmt.Sscan(r, &w, &i); err != nil || next[w] != i {
			t.Fatalf("record %q; want number %d (%v)", r, next[w], err)
		}
		next[w]++
	}
	for i := range got {
		if d := cmp.Diff(got[0], got[i]); d != "" {
			t.Fatalf("reader %d (-first +it):\n%s", i, d)
		}
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	j, _ := create(t)
	defer closeAll(t, j)
	r, err := j.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := r.Next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("Next: %v; want the context's error", err)
	}
	// A reader whose wait was ended reads on where it was.
	appendAll(t, j, "one")
	if b, err := r.Next(t.Context()); string(b) != "one" || err != nil {
		t.Errorf("Next: %q, %v", b, err)
	}
}

// TestKilledAnywhere cuts a journal at every byte, as a killed process may leave it: what was written whole before is
// there, the rest is gone, and the journal takes further records.
func TestKilledAnywhere(t *testing.T) {
	records := []string{"one", "", "three", strings.Repeat("4", 40)}
	j, path := create(t)
	ends := []int{len(contents(t, path))}
	for _, r := range records {
		appendAll(t, j, r)
		ends = append(ends, len(contents(t, path)))
	}
	closeAll(t, j)
	whole := contents(t, path)
	for cut := range len(whole) + 1 {
		write(t, path, whole[:cut])
		kept := 0
		for kept < len(records) && ends[kept+1] <= cut {
			kept++
		}
		if d := cmp.Diff(records[:kept], readFile(t, path)); d != "" {
			t.Fatalf("cut at %d: read (-want +got):\n%s", cut, d)
		}
		var log bytes.Buffer
		j, got, err := open(path, journal.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if d := cmp.Diff(records[:kept], got); d != "" {
			t.Fatalf("cut at %d: opened (-want +got):\n%s", cut, d)
		}
		if torn := cut != ends[kept]; torn != strings.Contains(log.String(), "torn") {
			t.Errorf("cut at %d, torn %v, logged: %s", cut, torn, log.String())
		}
		appendAll(t, j, "more")
		closeAll(t, j)
		if d := cmp.Diff(append(records[:kept:kept], "more"), readFile(t, path)); d != "" {
			t.Fatalf("cut at %d: after one more (-want +got):\n%s", cut, d)
		}
	}
}

// TestPowerLost leaves a file as a machine may that lost power: longer than what was written, the rest zeros.
func TestPowerLost(t *testing.T) {
	j, path := create(t)
	appendAll(t, j, "one", "two")
	closeAll(t, j)
	whole := contents(t, path)
	for zeros := 1; zeros < 40; zeros++ {
		write(t, path, append(whole[:len(whole):len(whole)], make([]byte, zeros)...))
		j, got, err := open(path, journal.Options{})
		if err != nil {
			t.Fatalf("%d zeros: %v", zeros, err)
		}
		closeAll(t, j)
		if d := cmp.Diff([]string{"one", "two"}, got); d != "" {
			t.Fatalf("%d zeros (-want +got):\n%s", zeros, d)
		}
	}
	// Nothing came to the disk but the file's length.
	for zeros := range 40 {
		write(t, path, make([]byte, zeros))
		if d := cmp.Diff([]string{}, readFile(t, path)); d != "" {
			t.Fatalf("a file of %d zeros, read (-want +got):\n%s", zeros, d)
		}
		j, got, err := open(path, journal.Options{})
		if err != nil {
			t.Fatalf("a file of %d zeros: %v", zeros, err)
		}
		appendAll(t, j, "anew")
		closeAll(t, j)
		if d := cmp.Diff([]string{}, got); d != "" {
			t.Fatalf("a file of %d zeros (-want +got):\n%s", zeros, d)
		}
		if d := cmp.Diff([]string{"anew"}, readFile(t, path)); d != "" {
			t.Fatalf("a file of %d zeros, written anew (-want +got):\n%s", zeros, d)
		}
	}
	// The last record's own bytes did not come to the disk.
	write(t, path, append(whole[:len(whole)-2:len(whole)-2], 0, 0))
	j, got, err := open(path, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(t, j)
	if d := cmp.Diff([]string{"one"}, got); d != "" {
		t.Fatalf("last record's bytes lost (-want +got):\n%s", d)
	}
}

// TestDamageIsAnError flips each bit of a journal: no record is ever read wrong; and damage before the last record is an
// error with file and offset.
func TestDamageIsAnError(t *testing.T) {
	records := []string{"one", "two", "three"}
	j, path := create(t)
	ends := []int{len(contents(t, path))}
	for _, r := range records {
		appendAll(t, j, r)
		ends = append(ends, len(contents(t, path)))
	}
	closeAll(t, j)
	whole := contents(t, path)
	for at := range whole {
		for bit := range 8 {
			damaged := bytes.Clone(whole)
			damaged[at] ^= 1 << bit
			write(t, path, damaged)
			j, got, err := open(path, journal.Options{})
			if err == nil {
				closeAll(t, j)
				// Only the last record's own bytes, behind a sound length, can pass for a torn tail.
				if at < ends[2]+8 || !cmp.Equal(records[:2], got) {
					t.Fatalf("byte %d, bit %d: %q, and no error", at, bit, got)
				}
				continue
			}
			if !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "offset ") {
				t.Fatalf("byte %d, bit %d: %v", at, bit, err)
			}
			if !bytes.Equal(contents(t, path), damaged) {
				t.Fatalf("byte %d, bit %d: Open changed a file that it refused", at, bit)
			}
		}
	}
}

func TestOtherFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	for _, c := range []struct{ content, says string }{
		{"a file of some other program", "the file is no journal"},
		{"short", "the file is no journal"},
		{"trestlej\x02\x00\x00\x00", "format version 2, and this Trestle reads version 1"},
	} {
		write(t, path, []byte(c.content))
		if _, _, err := open(path, journal.Options{}); !errors.Is(err, journal.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("open %q: %v; want an error that says %q", c.content, err, c.says)
		}
	}
	if _, _, err := open(path+"-not", journal.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open what is not there: %v", err)
	}
	refused := errors.New("refused")
	j, path := create(t)
	appendAll(t, j, "one")
	closeAll(t, j)
	_, err := journal.Open(path, journal.Options{}, func([]byte) error { return refused })
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "offset 12") {
		t.Errorf("open with a visitor that refuses: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	j, path := create(t)
	if err := j.Append(make([]byte, journal.MaxRecord+1), journal.Buffered); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Append of too much: %v", err)
	}
	appendAll(t, j, "one")
	closeAll(t, j)
	if d := cmp.Diff([]string{"one"}, readFile(t, path)); d != "" {
		t.Error(d)
	}
}

// TestModel compares a journal that is appended to, closed, killed and opened again at random with a slice.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), "journal")
		j, err := journal.Create(path, journal.Options{})
		if err != nil {
			rt.Fatal(err)
		}
		model := []string{}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				r := string(rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "record"))
				if err := j.Append([]byte(r), journal.Durability(rapid.Bool().Draw(rt, "durable"))); err != nil {
					rt.Fatal(err)
				}
				model = append(model, r)
			},
			"reopen": func(rt *rapid.T) {
				if err := j.Close(); err != nil {
					rt.Fatal(err)
				}
				torn := rapid.SliceOfN(rapid.Byte(), 0, 11).Draw(rt, "torn")
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					rt.Fatal(err)
				}
				_, err = f.Write(torn)
				if err := errors.Join(err, f.Close()); err != nil {
					rt.Fatal(err)
				}
				var got []string
				if j, got, err = open(path, journal.Options{}); err != nil {
					rt.Fatal(err)
				}
				if d := cmp.Diff(model, got); d != "" {
					rt.Fatalf("(-want +got):\n%s", d)
				}
			},
		})
		if err := j.Close(); err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(model, readFile(t, path)); d != "" {
			rt.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// FuzzOpen opens files of anything: Open returns what was written whole, or an error, and what it opened once opens again
// with the same records.
func FuzzOpen(f *testing.F) {
	j, path := create(f)
	appendAll(f, j, "one", "", "three")
	closeAll(f, j)
	whole := contents(f, path)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte("trestlej"))
	f.Add(binary.LittleEndian.AppendUint32(bytes.Clone(whole), 1<<31))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "journal")
		write(t, path, b)
		j, first, err := open(path, journal.Options{})
		if err != nil {
			if !errors.Is(err, journal.ErrCorrupt) {
				t.Fatalf("%v does not wrap ErrCorrupt", err)
			}
			return
		}
		closeAll(t, j)
		j, again, err := open(path, journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		closeAll(t, j)
		if d := cmp.Diff(first, again); d != "" {
			t.Fatalf("opened again (-first +again):\n%s", d)
		}
	})
}
