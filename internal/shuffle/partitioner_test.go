package shuffle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
)

// interval is an encoded interval window: its end and its length.
func interval(end, length int) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(end)^1<<63)
	return string(binary.AppendUvarint(b, uint64(length)))
}

// writeRecord appends a windowed KV<bytes, bytes> as an SDK writes it.
func writeRecord(b []byte, at int64, windows []string, key, value string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(at)^1<<63)
	b = binary.BigEndian.AppendUint32(b, uint32(len(windows)))
	for _, w := range windows {
		b = append(b, w...)
	}
	b = append(b, 0x0f)
	for _, s := range []string{key, value} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

func nested(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }

// entriesOf parses a keyed block.
func entriesOf(t fataler, block []byte) (recs []record) {
	if _, err := countEntries(block); err != nil {
		t.Fatalf("malformed block: %v", err)
	}
	for o := 0; o < len(block); {
		prefix, size, _ := cutEntry(block[o:])
		key, window := prefixParts(block[o : o+prefix])
		at, value := entryRest(block[o+prefix:])
		recs = append(recs, record{string(key), string(window), string(value), at})
		o += size
	}
	return recs
}

// TestPartition: every value comes out once for each of its windows, in its key's group, in order.
func TestPartition(t *testing.T) {
	w := windowedKV(t, "interval")
	rapid.Check(t, func(rt *rapid.T) {
		keyGroups := rapid.SampledFrom([]int{1, 2, 128, 5000}).Draw(rt, "keyGroups")
		want := map[int][]record{}
		got := map[int][]record{}
		p, err := NewPartitioner(w, keyGroups, func(kg int, block []byte) error {
			if len(block) == 0 {
				rt.Fatalf("empty block for key group %d", kg)
			}
			got[kg] = append(got[kg], entriesOf(rt, block)...)
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		value := strings.Repeat("v", rapid.SampledFrom([]int{0, 1, 127, 128, 30_000, 1 << 20}).Draw(rt, "valueLength"))
		at := int64(0)
		for range rapid.IntRange(0, 20).Draw(rt, "writes") {
			var data []byte
			for range rapid.IntRange(0, 4).Draw(rt, "records") {
				key := rapid.SampledFrom([]string{"", "a", "b", "cc", strings.Repeat("k", 300)}).Draw(rt, "key")
				var windows []string
				for i := range rapid.IntRange(0, 3).Draw(rt, "windows") {
					windows = append(windows, interval(i*1000, 100<<(7*i)))
				}
				at--
				data = writeRecord(data, at, windows, key, value)
				kg := KeyGroup([]byte(nested(key)), keyGroups)
				for _, window := range windows {
					want[kg] = append(want[kg], record{nested(key), window, nested(value), at})
				}
			}
			if err := p.Write(data); err != nil {
				rt.Fatal(err)
			}
			clear(data) // it is the caller's again
			if held := len(p.entries); held > gatherBytes+len(value)+1000 {
				rt.Fatalf("%d bytes are held back", held)
			}
			if rapid.Bool().Draw(rt, "flush") {
				if err := p.Flush(); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if err := p.Flush(); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(record{})); diff != "" {
			rt.Fatalf("entries by key group (-want +got):\n%s", diff)
		}
	})
}

func TestPartitionGlobalWindow(t *testing.T) {
	var got []record
	p, err := NewPartitioner(windowedKV(t, "global"), 1, func(_ int, block []byte) error {
		got = append(got, entriesOf(t, block)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	data := writeRecord(nil, 7, []string{""}, "k", "v")
	data = writeRecord(data, 9, nil, "k", "nowhere")
	if err := errors.Join(p.Write(data), p.Flush(), p.Flush()); err != nil {
		t.Fatal(err)
	}
	want := []record{{nested("k"), "", nested("v"), 7}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(record{})); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestPartitionErrors(t *testing.T) {
	w := windowedKV(t, "global")
	if _, err := NewPartitioner(w, 0, nil); err == nil {
		t.Error("no key groups: no error")
	}
	discard := func(int, []byte) error { return nil }
	good := writeRecord(nil, 7, []string{""}, "key", "value")
	for n := 1; n < len(good); n++ {
		p, err := NewPartitioner(w, 4, discard)
		if err != nil {
			t.Fatal(err)
		}
		err = p.Write(append(bytes.Clone(good), good[:n]...))
		if want := fmt.Sprintf("record 1, at byte %d of %d", len(good), len(good)+n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes of a record: got %v, expected it to say %q", n, err, want)
		}
		if again := p.Flush(); again != err {
			t.Errorf("flush after %v: %v", err, again)
		}
	}
	full := errors.New("downstream is gone")
	p, err := NewPartitioner(w, 4, func(int, []byte) error { return full })
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(good); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Flush(); !errors.Is(err, full) {
			t.Errorf("flush: got %v, expected emit's error", err)
		}
	}
	if err := p.Write(good); !errors.Is(err, full) {
		t.Errorf("write after a failed flush: got %v, expected emit's error", err)
	}
}

func FuzzPartitionerWrite(f *testing.F) {
	f.Add(writeRecord(nil, 7, []string{interval(5, 3)}, "key", "value"))
	f.Add(writeRecord(writeRecord(nil, -1, []string{interval(5, 3), interval(6, 300)}, "", ""), 1, nil, "k", strings.Repeat("v", 200)))
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0})
	interval, global := windowedKV(f, "interval"), windowedKV(f, "global")
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, w := range []*coder.Windowed{interval, global} {
			s := NewStore("", NewBudget(1<<20)) // nothing is so large that it spills
			g := s.NewGrouper(16)
			p, err := NewPartitioner(w, 16, func(keyGroup int, block []byte) error { return g.Add(0, keyGroup, block) })
			if err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(data)
			if p.Write(data) == nil {
				if err := p.Flush(); err != nil {
					t.Fatalf("what was cut cannot be grouped: %v", err)
				}
			}
			if !bytes.Equal(before, data) {
				t.Fatal("the caller's data changed")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
