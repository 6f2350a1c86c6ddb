package kv

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	cache := NewCache(1 << 20)
	defer cache.Close()
	n := 0
	key := rapid.Custom(func(t *rapid.T) []byte {
		return []byte(fmt.Sprintf("%02d", rapid.IntRange(0, 40).Draw(t, "key")))
	})
	value := rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Repeat([]byte{byte(rapid.IntRange('a', 'z').Draw(t, "value"))}, rapid.SampledFrom([]int{0, 1, 300}).Draw(t, "size"))
	})
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := filepath.Join(t.TempDir(), fmt.Sprint(n))
		s, err := Open(dir, cache, slog.New(slog.DiscardHandler), nil, nil, nil)
		if err != nil {
			rt.Fatal(err)
		}
		o := s.NewOverlay()
		defer func() {
			if err := o.Close(); err != nil {
				rt.Error(err)
			}
			if err := s.Close(); err != nil {
				rt.Error(err)
			}
		}()
		m := &model{map[string]string{}, map[string]string{}}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "k"), value.Draw(t, "v")
				o.Put(k, v)
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
				o.DeleteRange(lo, hi)
				maps.DeleteFunc(m.staged, func(k, _ string) bool { return k >= string(lo) && k < string(hi) })
			},
			"commit": func(t *rapid.T) {
				if err := o.Commit(); err != nil {
					t.Fatal(err)
				}
				m.stored = maps.Clone(m.staged)
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
			},
			"": func(t *rapid.T) {
				m.check(t, o, []byte("0"), []byte("99"))
				if (len(m.staged) > 0) && o.Size() < 0 {
					t.Fatalf("size %d", o.Size())
				}
			},
		})
	})
}
