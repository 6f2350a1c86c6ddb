package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// TestPanesKeepAllValues: whatever the trigger and the order of blocks and watermarks, all values that are not late go out
// once, with their key and window, whether sessions merge or values wait together, and whether they are few enough to lie with their
// window's state or not; the last of accumulating panes has all of a window. Nothing is kept in the end.
func TestPanesKeepAllValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sessions := rapid.Bool().Draw(t, "sessions")
		kind := map[bool]string{false: "fixed", true: "sessions"}[sessions]
		trigger := rapid.SampledFrom([]string{"Default", "Always", "Repeat(ElementCount(3))", "AfterEndOfWindow(early=ElementCount(2))"}).Draw(t, "trigger")
		accumulating := !sessions && rapid.Bool().Draw(t, "accumulating")
		mode := map[bool]string{true: " mode=accumulating"}[accumulating]
		in, out, done := openPanes(t, "fn="+kind+" trigger="+trigger+mode, drawWhole(t))
		defer done()

		want := map[string][]string{}
		open := map[string][]window.Interval{} // of sessions, by key, those of elements
		serial, watermark := 0, int64(0)
		for step := range rapid.IntRange(1, 8).Draw(t, "steps") {
			if in.opened() && rapid.IntRange(0, 3).Draw(t, "snapshot") == 0 {
				if err := errors.Join(
					in.snapshot(filepath.Join(in.spec.State.Directory, fmt.Sprint("snapshot", step))), checkKeys(in.over)); err != nil {
					t.Fatal(err)
				}
			}
			if !sessions && rapid.Bool().Draw(t, "watermark") {
				watermark += rapid.Int64Range(0, 15).Draw(t, "by")
				if err := in.advance(t.Context(), times{input: watermark}); err != nil {
					t.Fatal(err)
				}
				*in.output = watermark
				continue
			}
			var records [][]byte
			for range rapid.IntRange(1, 12).Draw(t, "values") {
				key := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "key")
				at := rapid.Int64Range(0, 59).Draw(t, "timestamp")
				value := fmt.Sprint(serial) + strings.Repeat(".", rapid.SampledFrom([]int{0, 0, tailBytes / 3, packBytes / 2}).Draw(t, "more"))
				serial++
				w := window.Interval{Start: at - at%10, End: at - at%10 + 10}
				if sessions {
					w = window.Interval{Start: at, End: at + 10}
					open[key] = append(open[key], w)
				}
				if sessions || w.End > watermark {
					id := fmt.Sprintf("%s %d", key, w)
					want[id] = append(want[id], value)
				}
				record := coder.AppendHeader(nil, at, window.AppendInterval(nil, w), coder.NoFiring)
				records = append(records, appendPart(appendPart(record, []byte(key)), []byte(value)))
			}
			deliver(t, in, records)
		}
		for _, until := range []int64{1000, coder.MaxTimestamp} {
			if err := in.advance(t.Context(), times{input: until}); err != nil {
				t.Fatal(err)
			}
		}
		got, whole := out.groups(t, accumulating), map[string][]string{}
		if sessions {
			// The windows in which values went out depend on the trigger, but for the default one.
			for key, windows := range open {
				merged, into := window.Merge(windows)
				for i, w := range windows {
					id := fmt.Sprintf("%s %d", key, w)
					whole[fmt.Sprintf("%s %d", key, merged[into[i]])] = append(whole[fmt.Sprintf("%s %d", key, merged[into[i]])], want[id]...)
					delete(want, id)
				}
			}
			want = whole
			if trigger != "Default" {
				want, got = byKey(want), byKey(got)
			}
		}
		if d := cmp.Diff(sortedValues(want), sortedValues(got)); d != "" {
			t.Fatalf("values, those that are wrong with +:\n%s", d)
		}
		if in.opened() {
			if err := checkKeys(in.over); err != nil {
				t.Fatal(err)
			}
			if err := in.over.Scan(nil, []byte{0xff}, func(key, _ []byte) (bool, error) {
				if key[placeBytes-1] == byte(kindMark) {
					return true, nil // of a snapshot
				}
				return false, fmt.Errorf("%x is kept", key)
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestPanesOfValuesBeforeTheirWindow: an early pane that is larger than a message goes out while its window's state is not in the
// store yet; the values are there for the next one.
func TestPanesOfValuesBeforeTheirWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, out, done := openPanes(t, "fn=fixed mode=accumulating trigger=AfterEndOfWindow(early=ElementCount(3))", drawWhole(t))
		defer done()
		var records [][]byte
		var want []string
		for i := range rapid.IntRange(4, 5).Draw(t, "values") {
			value := fmt.Sprint(i, strings.Repeat(".", rapid.SampledFrom([]int{0, tailBytes, sendBytes / 8 * 5}).Draw(t, "more")))
			record := coder.AppendHeader(nil, 1, window.AppendInterval(nil, window.Interval{End: 10}), coder.NoFiring)
			records = append(records, appendPart(appendPart(record, []byte("a")), []byte(value)))
			want = append(want, value)
		}
		deliver(t, in, records)
		if err := in.advance(t.Context(), times{input: 1000}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[string][]string{"a {0 10}": want}, out.groups(t, true)); d != "" {
			t.Fatalf("values of the last pane, those that are wrong with +:\n%.1000s", d)
		}
	})
}

// drawWhole draws how long keys may be to stand in front of entries.
func drawWhole(t *rapid.T) int { return rapid.SampledFrom([]int{0, -1}).Draw(t, "whole") }

// openPanes opens the intake of a task for windows as plantest has them, and for keys that are long from whole bytes on.
func openPanes(t interface {
	Helper()
	Fatal(...any)
}, windows string, whole int) (in *panes, out *collecting, done func()) {
	t.Helper()
	pipeline, err := plantest.Parse(`
env other
window w ` + windows + `
impulse start() > I
pardo source(I) > in:kv(bytes,bytes)@w~ env=other
gbk group(in) > grouped
pardo work(grouped) > out
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Build(pipeline, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "panes")
	if err != nil {
		t.Fatal(err)
	}
	cache := kv.NewCache(128 << 10)
	out = &collecting{}
	in, err = newPanes(Spec{
		Plan: p, Stage: p.Stages[1], Parallelism: 1, KeyGroups: 4, BundleBytes: DefaultBundleBytes, Log: slog.New(slog.DiscardHandler),
		State: State{Directory: dir, Cache: cache, WholeKeys: whole},
	}, out)
	if err != nil {
		t.Fatal(err)
	}
	told := coder.MinTimestamp
	in.output = &told
	return in, out, func() {
		if err := in.close(); err != nil {
			t.Fatal(err)
		}
		cache.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// deliver gives records to the intake as blocks.
func deliver(t *rapid.T, in *panes, records [][]byte) {
	type block struct {
		group int
		bytes []byte
	}
	var blocks []block
	partitioner, err := shuffle.NewPartitioner(benchRecords(t), in.spec.KeyGroups, func(group int, b []byte) error {
		blocks = append(blocks, block{group, bytes.Clone(b)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if err := partitioner.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := partitioner.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if err := in.process(t.Context(), Delivery{KeyGroup: b.group}, b.bytes); err != nil {
			t.Fatal(err)
		}
	}
}

// collecting is a sink that keeps the groups that it gets.
type collecting struct {
	sink
	records []byte
}

func (c *collecting) process(_ context.Context, records []byte) error {
	c.records = append(c.records, records...)
	return nil
}

// groups are the values of all panes, or of the last ones, by key and window.
func (c *collecting) groups(t *rapid.T, last bool) map[string][]string {
	groups := map[string][]string{}
	for b := c.records; len(b) > 0; {
		b = b[coder.TimestampSize+4:]
		w, n, err := window.DecodeInterval(b)
		if err != nil {
			t.Fatal(err)
		}
		_, pane, err := coder.Pane(b[n:])
		if err != nil {
			t.Fatal(err)
		}
		key, rest, ok := cutPart(b[n+pane:])
		if !ok || len(rest) < 4 {
			t.Fatalf("no key in %x", b)
		}
		count := binary.BigEndian.Uint32(rest)
		b = rest[4:]
		id := fmt.Sprintf("%s %d", key, w)
		if last {
			delete(groups, id)
		}
		for range count {
			var value []byte
			if value, b, ok = cutPart(b); !ok {
				t.Fatalf("no value in %x", b)
			}
			groups[id] = append(groups[id], string(value))
		}
	}
	return groups
}

func byKey(groups map[string][]string) map[string][]string {
	keys := map[string][]string{}
	for id, values := range groups {
		key, _, _ := bytes.Cut([]byte(id), []byte(" "))
		keys[string(key)] = append(keys[string(key)], values...)
	}
	return keys
}

func sortedValues(groups map[string][]string) map[string][]string {
	for _, values := range groups {
		slices.Sort(values)
	}
	return groups
}
