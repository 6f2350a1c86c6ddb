package kv

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// What was put and deleted between two checkpoints has never been in a file.
func TestWhatDoesNotLastReachesNoFile(t *testing.T) {
	f := newFixture(t)
	s, o := f.open("store", nil, nil, nil)
	for i := range 1000 {
		o.Insert(fmt.Appendf(nil, "%04d", i), nil)
		if i%10 == 0 {
			if err := o.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if i >= 20 {
			o.Delete(fmt.Appendf(nil, "%04d", i-20))
		}
	}
	if n := s.recent.count; n != 20 {
		t.Errorf("%d changes are kept, want those of the 20 keys that are there", n)
	}
	f.checkpoint(s, o, "cut")
	if n := s.db.Metrics().Total().TablesCount; n != 1 || s.recent.count != 0 {
		t.Errorf("%d files, %d changes left, want 1 and none", n, s.recent.count)
	}
	o.Delete([]byte("0990")) // is in a file
	if n := s.recent.count; n != 1 {
		t.Errorf("%d changes are kept, want a deletion", n)
	}
}

// model is what an overlay over a store is meant to be: a map.
type model struct{ staged, stored map[string]string }

func (m *model) check(t *rapid.T, o *Overlay, lo, hi []byte) {
	var want, got []string
	for _, k := range slices.Sorted(maps.Keys(m.staged)) {
		if k >= string(lo) && k < string(hi) {
			want = append(want, k+"="+m.staged[k])
		}
	}
	if err := o.Scan(lo, hi, func(k, v []byte) (bool, error) {
		got = append(got, string(k)+"="+string(v))
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(want, got) {
		t.Fatalf("scan of [%q, %q):\nwant %q\ngot  %q", lo, hi, want, got)
	}
}

func TestAnOverlayIsAMap(t *testing.T) {
	// Small enough for some commits to reach files, and for some not to.
	cache := NewCache(1 << 10)
	defer cache.Close()
	n := 0
	// Many trees, and some with keys that differ early, late, or in their length only.
	key := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.Bool().Draw(t, "short") {
			return []byte(fmt.Sprintf("%02d", rapid.IntRange(0, 40).Draw(t, "key")))
		}
		rest := rapid.SampledFrom([]string{"", "\x00", "\x00\x00", "a", "b", "aaaaaaaa", "aaaaaaaa\x00", "aaaaaaaab", "aaaaaaab", "\xff"}).Draw(t, "rest")
		return []byte(fmt.Sprintf("%02dk%s", rapid.IntRange(0, 3).Draw(t, "key"), rest))
	})
	value := rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Repeat([]byte{byte(rapid.IntRange('a', 'z').Draw(t, "value"))}, rapid.SampledFrom([]int{0, 1, 300}).Draw(t, "size"))
	})
	folders := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := filepath.Join(folders, fmt.Sprint(n))
		s, err := Open(context.Background(), dir, cache, slog.New(slog.DiscardHandler), nil, nil, nil)
		if err != nil {
			rt.Fatal(err)
		}
		o := s.NewOverlay()
		if rapid.Bool().Draw(rt, "direct") {
			o = s.NewDirectOverlay()
		}
		defer func() {
			if err := o.Close(); err != nil {
				rt.Error(err)
			}
			if err := s.Close(); err != nil {
				rt.Error(err)
			}
		}()
		m := &model{map[string]string{}, map[string]string{}}
		checkpoints := 0
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "k"), value.Draw(t, "v")
				if _, there := m.staged[string(k)]; there || rapid.Bool().Draw(t, "put") {
					o.Put(k, v)
				} else {
					o.Insert(k, v)
				}
				m.staged[string(k)] = string(v)
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "k")
				o.Delete(k)
				delete(m.staged, string(k))
			},
			"delete range": func(t *rapid.T) {
				lo, hi := key.Draw(t, "lo"), key.Draw(t, "hi")
				if bytes.Compare(lo, hi) >= 0 {
					return
				}
				if err := o.DeleteRange(lo, hi); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(m.staged, func(k, _ string) bool { return k >= string(lo) && k < string(hi) })
			},
			"commit": func(t *rapid.T) {
				if err := o.Commit(); err != nil {
					t.Fatal(err)
				}
				m.stored = maps.Clone(m.staged)
			},
			"checkpoint": func(t *rapid.T) {
				if checkpoints == 2 {
					return // they take their time
				}
				if err := o.Commit(); err != nil {
					t.Fatal(err)
				}
				m.stored = maps.Clone(m.staged)
				checkpoints++
				if err := s.Checkpoint(fmt.Sprint(dir, "-", checkpoints)); err != nil {
					t.Fatal(err)
				}
			},
			"freeze": func(t *rapid.T) {
				if !o.direct {
					return
				}
				frozen := s.Freeze()
				got := map[string]string{}
				if err := frozen.Scan([]byte("0"), []byte("99"), func(k, v []byte) ([]byte, bool, error) {
					got[string(k)] = string(v)
					return nil, true, nil
				}); err != nil {
					t.Fatal(err)
				}
				if err := frozen.Close(); err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(got, m.stored) {
					t.Fatalf("frozen: %q, want %q", got, m.stored)
				}
			},
			"discard": func(t *rapid.T) {
				if err := o.Discard(); err != nil {
					t.Fatal(err)
				}
				m.staged = maps.Clone(m.stored)
			},
			"scan": func(t *rapid.T) { m.check(t, o, key.Draw(t, "lo"), key.Draw(t, "hi")) },
			"get": func(t *rapid.T) {
				k := key.Draw(t, "k")
				want, there := m.staged[string(k)]
				got, ok, err := o.Get(k)
				if err != nil || ok != there || string(got) != want {
					t.Fatalf("get %q: %q, %t, %v; want %q, %t", k, got, ok, err, want, there)
				}
				if has, err := o.Has(k); err != nil || has != there {
					t.Fatalf("has %q: %t, %v; want %t", k, has, err, there)
				}
			},
			"": func(t *rapid.T) {
				m.check(t, o, []byte("0"), []byte("99"))
				if size := o.store.recent.size; o.Size() < 0 || size < 0 || size > 0 != (o.store.recent.count > 0) {
					t.Fatalf("sizes %d, %d, of %d changes", o.Size(), size, o.store.recent.count)
				}
			},
		})
	})
}
