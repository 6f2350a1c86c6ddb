package metric

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"
)

// TestOrderDoesNotMatter: bundles end in any order, and sets are merged by way of other sets; the outcome is the
// same. (Sums of doubles and gauges of one time are left out: theirs does depend on it.)
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		infos := rapid.SliceOfN(rapid.Custom(drawInfo), 0, 20).Draw(t, "infos")
		var whole Set
		if err := whole.Add(infos); err != nil {
			t.Fatal(err)
		}
		shuffled := rapid.Permutation(infos).Draw(t, "order")
		cut := rapid.IntRange(0, len(shuffled)).Draw(t, "cut")
		var one, other, both Set
		for s, part := range map[*Set][]*pipepb.MonitoringInfo{&one: shuffled[:cut], &other: shuffled[cut:]} {
			if err := s.Add(part); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range []*Set{&one, &other} {
			if err := both.Add(s.Snapshot()); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(whole.Snapshot(), both.Snapshot(), protocmp.Transform()); d != "" {
			t.Fatalf("by way of two sets, in another order (-whole +both):\n%s", d)
		}
	})
}

func drawInfo(t *rapid.T) *pipepb.MonitoringInfo {
	typ := rapid.SampledFrom([]string{"sum_int64", "distribution_int64", "latest_int64", "top_n_int64", "bottom_n_int64",
		"set_string", "bounded_trie"}).Draw(t, "type")
	m := &pipepb.MonitoringInfo{
		Urn: "x", Type: "beam:metrics:" + typ + ":v1",
		Labels: map[string]string{"NAME": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")},
	}
	small := rapid.Int64Range(-5, 5)
	switch typ {
	case "sum_int64":
		m.Payload = appendVarint(nil, rapid.Int64().Draw(t, "value"))
	case "distribution_int64":
		var d distribution[int64]
		for range rapid.IntRange(1, 3).Draw(t, "count") {
			v := small.Draw(t, "value")
			if d.count == 0 {
				d.min, d.max = v, v
			}
			d.count, d.sum, d.min, d.max = d.count+1, d.sum+v, min(d.min, v), max(d.max, v)
		}
		d.number = int64s
		m.Payload = d.payload()
	case "latest_int64":
		at := small.Draw(t, "time")
		m.Payload = appendVarint(appendVarint(nil, at), at) // of one time, one value
	case "set_string":
		s := stringSet{values: map[string]struct{}{}}
		for range rapid.IntRange(0, 3).Draw(t, "count") {
			s.values[rapid.StringN(0, 2, -1).Draw(t, "string")] = struct{}{}
		}
		m.Payload = s.payload()
	case "bounded_trie":
		path := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 1, 4).Draw(t, "path")
		b, err := proto.Marshal(&pipepb.BoundedTrie{Bound: 100, Singleton: path})
		if err != nil {
			t.Fatal(err)
		}
		m.Payload = b
	default:
		values := rapid.SliceOfN(small, 0, 4).Draw(t, "values")
		m.Payload = newIterable(len(values))
		for _, v := range values {
			m.Payload = appendVarint(m.Payload, v)
		}
	}
	return m
}

// TestBounded: what users can make grow without end does not.
func TestBounded(t *testing.T) {
	numbers, texts := new(extremes[int64]), new(stringSet)
	numbers.number = int64s
	long := strings.Repeat("x", 10_000)
	for i := range int64(3) {
		n, s := newIterable(900), newIterable(60)
		for j := range int64(900) {
			n = appendVarint(n, i*900+j)
		}
		for j := range 60 {
			v := fmt.Sprintf("%d-%d-%s", i, j, long)
			s = append(appendVarint(s, int64(len(v))), v...)
		}
		if err := numbers.merge(n); err != nil {
			t.Fatal(err)
		}
		if err := texts.merge(s); err != nil {
			t.Fatal(err)
		}
	}
	if len(numbers.values) != maxExtremes || numbers.values[maxExtremes-1] != maxExtremes-1 {
		t.Errorf("%d smallest numbers were kept", len(numbers.values))
	}
	if texts.size > maxStringSet || texts.size < maxStringSet-20_000 || len(texts.payload()) < texts.size {
		t.Errorf("%d bytes of strings were kept", texts.size)
	}
	var trie boundedTrie
	if err := trie.merge(singleton(t, maxPath)); err != nil {
		t.Error(err)
	}
	var again boundedTrie
	if err := again.merge(trie.payload()); err != nil {
		t.Errorf("the longest path cannot be read again: %v", err)
	}
	if err := trie.merge(singleton(t, maxPath+1)); err == nil {
		t.Error("a path that is too long was accepted")
	}
}

func singleton(t *testing.T, n int) []byte {
	b, err := proto.Marshal(&pipepb.BoundedTrie{Singleton: slices.Repeat([]string{"x"}, n)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzMerge: no payload makes merging fail in another way than with an error; an error changes nothing; what comes
// out can be merged again and gives the same.
func FuzzMerge(f *testing.F) {
	types := slices.Sorted(maps.Keys(cells))
	for i := range types {
		for _, seed := range []string{"\x05", "\x03\x3c\x01\x28", "\x00\x00\x00\x02\x01a\x02bc", "\xff\xff\xff\xff\x01\x01a\x00",
			"\x08\x64\x1a\x01a\x1a\x01b", "\x08\x03\x12\x0e\x0a\x01a\x12\x09\x12\x07\x0a\x01b\x12\x02\x08\x01"} {
			f.Add(uint8(i), []byte(seed), []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, a, b []byte) {
		typ := types[int(which)%len(types)]
		c := cells[typ]()
		if c.merge(a) != nil {
			return
		}
		before := c.payload()
		if c.merge(b) != nil {
			if after := c.payload(); !bytes.Equal(before, after) {
				t.Fatalf("%s: %x became %x with an error", typ, before, after)
			}
		}
		out := c.payload()
		again := cells[typ]()
		if err := again.merge(out); err != nil {
			t.Fatalf("%s: %x cannot be merged again: %v", typ, out, err)
		}
		if p := again.payload(); !bytes.Equal(p, out) {
			t.Fatalf("%s: %x came back as %x", typ, out, p)
		}
	})
}
