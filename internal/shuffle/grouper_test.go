package shuffle

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// tiny makes everything happen with few records: many chunks, blocks, runs and merges.
var tiny = tuning{
	floor: 2 << 10, block: 256, tableBlock: 128, chunk: 512, firstChunk: 64, attemptLog: 1 << 10, partitions: 4, runBytes: 4 << 10,
	runRecords: 200, worthRun: 512, merge: 1 << 10, segment: 2 << 10,
}

func newTestStore(t testing.TB, budget int64, tune tuning) *Store {
	s := NewStore(t.TempDir(), NewBudget(budget))
	s.tune = tune
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
		if used := s.budget.Used(); used != 0 {
			t.Errorf("the closed store still holds %d bytes", used)
		}
	})
	return s
}

// badHash has collisions of every kind: in the whole hash, in its upper half (the key group), in its lower half.
func badHash(key []byte) uint64 {
	h := uint64(len(key)) * 0x9e3779b97f4a7c15
	for _, c := range key {
		h = h*31 + uint64(c%3)
	}
	switch h % 4 {
	case 0:
		return h % 5
	case 1:
		return h % 5 << 32
	case 2:
		return ^uint64(0)
	}
	return h * 0x9e3779b97f4a7c15
}

type groupID struct{ key, window string }

type valueAt struct {
	value string
	at    int64
}

// record is one entry, as tests make them.
type record struct {
	key, window, value string
	at                 int64
}

func genRecords(t *rapid.T) []record {
	keys := rapid.SampledFrom([]int{1, 3, 40, 1000}).Draw(t, "keys")
	windows := rapid.IntRange(1, 5).Draw(t, "windows")
	lens := rapid.SampledFrom([][]int{{0}, {0, 1, 20}, {100}, {0, 10, 200, 700, 3000}}).Draw(t, "valueLengths")
	keyLen := rapid.SampledFrom([]int{2, 8, 130, 600}).Draw(t, "keyLength")
	n := rapid.IntRange(0, 800).Draw(t, "records")
	seed := rapid.Uint64().Draw(t, "seed")
	next := func(n int) int {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		seed += 0x9e3779b97f4a7c15
		return int(seed >> 33 % uint64(n))
	}
	recs := make([]record, n)
	for i := range recs {
		key := nested(fmt.Sprintf("%0*d", next(keyLen)+1, next(keys)))
		window := "wwwwww"[:next(windows)]
		value := make([]byte, lens[next(len(lens))])
		for j := range value {
			value[j] = byte(i * j)
		}
		if len(value) > 8 {
			binary.BigEndian.PutUint32(value, uint32(i))
		}
		recs[i] = record{key, window, string(value), int64(i) - 400}
	}
	return recs
}

func add(t fataler, g *Grouper, recs []record) { addAs(t, g, 0, recs) }

func addAs(t fataler, g *Grouper, a Attempt, recs []record) {
	blocks := map[int][]byte{}
	for i, r := range recs {
		kg := keyGroup(g.store.hash([]byte(r.key)), g.keyGroups)
		blocks[kg] = appendEntry(blocks[kg], []byte(r.key), []byte(r.window), r.at, []byte(r.value))
		if i%7 == 0 || i == len(recs)-1 {
			for kg, b := range blocks {
				if err := g.Add(a, kg, b); err != nil {
					t.Fatalf("Add: %v", err)
				}
				clear(b) // it is the caller's again
				delete(blocks, kg)
			}
		}
	}
}

type fataler interface{ Fatalf(string, ...any) }

func reference(recs []record) map[groupID][]valueAt {
	want := map[groupID][]valueAt{}
	for _, r := range recs {
		id := groupID{r.key, r.window}
		want[id] = append(want[id], valueAt{r.value, r.at})
	}
	return want
}

// collect reads all groups and checks their order.
func collect(t fataler, gs *Groups) map[groupID][]valueAt {
	got := map[groupID][]valueAt{}
	done := map[string]bool{}
	last := groupID{}
	for first := true; ; first = false {
		ok, err := gs.Next()
		if err != nil {
			t.Fatalf("Next: %v", err)
		}
		if !ok {
			return got
		}
		id := groupID{string(gs.Key()), string(gs.Window())}
		if !first && id.key != last.key {
			done[last.key] = true
		}
		if _, again := got[id]; again || done[id.key] {
			t.Fatalf("group %q comes again", id)
		}
		if !first && id.key == last.key && id.window <= last.window {
			t.Fatalf("window %q comes after %q", id.window, last.window)
		}
		last = id
		got[id] = nil
		for {
			v, at, ok, err := gs.NextValue()
			if err != nil {
				t.Fatalf("NextValue: %v", err)
			}
			if !ok {
				break
			}
			got[id] = append(got[id], valueAt{string(v), at})
		}
	}
}

// TestGroupLikeMap compares the grouper with a map, from budgets that hold everything to one that holds nothing.
func TestGroupLikeMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		recs := genRecords(rt)
		s := newTestStore(t, rapid.SampledFrom([]int64{0, 3 << 10, 20 << 10, 1 << 30}).Draw(rt, "budget"), tiny)
		if rapid.Bool().Draw(rt, "collide") {
			s.hash = badHash
		}
		g := s.NewGrouper(rapid.SampledFrom([]int{1, 2, 16, 1000}).Draw(rt, "keyGroups"))
		add(rt, g, recs)
		gs, err := g.Seal()
		if err != nil {
			rt.Fatalf("Seal: %v", err)
		}
		got := collect(rt, gs)
		if diff := cmp.Diff(reference(recs), got, cmp.AllowUnexported(groupID{}, valueAt{})); diff != "" {
			rt.Fatalf("groups (-want +got):\n%s", diff)
		}
		if ok, err := gs.Next(); ok || err != nil {
			rt.Fatalf("Next after the end: %v, %v", ok, err)
		}
		if used := s.budget.Used(); used != 0 {
			rt.Fatalf("%d bytes are held after the last group", used)
		}
		if err := g.Close(); err != nil {
			rt.Fatalf("Close: %v", err)
		}
	})
}

// TestConcurrentAdd: nothing is lost when several goroutines add, and the values of each keep their order.
func TestConcurrentAdd(t *testing.T) {
	const adders, values = 4, 3000
	s := newTestStore(t, 8<<10, tiny)
	g := s.NewGrouper(16)
	var wg sync.WaitGroup
	for a := range adders {
		wg.Go(func() {
			for i := range values {
				key := fmt.Append(nil, "key", i%5)
				block := appendEntry(nil, key, nil, int64(i), []byte{byte(a)})
				if err := g.Add(0, KeyGroup(key, 16), block); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for id, got := range collect(t, gs) {
		last := map[string]int64{}
		for _, v := range got {
			if before, ok := last[v.value]; ok && before >= v.at {
				t.Fatalf("group %q: adder %q's value %d comes after %d", id, v.value, v.at, before)
			}
			last[v.value] = v.at
		}
		total += len(got)
	}
	if total != adders*values {
		t.Errorf("got %d values of %d", total, adders*values)
	}
}
