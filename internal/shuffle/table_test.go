package shuffle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestTableLikeMap compares lookups, and the lists of keys, with a map.
func TestTableLikeMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		recs := genRecords(rt)
		s := newTestStore(t, rapid.SampledFrom([]int64{0, 20 << 10, 1 << 30}).Draw(rt, "budget"), tiny)
		if rapid.Bool().Draw(rt, "collide") {
			s.hash = badHash
		}
		g := s.NewGrouper(rapid.SampledFrom([]int{1, 16, 1000}).Draw(rt, "keyGroups"))
		add(rt, g, recs)
		gs, err := g.Seal()
		if err != nil {
			rt.Fatal(err)
		}
		table, err := s.BuildTable(gs)
		if err != nil {
			rt.Fatal(err)
		}
		if err := g.Close(); err != nil {
			rt.Fatal(err)
		}
		maxBytes := rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(rt, "maxBytes")
		want := reference(recs)
		keys := map[string][]string{}
		for id, values := range want {
			keys[id.window] = append(keys[id.window], id.key)
			var w strings.Builder
			largest := 0
			for _, v := range values {
				w.WriteString(v.value)
				largest = max(largest, len(v.value))
			}
			lookup := func(page int64, maxBytes int) ([]byte, int64, error) {
				return table.Lookup([]byte(id.key), []byte(id.window), page, maxBytes)
			}
			if got, _ := readAll(rt, lookup, 0, maxBytes, largest); string(got) != w.String() {
				rt.Fatalf("group %q: got %d bytes that are not the %d expected", id, len(got), w.Len())
			}
		}
		for _, id := range []groupID{{"absent", "w"}, {"", ""}, {strings.Repeat("9", 9), "www"}} {
			if _, there := want[id]; there {
				continue
			}
			if data, next, err := table.Lookup([]byte(id.key), []byte(id.window), 0, 10); len(data) != 0 || next != -1 || err != nil {
				rt.Fatalf("absent %q: got %q, %d, %v", id, data, next, err)
			}
		}
		for _, window := range []string{"w", "ww", "www", "wwww", "wwwww", "absent"} {
			list := func(page int64, maxBytes int) ([]byte, int64, error) {
				return table.Keys([]byte(window), page, maxBytes)
			}
			got, _ := readAll(rt, list, 0, maxBytes, 1000)
			var have []string
			for o := 0; o < len(got); {
				end := skipPrefixed(got, o)
				if end < 0 {
					rt.Fatalf("window %q: malformed keys at byte %d of %d", window, o, len(got))
				}
				have = append(have, string(got[o:end]))
				o = end
			}
			slices.Sort(have)
			slices.Sort(keys[window])
			if !slices.Equal(have, keys[window]) {
				rt.Fatalf("window %q: got %d keys that are not the %d expected", window, len(have), len(keys[window]))
			}
		}
		if err := table.Close(); err != nil {
			rt.Fatal(err)
		}
		if used := s.budget.Used(); used != 0 {
			rt.Fatalf("closed, it holds %d bytes", used)
		}
	})
}

// TestTableBadPage: a page is good for the key it was returned for, and no other.
func TestTableBadPage(t *testing.T) {
	s := newTestStore(t, 0, tiny)
	g := s.NewGrouper(1)
	var recs []record
	for i := range 500 {
		recs = append(recs, record{fmt.Sprint("key", i%2), "w", fmt.Sprint("value", i), 0})
	}
	add(t, g, recs)
	gs, err := g.Seal()
	if err != nil {
		t.Fatal(err)
	}
	table, err := s.BuildTable(gs)
	if err != nil {
		t.Fatal(err)
	}
	_, page, err := table.Lookup([]byte("key0"), []byte("w"), 0, 100)
	if err != nil || page <= 0 {
		t.Fatal(page, err)
	}
	for _, c := range []struct {
		key  string
		page int64
	}{{"key1", page}, {"absent", page}, {"key0", page + 1}, {"key0", -5}, {"key0", 1 << 60}, {"key0", 3}} {
		if _, _, err := table.Lookup([]byte(c.key), []byte("w"), c.page, 100); err == nil {
			t.Errorf("%s from page %d: no error", c.key, c.page)
		}
	}
	for _, bad := range []int64{-5, 3, pageAt(0, 1), 1 << 60} {
		if _, _, err := table.Keys([]byte("w"), bad, 100); err == nil {
			t.Errorf("keys from page %d: no error", bad)
		}
	}
}
