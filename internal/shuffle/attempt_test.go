package shuffle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tries draws, for a number of things that are sent, what happens: which attempt sends the next few, and which are
// settled in between. At the end all are.
type tries struct {
	send   func(a Attempt, n int)
	settle func(a Attempt, keep bool)
}

func (s tries) run(t *rapid.T, things int) {
	next := Attempt(0)
	open := []Attempt{0}
	settle := func(i int) {
		s.settle(open[i], rapid.Bool().Draw(t, "keep"))
		open = slices.Delete(open, i, i+1)
	}
	for things > 0 {
		i := rapid.IntRange(0, len(open)).Draw(t, "attempt")
		switch {
		case i == len(open) && len(open) < 5:
			next++
			open = append(open, next)
		case i > 0 && i < len(open) && rapid.IntRange(0, 3).Draw(t, "settle") == 0:
			settle(i)
		default:
			n := min(things, rapid.SampledFrom([]int{1, 5, 30, 200}).Draw(t, "many"))
			things -= n
			s.send(open[i%len(open)], n)
		}
	}
	for len(open) > 1 {
		settle(len(open) - 1)
	}
}

// TestAttemptsLikeMap compares the grouper with a map, over any order of adding, keeping and dropping: values come in the
// order in which they began to count.
func TestAttemptsLikeMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		recs := genRecords(rt)
		s := newTestStore(t, rapid.SampledFrom([]int64{0, 3 << 10, 20 << 10, 1 << 30}).Draw(rt, "budget"), tiny)
		if rapid.Bool().Draw(rt, "collide") {
			s.hash = badHash
		}
		s.tune.attemptLog = rapid.SampledFrom([]int64{0, 1 << 10, 1 << 20}).Draw(rt, "attemptLog")
		g := s.NewGrouper(rapid.SampledFrom([]int{1, 2, 16, 1000}).Draw(rt, "keyGroups"))
		var count []record
		aside := map[Attempt][]record{}
		tries{
			send: func(a Attempt, n int) {
				addAs(rt, g, a, recs[:n])
				if a == 0 {
					count = append(count, recs[:n]...)
				} else {
					aside[a] = append(aside[a], recs[:n]...)
				}
				recs = recs[n:]
			},
			settle: func(a Attempt, keep bool) {
				if len(aside[a]) > 0 {
					if _, err := g.Seal(); err == nil {
						rt.Fatalf("Seal with attempt %d open: no error", a)
					}
				}
				if err := g.Settle(a, keep); err != nil {
					rt.Fatalf("Settle: %v", err)
				}
				if keep {
					count = append(count, aside[a]...)
				}
				delete(aside, a)
			},
		}.run(rt, len(recs))
		if len(count) == 0 && s.budget.Used() != 0 {
			rt.Fatalf("all was dropped, but %d bytes are held", s.budget.Used())
		}
		gs, err := g.Seal()
		if err != nil {
			rt.Fatalf("Seal: %v", err)
		}
		if diff := cmp.Diff(reference(count), collect(rt, gs), cmp.AllowUnexported(groupID{}, valueAt{})); diff != "" {
			rt.Fatalf("groups (-want +got):\n%s", diff)
		}
		if used := s.budget.Used(); used != 0 {
			rt.Fatalf("%d bytes are held after the last group", used)
		}
		if err := g.Close(); err != nil {
			rt.Fatalf("Close: %v", err)
		}
	})
}

// TestSpoolAttemptsLikeSlice compares the spool with a slice, over any order of putting, keeping, dropping and getting.
func TestSpoolAttemptsLikeSlice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newTestStore(t, rapid.SampledFrom([]int64{0, 5 << 10, 1 << 30}).Draw(rt, "budget"), tiny)
		q := s.NewSpool()
		var want [][]byte
		aside := map[Attempt][][]byte{}
		put := 0
		get := func(n int) {
			for range min(n, len(want)) {
				got, err := q.Get(ctx)
				if err != nil {
					rt.Fatal(err)
				}
				if !bytes.Equal(got, want[0]) {
					rt.Fatalf("got a block of %d bytes that is not the first, of %d", len(got), len(want[0]))
				}
				clear(got[:cap(got)]) // it is the caller's, no other may show it
				want = want[1:]
			}
		}
		tries{
			send: func(a Attempt, n int) {
				for range n {
					put++
					b := bytes.Repeat([]byte{byte(put)}, []int{0, 1, 50, 300, 5000}[put*7%5])
					if err := q.Put(ctx, a, b); err != nil {
						rt.Fatal(err)
					}
					if a == 0 {
						want = append(want, bytes.Clone(b))
					} else {
						aside[a] = append(aside[a], bytes.Clone(b))
					}
					clear(b)
				}
				get(rapid.SampledFrom([]int{0, 0, 10, 300}).Draw(rt, "get"))
			},
			settle: func(a Attempt, keep bool) {
				if err := q.Settle(a, keep); err != nil {
					rt.Fatal(err)
				}
				if keep {
					want = append(want, aside[a]...)
				}
				delete(aside, a)
				if q.Len() != len(want) {
					rt.Fatalf("length is %d, expected %d", q.Len(), len(want))
				}
			},
		}.run(rt, rapid.IntRange(0, 600).Draw(rt, "blocks"))
		q.Seal()
		get(len(want))
		if _, err := q.Get(ctx); err != io.EOF {
			rt.Fatalf("at the end: got %v, expected io.EOF", err)
		}
		if used := s.budget.Used(); used != 0 {
			rt.Fatalf("empty, it holds %d bytes", used)
		}
		if n := filesOf(q); n != 0 {
			rt.Fatalf("empty, it has blocks in %d files", n)
		}
		if err := q.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// filesOf is 1 if the spool has a file that blocks are in.
func filesOf(q *Spool) int {
	q.files.mu.Lock()
	defer q.files.mu.Unlock()
	if q.files.current != nil && q.files.current.refs > 0 {
		return 1
	}
	return 0
}

// TestSmallAttemptsArePacked: thousands of attempts with a record for each partition take little more than the records.
func TestSmallAttemptsArePacked(t *testing.T) {
	s := newTestStore(t, 1<<30, defaultTuning)
	const groups, attempts, size = 128, 2000, 60
	g := s.NewGrouper(groups)
	keys := keysOfGroups(groups)
	value := make([]byte, size)
	for a := range attempts {
		for kg, key := range keys {
			if err := g.Add(Attempt(a+1), kg, appendEntry(nil, key, nil, int64(a), value)); err != nil {
				t.Fatal(err)
			}
		}
		if a%3 == 0 {
			if err := g.Settle(Attempt(a+1), false); err != nil {
				t.Fatal(err)
			}
		} else if err := g.Settle(Attempt(a+1), true); err != nil {
			t.Fatal(err)
		}
	}
	records := int64(groups * (attempts - attempts/3 - 1))
	// A chunk per partition may be half empty, and the sort's index is charged.
	if used, want := s.budget.Used(), records*(size+20)+groups*(64<<10)+1<<20; used > want {
		t.Errorf("%d records of %d bytes hold %d, expected at most %d", records, size, used, want)
	}
	if len(g.settled) > 1 {
		t.Errorf("one attempt is open at a time, but it holds on to %d", len(g.settled))
	}
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for id, got := range collect(t, gs) {
		n += int64(len(got))
		if !slices.IsSortedFunc(got, func(a, b valueAt) int { return int(a.at - b.at) }) {
			t.Fatalf("group %q is out of order", id)
		}
	}
	if n != records {
		t.Errorf("got %d values of %d", n, records)
	}
}

// keysOfGroups returns a key of each key group.
func keysOfGroups(groups int) [][]byte {
	keys := make([][]byte, groups)
	for i, left := 0, groups; left > 0; i++ {
		key := fmt.Append(nil, "key", i)
		if kg := KeyGroup(key, groups); keys[kg] == nil {
			keys[kg], left = key, left-1
		}
	}
	return keys
}

// TestLargeAttemptIsNotCopied: the chunks of one that fills them count as they are.
func TestLargeAttemptIsNotCopied(t *testing.T) {
	s := newTestStore(t, 1<<30, defaultTuning)
	g := s.NewGrouper(1)
	value := make([]byte, 1000)
	add := func(a Attempt, n int) {
		for range n {
			if err := g.Add(a, 0, appendEntry(nil, []byte("key"), nil, 0, value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(0, 2000)
	add(1, 2000)
	var chunks []*byte
	for _, c := range g.open[0].parts[0].chunks {
		chunks = append(chunks, &c[0])
	}
	if err := g.Settle(1, true); err != nil {
		t.Fatal(err)
	}
	got := g.parts[0].chunks
	for i, c := range got[len(got)-len(chunks):] {
		if &c[0] != chunks[i] {
			t.Errorf("chunk %d of %d is a copy", i, len(chunks))
		}
	}
}

// TestAttemptsStayWithinMemory checks the promise of Budget with large attempts, several at a time, of which some are
// dropped, and that disk space comes back.
func TestAttemptsStayWithinMemory(t *testing.T) {
	const limit, senders, attempts, records = 12 << 20, 4, 12, 8000
	s := newTestStore(t, limit, defaultTuning)
	g, q := s.NewGrouper(128), s.NewSpool()
	var wg sync.WaitGroup
	for sender := range senders {
		wg.Go(func() {
			value := bytes.Repeat([]byte{byte(sender)}, 300)
			for i := range attempts {
				a := Attempt(1 + sender + i*senders)
				for r := range records {
					key := fmt.Append(nil, "key", r%1000)
					entry := appendEntry(nil, key, nil, int64(i*records+r), value)
					if err := errors.Join(g.Add(a, KeyGroup(key, 128), entry), q.Put(ctx, a, entry)); err != nil {
						t.Error(err)
						return
					}
				}
				if err := errors.Join(g.Settle(a, i%2 == 0), q.Settle(a, i%2 == 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	q.Seal()
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for id, got := range collect(t, gs) {
		last := map[byte]int64{}
		for _, v := range got {
			sender := v.value[len(v.value)-1]
			if at, ok := last[sender]; ok && at >= v.at {
				t.Fatalf("group %q: sender %d's value %d comes after %d", id, sender, v.at, at)
			}
			last[sender] = v.at
			if v.at/records%2 != 0 {
				t.Fatalf("group %q: value %d is of an attempt that was dropped", id, v.at)
			}
			n++
		}
	}
	if want := senders * attempts / 2 * records; n != want || q.Len() != want {
		t.Errorf("got %d values, %d blocks, expected %d", n, q.Len(), want)
	}
	// A grouper, a spool, and of the spool's queues each the block for the disk.
	const slack = 2*(2<<20+256<<10) + 4<<20 + senders*(128<<10)
	if peak := s.budget.peak.Load(); peak > limit+slack {
		t.Errorf("the peak was %d bytes: expected at most %d and %d", peak, limit, slack)
	}
}

// TestSettleRefuses: an attempt that is open when the adding ends is named; what cannot be taken back says so; what is
// not there is fine.
func TestSettleRefuses(t *testing.T) {
	s := newTestStore(t, 1<<20, tiny)
	g, q := s.NewGrouper(1), s.NewSpool()
	block := appendEntry(nil, []byte("key"), nil, 0, []byte("value"))
	if err := errors.Join(g.Add(7, 0, block), q.Put(ctx, 7, block)); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"grouper": g.Settle(0, false), "spool": q.Settle(0, false)} {
		if err == nil || !strings.Contains(err.Error(), "never taken back") || !strings.Contains(err.Error(), name) {
			t.Errorf("drop attempt 0 of a %s: %v", name, err)
		}
	}
	if err := errors.Join(g.Settle(0, true), q.Settle(0, true), g.Settle(3, true), g.Settle(3, false), q.Settle(3, true)); err != nil {
		t.Errorf("settle what is not there: %v", err)
	}
	if _, err := g.Seal(); err == nil || !strings.Contains(err.Error(), "attempt 7 is not settled") {
		t.Errorf("seal a grouper with attempt 7 open: %v", err)
	}
	if err := g.Settle(7, true); err != nil {
		t.Errorf("settle after a Seal that failed: %v", err)
	}
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	if got := collect(t, gs); len(got) != 1 {
		t.Errorf("got %v, expected the one entry", got)
	}
	if err := g.Add(8, 0, block); !errors.Is(err, ErrSealed) {
		t.Errorf("add after Seal: %v", err)
	}
	if err := g.Settle(8, true); err != nil {
		t.Errorf("settle what is not there after Seal: %v", err)
	}
	q.Seal()
	if _, err := q.Get(ctx); err == nil || !strings.Contains(err.Error(), "attempt 7 is not settled") {
		t.Errorf("get from a spool that was sealed with attempt 7 open: %v", err)
	}
	if err := errors.Join(g.Close(), q.Close()); err != nil {
		t.Fatal(err)
	}
	if err := g.Settle(7, true); !errors.Is(err, ErrClosed) {
		t.Errorf("settle in a closed grouper: %v", err)
	}
	if err := q.Settle(7, true); !errors.Is(err, ErrClosed) {
		t.Errorf("settle in a closed spool: %v", err)
	}
}

// TestSpoolWaitsForSettle: who waits in Get sees nothing of an attempt before it is kept, and then is woken.
func TestSpoolWaitsForSettle(t *testing.T) {
	s := newTestStore(t, 1<<20, tiny)
	synctest.Test(t, func(t *testing.T) {
		q := s.NewSpool()
		got := make(chan string, 1)
		go func() {
			b, err := q.Get(t.Context())
			got <- fmt.Sprint(string(b), err)
		}()
		for a, block := range map[Attempt]string{1: "dropped", 2: "kept"} {
			if err := q.Put(t.Context(), a, []byte(block)); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Settle(1, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case b := <-got:
			t.Fatalf("nothing was kept yet, but Get returned %s", b)
		default:
		}
		if err := q.Settle(2, true); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if b := <-got; b != "kept<nil>" {
			t.Errorf("got %s", b)
		}
	})
}
