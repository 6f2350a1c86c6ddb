package shuffle

import (
	"bytes"
	"math"
	"testing"
)

// memoryFile is a spill file in memory.
type memoryFile struct{ data []byte }

func (m *memoryFile) Create(string) (File, error) { return m, nil }

func (m *memoryFile) Close() error { return nil }

func (m *memoryFile) WriteAt(b []byte, off int64) (int, error) {
	m.data = append(m.data[:off], b...)
	return len(b), nil
}

func (m *memoryFile) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(m.data).ReadAt(b, off)
}

// FuzzReadBlock reads what is said to be a spill file: it never panics, and what it accepts was written so.
func FuzzReadBlock(f *testing.F) {
	for _, data := range []string{"", "data", string(bytes.Repeat([]byte("text that repeats itself; "), 50))} {
		m := &memoryFile{}
		s := NewStore("", NewBudget(0))
		s.files = m
		if _, err := (&spillFile{store: s}).append(append(newBlock(0), data...)); err != nil {
			f.Fatal(err)
		}
		f.Add(m.data)
	}
	f.Add(append([]byte{blockVersion, codecS2, 0xff, 0xff, 0xff, 0x7f}, make([]byte, 30)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewStore("", NewBudget(0))
		s.files = &memoryFile{data}
		file := &spillFile{store: s}
		file.pos.Store(int64(len(data)))
		var r blockReader
		got, next, err := r.read(file, 0)
		if err != nil {
			return
		}
		if next < blockHeader || next > int64(len(data)) || len(got) > math.MaxInt32 {
			t.Fatalf("a block of %d bytes ends at %d of %d", len(got), next, len(data))
		}
	})
}

// FuzzGrouperAdd adds what is said to be a keyed block; what is accepted comes out again.
func FuzzGrouperAdd(f *testing.F) {
	one := appendEntry(nil, []byte("key"), []byte("window"), 5, []byte("value"))
	f.Add(one)
	f.Add(appendEntry(one, nil, nil, math.MinInt64, bytes.Repeat([]byte("v"), 300)))
	f.Add([]byte{0x80, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0})
	f.Fuzz(func(t *testing.T, block []byte) {
		s := NewStore("", NewBudget(0))
		s.tune, s.files = tiny, &memoryFile{}
		g := s.NewGrouper(1)
		if g.Add(0, 0, block) != nil {
			return
		}
		gs, err := g.Seal()
		if err != nil {
			t.Fatal(err)
		}
		want := map[groupID][]valueAt{}
		if len(block) > 0 {
			want = reference(entriesOf(t, block))
		}
		got := collect(t, gs)
		if len(got) != len(want) {
			t.Fatalf("got %d groups, expected %d", len(got), len(want))
		}
		for id := range want {
			if len(got[id]) != len(want[id]) {
				t.Fatalf("group %q has %d values, expected %d", id, len(got[id]), len(want[id]))
			}
		}
	})
}
