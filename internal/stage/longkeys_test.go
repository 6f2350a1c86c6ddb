package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/store/kv"
)

// CheckKeys checks what a task's snapshot has of long keys: that they are all there of which an entry may have to be read, and no
// others.
func CheckKeys(snapshot, scratch string, cache *kv.Cache) error {
	from, err := (&keyedStore{spec: Spec{Restore: []Restore{{Directory: snapshot, Parallelism: 1}}, Parallelism: 1, KeyGroups: 1}, end: 1, folder: storeName}).checkpoints()
	if err != nil || len(from) == 0 {
		return err
	}
	store, err := kv.Open(context.Background(), filepath.Join(scratch, storeName), cache, slog.New(slog.DiscardHandler), from, []byte{0}, []byte{0xff})
	if err != nil {
		return err
	}
	over := store.NewOverlay()
	return errors.Join(checkKeys(over), over.Close(), store.Close())
}

func checkKeys(over *kv.Overlay) error {
	entries, needed, kept := map[string]bool{}, map[string]string{}, map[string]int{}
	if err := over.Scan([]byte{0}, []byte{0xff}, func(key, value []byte) (bool, error) {
		entries[string(key)] = true
		rest := key[placeBytes:]
		kd := kind(key[placeBytes-1])
		switch kd {
		case kindMark:
			return true, nil
		case kindEvent, kindClock, kindHold, kindExpiry, kindSorted:
			rest = key[queueBytes:]
		}
		name, _, ok := cutKeyName(rest)
		if !ok {
			return false, fmt.Errorf("%x has no key's name", key)
		}
		of := string(key[:placeBytes-1]) + string(name)
		switch {
		case !isLong(name):
		case kd == kindKey:
			kept[of] += len(value)
		case kd == kindWindow, kd == kindTimer, kd == kindSorted, kd == kindRefers:
			needed[of] = fmt.Sprintf("%x", key)
		}
		return true, nil
	}); err != nil {
		return err
	}
	for of, by := range needed {
		if size := keySize([]byte(of[placeBytes-1:])); kept[of] != size {
			return fmt.Errorf("of the key that %s is of there are %d bytes, not %d", by, kept[of], size)
		}
	}
	for of := range kept {
		if needed[of] == "" {
			return fmt.Errorf("key %x is kept of which there is nothing", of)
		}
	}
	for key := range entries {
		if kd := kind(key[placeBytes-1]); kd == kindSorted || kd == kindRefers {
			if err := checkReference(entries, []byte(key), kd); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkReference(entries map[string]bool, key []byte, kd kind) error {
	want := reference(key)
	if kd == kindRefers {
		name, rest, _ := cutKeyName(key[placeBytes:])
		want = append(append(append([]byte{}, key[:placeBytes-1]...), rest[:1+coder.TimestampSize]...), name...)
		want = append(want, rest[1+coder.TimestampSize:]...)
	}
	if want != nil && !entries[string(want)] {
		return fmt.Errorf("%x is there without %x", key, want)
	}
	return nil
}

// TestKeyNames: a key's name tells where it ends, what follows it is whole, and no two keys have one.
func TestKeyNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := keyedStore{whole: rapid.IntRange(-1, 200).Draw(t, "whole")}
		keys := rapid.SliceOfNDistinct(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0x80, 0xff, 'a'}), 0, 300), 2, 2, func(b []byte) string { return string(b) }).Draw(t, "keys")
		more := rapid.SliceOf(rapid.Byte()).Draw(t, "more")
		var names []string
		for _, key := range keys {
			full := append(k.appendKeyName(nil, key), more...)
			name, rest, ok := cutKeyName(full)
			if !ok || string(rest) != string(more) || isLong(name) != (len(key) > k.whole) {
				t.Fatalf("%x was cut into %x and %x", full, name, rest)
			}
			if isLong(name) && keySize(name) != len(key) {
				t.Fatalf("the size of a key of %d bytes is %d", len(key), keySize(name))
			}
			names = append(names, string(name))
			for i := range name {
				if _, _, ok := cutKeyName(name[:i]); ok {
					t.Fatalf("%x is a name, and a beginning of %x", name[:i], name)
				}
			}
		}
		if names[0] == names[1] {
			t.Fatalf("%x and %x have one name", keys[0], keys[1])
		}
	})
}

// TestLongKeysInTheStore: a key of several pieces is kept once, read back as it was, over restarts, and gone with its last window.
func TestLongKeysInTheStore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, out, done := openPanes(t, "fn=fixed", 0)
		defer done()
		size := rapid.SampledFrom([]int{wholeBytes - 2, wholeBytes - 1, wholeBytes, keyPiece - 3, keyPiece - 2, 2*keyPiece + 7}).Draw(t, "size")
		key := strings.Repeat("k", size)
		var records [][]byte
		for _, start := range []int64{0, 10} {
			record := coder.AppendHeader(nil, start, window.AppendInterval(nil, window.Interval{Start: start, End: start + 10}), coder.NoFiring)
			records = append(records, appendPart(appendPart(record, []byte(key)), []byte("v")))
		}
		deliver(t, in, records)
		for i, until := range []int64{5, 10, 100} {
			if rapid.Bool().Draw(t, "snapshot") {
				if err := in.snapshot(filepath.Join(in.spec.State.Directory, fmt.Sprint("snapshot", i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := in.advance(t.Context(), times{input: until}); err != nil {
				t.Fatal(err)
			}
			if err := checkKeys(in.over); err != nil {
				t.Fatal(err)
			}
			if got := len(out.groups(t, false)); got != i {
				t.Fatalf("%d groups at %d, and should be %d", got, until, i)
			}
		}
		for _, start := range []int64{0, 10} {
			id := fmt.Sprintf("%s %d", key, window.Interval{Start: start, End: start + 10})
			if got := out.groups(t, false)[id]; len(got) != 1 || got[0] != "v" {
				t.Fatalf("the group from %d on is %q", start, got)
			}
		}
		if err := in.over.Scan(nil, []byte{0xff}, func(k, _ []byte) (bool, error) {
			if kind(k[placeBytes-1]) == kindMark {
				return true, nil
			}
			return false, fmt.Errorf("%.100x is kept", k)
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLongKeyThatIsCutShort: a key of which pieces are missing is an error, not another key.
func TestLongKeyThatIsCutShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, _, done := openPanes(t, "fn=fixed", 0)
		defer done()
		key := strings.Repeat("k", 2*keyPiece)
		record := coder.AppendHeader(nil, 0, window.AppendInterval(nil, window.Interval{End: 10}), coder.NoFiring)
		deliver(t, in, [][]byte{appendPart(appendPart(record, []byte(key)), []byte("v"))})
		pieces := in.at.entry(kindKey)
		piece := rapid.Byte().Draw(t, "piece") % 3
		in.over.Delete(append(pieces, 0, 0, 0, piece))
		if err := in.advance(t.Context(), times{input: 100}); !errors.Is(err, errKey) {
			t.Fatalf("without piece %d: %v", piece, err)
		}
	})
}

// TestLongKeysAreRestored: tasks of another number, which begin with what a task that was killed had at its last snapshot, put the
// groups of that out, and keep nothing in the end.
func TestLongKeysAreRestored(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, _, done := openPanes(t, "fn=fixed", 0)
		defer done()
		want := map[string][]string{}
		var records [][]byte
		for i := range rapid.IntRange(1, 6).Draw(t, "keys") {
			key := fmt.Sprint(i, strings.Repeat("k", rapid.SampledFrom([]int{0, wholeBytes, keyPiece}).Draw(t, "size")))
			record := coder.AppendHeader(nil, 0, window.AppendInterval(nil, window.Interval{End: 10}), coder.NoFiring)
			records = append(records, appendPart(appendPart(record, []byte(key)), []byte("v")))
			want[key+" {0 10}"] = []string{"v"}
		}
		deliver(t, in, records)
		snapshot := filepath.Join(in.spec.State.Directory, "snapshot")
		if err := in.snapshot(snapshot); err != nil {
			t.Fatal(err)
		}
		deliver(t, in, records) // which is lost
		got := map[string][]string{}
		tasks := rapid.IntRange(1, 3).Draw(t, "tasks")
		for i := range tasks {
			spec, out := in.spec, &collecting{}
			spec.Index, spec.Parallelism, spec.Restore = i, tasks, []Restore{{Directory: snapshot, Parallelism: 1}}
			spec.State.Directory = filepath.Join(in.spec.State.Directory, fmt.Sprint("heir", i))
			heir, err := newPanes(spec, out)
			if err != nil {
				t.Fatal(err)
			}
			told := coder.MinTimestamp
			heir.output = &told
			err = errors.Join(heir.advance(t.Context(), times{input: 100}), checkKeys(heir.over))
			maps.Copy(got, out.groups(t, false))
			for _, kd := range []kind{kindKey, kindWindow} {
				for g := heir.first; g < heir.keyedStore.end; g++ {
					err = errors.Join(err, heir.over.Scan(begin(nil, kd, g), begin(nil, kd+1, g), func(key, _ []byte) (bool, error) {
						return false, fmt.Errorf("%.100x is kept", key)
					}))
				}
			}
			if err := errors.Join(err, heir.close()); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("groups, those that are wrong with +:\n%.1000s", d)
		}
	})
}
