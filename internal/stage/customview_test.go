package stage

import (
	"slices"
	"testing"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
)

// TestCustomWindowsOfSideInputs: a window that only the SDK knows is found by its encoding in the records and by that of
// the window alone; another is empty.
func TestCustomWindowsOfSideInputs(t *testing.T) {
	for _, c := range []struct {
		coder         string
		inside, alone string // the window in a record behind its end, and in Java's state keys
	}{
		{"mine", "\x02w1", "w1"},
		{"kv(varint,string)", "\x05\x02w1", "\x05\x02w1"},
	} {
		pipeline, err := plantest.Parse(`
window custom fn=my:windows merge=none coder=` + c.coder + `
impulse start() > I
pardo sides(I) > S:kv(bytes,bytes)@custom
reshuffle spread(I) > J
pardo work(J, list=S, map=S/multimap) >
`)
		if err != nil {
			t.Fatal(err)
		}
		p, err := plan.Build(pipeline, plan.Options{})
		if err != nil {
			t.Fatal(err)
		}
		store := shuffle.NewStore(t.TempDir(), shuffle.NewBudget(1<<20))
		views, err := NewViews(p, stageOf(t, p, "work"), store)
		if err != nil {
			t.Fatal(err)
		}
		in := coder.AppendTimestamp(nil, 1000)
		in = append(in, c.inside...)
		records := append(coder.AppendHeader(nil, 5, in, coder.NoFiring), "\x01k\x01a"...)
		records = append(append(records, coder.AppendHeader(nil, 6, in, coder.NoFiring)...), "\x01k\x01b"...)
		for i := range 2 {
			if err := views.add(i, records); err != nil {
				t.Fatal(err)
			}
			if err := views.end(i); err != nil {
				t.Fatal(err)
			}
		}
		list, keyed := views.views[0], views.views[1]
		for window, there := range map[string]bool{string(in): true, c.alone: true, "other": false, "": false} {
			for what, read := range map[string]struct {
				f    func(window []byte, page int64) ([]byte, int64, error)
				want string
			}{
				"values": {list.values, "\x01k\x01a\x01k\x01b"},
				"keys":   {keyed.keys, "\x01k"},
				"lookup": {func(w []byte, page int64) ([]byte, int64, error) { return keyed.lookup([]byte("\x01k"), w, page) }, "\x01a\x01b"},
			} {
				data, _, err := read.f([]byte(window), 0)
				if err != nil {
					t.Fatalf("%s of %q: %v", what, window, err)
				}
				want := read.want
				if !there {
					want = ""
				}
				if !slices.Equal(data, []byte(want)) {
					t.Errorf("%s of %q, windows of %s: %q, want %q", what, window, c.coder, data, want)
				}
			}
		}
		if err := views.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}
