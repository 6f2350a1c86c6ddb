package window

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestIntervalSurvivesEncoding: what is encoded is decoded, and no part of it is a window.
func TestIntervalSurvivesEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64().Draw(t, "start")
		w := Interval{Start: start, End: start + rapid.Int64Range(0, math.MaxInt64-max(start, 0)).Draw(t, "span")}
		b := AppendInterval(nil, w)
		got, n, err := DecodeInterval(append(b[:len(b):len(b)], 1))
		if err != nil || got != w || n != len(b) {
			t.Fatalf("%v came back as %v, %d bytes of %d, %v", w, got, n, len(b), err)
		}
		for i := range b {
			if _, _, err := DecodeInterval(b[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%d bytes of %d: %v", i, len(b), err)
			}
		}
	})
}

// TestMergeIsAPartition: merged windows lie apart, each is spanned by the windows that went to it, and the order of
// the input changes nothing.
func TestMergeIsAPartition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Interval {
			start := rapid.Int64Range(0, 100).Draw(t, "start")
			return Interval{start, start + rapid.Int64Range(1, 20).Draw(t, "span")}
		}), 0, 30).Draw(t, "windows")
		before := slices.Clone(in)
		merged, into := Merge(in)
		if d := cmp.Diff(before, in); d != "" {
			t.Fatalf("the input changed:\n%s", d)
		}
		for i := 1; i < len(merged); i++ {
			if merged[i].Start < merged[i-1].End {
				t.Fatalf("%v and %v overlap", merged[i-1], merged[i])
			}
		}
		spans := make([]Interval, len(merged))
		for i, w := range in {
			s := &spans[into[i]]
			if *s == (Interval{}) {
				*s = w
			}
			s.Start, s.End = min(s.Start, w.Start), max(s.End, w.End)
		}
		if d := cmp.Diff(spans, merged); d != "" && len(in) > 0 {
			t.Fatalf("merged windows are not what their parts span:\n%s", d)
		}
		// Each window but the first of its session overlaps what came before it in the session.
		for i, w := range in {
			alone := merged[into[i]] == w
			for j, v := range in {
				if i != j && into[i] == into[j] && (w == v || w.Start < v.End && v.Start < w.End) {
					alone = true
				}
			}
			if !alone {
				t.Fatalf("%v overlaps nothing in %v", w, merged[into[i]])
			}
		}
		shuffled := rapid.Permutation(in).Draw(t, "order")
		again, _ := Merge(shuffled)
		if d := cmp.Diff(merged, again); d != "" {
			t.Fatalf("in another order:\n%s", d)
		}
	})
}

// FuzzDecodeInterval: no bytes make decoding fail in another way than with an error, and a window is no longer than
// time.
func FuzzDecodeInterval(f *testing.F) {
	f.Add(AppendInterval(nil, Interval{0, 10000}))
	f.Add(AppendInterval(nil, Interval{-9223372036854775, 9223372036854775}))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, n, err := DecodeInterval(b)
		if err != nil {
			return
		}
		if w.End < w.Start || n > len(b) {
			t.Fatalf("DecodeInterval(%x) = %v, %d", b, w, n)
		}
		got, _, err := DecodeInterval(AppendInterval(nil, w))
		if err != nil || got != w {
			t.Fatalf("%v came back as %v, %v (from %x)", w, got, err, bytes.Clone(b[:n]))
		}
	})
}
