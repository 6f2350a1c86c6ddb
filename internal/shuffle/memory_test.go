package shuffle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
)

var ctx = context.Background()

// TestMemoryStaysWithin checks the promise of Budget, with real sizes: the peak is the limit and the slack that its
// documentation names. Several groupers share the budget, one key has most records.
func TestMemoryStaysWithin(t *testing.T) {
	const limit, groupers, records = 12 << 20, 3, 60_000
	s := newTestStore(t, limit, defaultTuning)
	var wg sync.WaitGroup
	for range groupers {
		wg.Go(func() {
			g := s.NewGrouper(128)
			value := make([]byte, 150)
			for i := range records {
				key := fmt.Append(nil, "key", max(0, i%10-6)*i)
				if err := g.Add(0, KeyGroup(key, 128), appendEntry(nil, key, nil, 0, value)); err != nil {
					t.Error(err)
					return
				}
			}
			gs, err := g.Seal()
			if err != nil {
				t.Error(err)
				return
			}
			n := 0
			for {
				ok, err := gs.Next()
				if err != nil {
					t.Error(err)
				}
				if !ok {
					break
				}
				for {
					if _, _, ok, err := gs.NextValue(); err != nil || !ok {
						break
					}
					n++
				}
			}
			if n != records {
				t.Errorf("read %d values of %d", n, records)
			}
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	const slack = groupers * (2<<20 + 4<<20 + 256<<10)
	if peak := s.budget.peak.Load(); peak > limit+slack || peak < limit/2 {
		t.Errorf("the peak was %d bytes: expected at most %d and %d", peak, limit, slack)
	}
	if used := s.budget.Used(); used != 0 {
		t.Errorf("%d bytes are held after the last group", used)
	}
	if s.Spilled() == 0 {
		t.Errorf("nothing was spilled")
	}
}

// TestLargeRecord: one larger than chunk, block and budget goes through.
func TestLargeRecord(t *testing.T) {
	s := newTestStore(t, 1<<20, defaultTuning)
	var recs []record
	for i := range 6 {
		value := bytes.Repeat([]byte{byte(i)}, 3<<20)
		recs = append(recs, record{"key", "", string(value), int64(i)}, record{fmt.Sprint(i), "", "small", 0})
	}
	g := s.NewGrouper(4)
	add(t, g, recs)
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	got := collect(t, gs)
	for id, want := range reference(recs) {
		if len(got[id]) != len(want) {
			t.Fatalf("group %q has %d values, expected %d", id, len(got[id]), len(want))
		}
		for i := range want {
			if got[id][i] != want[i] {
				t.Fatalf("group %q: value %d is another", id, i)
			}
		}
	}
	if s.Spilled() == 0 {
		t.Error("nothing was spilled")
	}
}

// TestCompressesWhatPays: text shrinks on disk, random bytes are left as they are.
func TestCompressesWhatPays(t *testing.T) {
	for _, c := range []struct {
		name   string
		random bool
	}{{"text", false}, {"random", true}} {
		tune := defaultTuning
		tune.floor = 4 << 10
		s := newTestStore(t, 0, tune)
		p := s.NewPages()
		rnd := xorshift(1)
		size := int64(0)
		for i := range 20_000 {
			rec := fmt.Appendf(nil, "this is line %d of a text that says the same over and over again; ", i)
			for j := 0; c.random && j+8 <= len(rec); j += 8 {
				binary.LittleEndian.PutUint64(rec[j:], rnd.next())
			}
			size += int64(len(rec)) + 1
			if err := p.Append(rec); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Seal(); err != nil {
			t.Fatal(err)
		}
		spilled := s.Spilled()
		if onDisk := size - s.budget.Used(); c.random && spilled < onDisk || !c.random && spilled > onDisk/2 {
			t.Errorf("%s: about %d bytes took %d on disk", c.name, onDisk, spilled)
		}
		if _, pages := readAll(t, p.Read, 0, 100_000, 200); len(pages) < 10 {
			t.Errorf("%s: only %d pages", c.name, len(pages))
		}
	}
}

// TestGrouperRefuses: what is malformed, or of another key group, is refused whole, and adding can go on.
func TestGrouperRefuses(t *testing.T) {
	s := newTestStore(t, 1<<20, tiny)
	g := s.NewGrouper(8)
	key := []byte("key")
	kg := KeyGroup(key, 8)
	good := appendEntry(nil, key, []byte("w"), 1, []byte("value"))
	for n := 1; n < len(good); n++ {
		if err := g.Add(0, kg, append(bytes.Clone(good), good[:n]...)); err == nil {
			t.Errorf("%d bytes of an entry: no error", n)
		}
	}
	overlong := append([]byte{0x83, 0x00}, good[1:]...)
	for _, c := range []struct {
		kg    int
		block []byte
	}{{(kg + 1) % 8, good}, {-1, good}, {8, good}, {kg, overlong}} {
		if err := g.Add(0, c.kg, c.block); err == nil {
			t.Errorf("key group %d, %x: no error", c.kg, c.block)
		}
	}
	if err := g.Add(0, kg, good); err != nil {
		t.Fatal(err)
	}
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Add(0, kg, good); !errors.Is(err, ErrSealed) {
		t.Errorf("add after Seal: %v", err)
	}
	if _, err := g.Seal(); !errors.Is(err, ErrSealed) {
		t.Errorf("a second Seal: %v", err)
	}
	if got := collect(t, gs); len(got) != 1 || len(got[groupID{"key", "w"}]) != 1 {
		t.Errorf("got %v, expected the one good entry", got)
	}
}

// TestCloseAnyTime closes the store while all of its structures are in use: each user gets an error, nothing is held.
func TestCloseAnyTime(t *testing.T) {
	for range 8 {
		s := newTestStore(t, 10<<10, tiny)
		var started, wg sync.WaitGroup
		use := func(f func() error) {
			started.Add(1)
			wg.Go(func() {
				for i := 0; ; i++ {
					err := f()
					if i == 0 {
						started.Done()
					}
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("got %v, expected ErrClosed", err)
						}
						return
					}
				}
			})
		}
		key := []byte("key")
		block := appendEntry(nil, key, []byte("w"), 0, make([]byte, 100))
		filling := s.NewGrouper(1)
		use(func() error { return filling.Add(0, 0, block) })
		use(func() error { return filling.Add(0, 0, block) })
		retried := s.NewGrouper(1)
		spool := s.NewSpool()
		n := 0
		use(func() error {
			if n++; n%10 == 0 {
				return errors.Join(retried.Settle(Attempt(n/10), n%20 == 0), spool.Settle(Attempt(n/10), n%20 == 0))
			}
			return errors.Join(retried.Add(Attempt(n/10+1), 0, block), spool.Put(ctx, Attempt(n/10+1), block))
		})
		full, err := fillGrouper(s)
		if err != nil {
			t.Fatal(err)
		}
		gs, err := full.Seal()
		if err != nil {
			t.Fatal(err)
		}
		use(func() error {
			if ok, err := gs.Next(); !ok && err == nil {
				return ErrClosed // it was read to the end before
			} else if err != nil {
				return err
			}
			_, _, _, err := gs.NextValue()
			return err
		})
		q := s.NewSpool()
		use(func() error { return q.Put(ctx, 0, block) })
		use(func() error { _, err := q.Get(ctx); return err })
		writing := s.NewPages()
		use(func() error { return writing.Append(block) })
		pages := s.NewPages()
		for range 100 {
			if err := pages.Append(block); err != nil {
				t.Fatal(err)
			}
		}
		if err := pages.Seal(); err != nil {
			t.Fatal(err)
		}
		use(func() error {
			if data, _, err := pages.Read(0, 1<<20); err != nil || len(data) == 100*len(block) {
				return err
			}
			return io.ErrUnexpectedEOF
		})
		started.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if used := s.budget.Used(); used != 0 {
			t.Errorf("%d bytes are still held", used)
		}
		if err := s.NewPages().Append(nil); !errors.Is(err, ErrClosed) && err != nil {
			t.Error(err)
		}
	}
}

// TestManyPages: thousands of small lists, as many windows make them, share files, and hold little when memory is short.
func TestManyPages(t *testing.T) {
	before := openFiles(t)
	const lists, rounds = 2000, 20
	s := newTestStore(t, 0, defaultTuning)
	all := make([]*Pages, lists)
	want := make([][]byte, lists)
	for i := range all {
		all[i] = s.NewPages()
	}
	for r := range rounds {
		for i, p := range all {
			rec := bytes.Repeat([]byte{byte(i), byte(r)}, 300)
			want[i] = append(want[i], rec...)
			if err := p.Append(rec); err != nil {
				t.Fatal(err)
			}
		}
	}
	if used := s.budget.Used(); used > lists*(32<<10+blockCost) {
		t.Errorf("while filled, %d lists hold %d bytes", lists, used)
	}
	for _, p := range all {
		if err := p.Seal(); err != nil {
			t.Fatal(err)
		}
	}
	if used := s.budget.Used(); used > lists*blockCost {
		t.Errorf("sealed, %d lists hold %d bytes", lists, used)
	}
	if n := openFiles(t) - before; n < 1 || n > 2 {
		t.Errorf("%d lists have %d files open", lists, n)
	}
	for i, p := range all {
		if got, _ := readAll(t, p.Read, 0, 1000, 0); !bytes.Equal(got, want[i]) {
			t.Fatalf("list %d: read %d bytes that are not the %d written", i, len(got), len(want[i]))
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := openFiles(t) - before; n != 0 {
		t.Errorf("all are closed, but %d files are open", n)
	}
}
