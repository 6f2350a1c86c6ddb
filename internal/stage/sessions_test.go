package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/beam/window"
	"trestle/internal/shuffle"
)

// sessionRecords is the windowed coder of KV<bytes, bytes> in intervals.
func sessionRecords(t *rapid.T) *coder.Windowed {
	spec := func(u string, components ...string) *pipepb.Coder {
		return &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: u}, ComponentCoderIds: components}
	}
	w, err := coder.CompileWindowed(map[string]*pipepb.Coder{
		"bytes":  spec(urn.CoderBytes),
		"kv":     spec(urn.CoderKV, "bytes", "bytes"),
		"window": spec(urn.CoderIntervalWindow),
		"record": spec(urn.CoderWindowedValue, "kv", "window"),
	}, "record")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// stamped is a value of a session as tests compare it.
type stamped struct {
	Value     string
	Timestamp int64
}

// keyed is a window of a key.
type keyedWindow struct {
	Key    string
	Window window.Interval
}

// TestSessionsAreMergedWindows: whatever the windows, the groups are those that merging all windows of a key at once would
// give, each once, with the values and timestamps of their parts, in however little memory.
func TestSessionsAreMergedWindows(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		store := shuffle.NewStore(dir, shuffle.NewBudget(rapid.SampledFrom([]int64{0, 1 << 30}).Draw(t, "budget")))
		defer func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}()
		const keyGroups = 4
		m := &sessionMerging{values: backlog{store: store}}
		grouper := store.NewGrouper(keyGroups)
		partitioner, err := shuffle.NewPartitioner(sessionRecords(t), keyGroups, func(keyGroup int, block []byte) error {
			if err := grouper.Add(0, keyGroup, block); err != nil {
				return err
			}
			return m.see(block)
		})
		if err != nil {
			t.Fatal(err)
		}

		// Windows as a session window function assigns them, all of one length, or as earlier merging left them.
		longest := rapid.SampledFrom([]int64{10, 10, 200}).Draw(t, "longest")
		starts := rapid.Int64Range(-50, rapid.SampledFrom([]int64{50, 1000, 20000}).Draw(t, "latest"))
		large := rapid.Bool().Draw(t, "large values")
		windows, values := map[string][]window.Interval{}, map[keyedWindow][]stamped{}
		for i := range rapid.IntRange(0, 60).Draw(t, "values") {
			key := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "key")
			start := starts.Draw(t, "start")
			span := int64(10)
			if longest > span {
				span = rapid.Int64Range(1, longest).Draw(t, "span")
			}
			w := window.Interval{Start: start, End: start + span}
			v := stamped{Value: fmt.Sprint(i), Timestamp: start}
			if large {
				v.Value += strings.Repeat("x", 20_000)
			}
			if err := partitioner.Write(sessionRecord(key, w, v)); err != nil {
				t.Fatal(err)
			}
			windows[key] = append(windows[key], w)
			values[keyedWindow{key, w}] = append(values[keyedWindow{key, w}], v)
		}
		if err := partitioner.Flush(); err != nil {
			t.Fatal(err)
		}

		want := map[keyedWindow][]stamped{}
		for key, in := range windows {
			merged, into := window.Merge(in)
			for i, w := range in {
				if i == slices.Index(in, w) {
					to := keyedWindow{key, merged[into[i]]}
					want[to] = append(want[to], values[keyedWindow{key, w}]...)
				}
			}
		}
		sorted, err := grouper.Seal()
		if err != nil {
			t.Fatal(err)
		}
		groups, err := m.merge(context.Background(), sorted)
		if err != nil {
			t.Fatal(err)
		}
		skip := rapid.Bool().Draw(t, "skip values")
		got := readGroups(t, groups, skip)
		for _, lists := range []map[keyedWindow][]stamped{want, got} {
			for _, list := range lists {
				slices.SortFunc(list, func(a, b stamped) int { return strings.Compare(a.Value, b.Value) })
			}
		}
		if skip {
			for to := range want {
				want[to] = nil
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
		if err := m.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func sessionRecord(key string, w window.Interval, v stamped) []byte {
	record := coder.AppendHeader(nil, v.Timestamp, window.AppendInterval(nil, w), coder.NoFiring)
	record = append(binary.AppendUvarint(record, uint64(len(key))), key...)
	return append(binary.AppendUvarint(record, uint64(len(v.Value))), v.Value...)
}

// readGroups reads all groups, without their values if they are to be skipped.
func readGroups(t *rapid.T, groups grouped, skip bool) map[keyedWindow][]stamped {
	got := map[keyedWindow][]stamped{}
	for {
		more, err := groups.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return got
		}
		w, _, err := window.DecodeInterval(groups.Window())
		if err != nil {
			t.Fatal(err)
		}
		key := keyedWindow{string(bytes.TrimPrefix(groups.Key(), []byte{byte(len(groups.Key()) - 1)})), w}
		if _, twice := got[key]; twice {
			t.Fatalf("%v comes twice", key)
		}
		got[key] = nil
		for !skip {
			value, timestamp, ok, err := groups.NextValue()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			_, n := binary.Uvarint(value)
			got[key] = append(got[key], stamped{string(value[n:]), timestamp})
		}
	}
}
