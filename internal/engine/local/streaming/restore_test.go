package streaming

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"trestle/internal/beam/urn"
	"trestle/internal/kit/sealed"
)

// A job that is cut off again and again, and goes on from its last snapshot at another parallelism, or the same, does each
// thing once, whether its keys are long or not.
func TestJobGoesOnAtAnyParallelism(t *testing.T) {
	t.Run("short keys", func(t *testing.T) { goesOnAtAnyParallelism(t, 0) })
	t.Run("long keys", func(t *testing.T) { goesOnAtAnyParallelism(t, -1) })
}

func goesOnAtAnyParallelism(t *testing.T, wholeKeys int) {
	r := newRig(t)
	r.wholeKeys = wholeKeys
	for _, parallelism := range []int{2, 3, 3, 1} {
		r.until(parallelism, 2)
	}
	r.drain(3)
	r.exact()
	if left, err := numbers(r.snapshots); err != nil || len(left) > keepSnapshots {
		t.Errorf("snapshots %v are left, %v", left, err)
	}
}

// So does one whose input waits for snapshots, which go on until a job that is drained has ended.
func TestStableInputGoesOn(t *testing.T) {
	r := newRig(t)
	r.pipeline = strings.Replace(counting, "fixed state timers", "fixed state timers stable", 1)
	r.until(2, 2)
	r.drain(3)
	r.exact()
}

// So does one whose stable input are panes that fire by the clock, as long as that takes: at once, with little, or after several
// snapshots, with much. A pane that was put out comes again as it was.
func TestStablePanesByTheClockGoOn(t *testing.T) {
	const fast = 20
	r := newRig(t)
	r.global = true
	r.pipeline = strings.NewReplacer("fn=fixed", "trigger=repeat(delay(100))", "end:string@global env=other", "end:string env=other stable").Replace(counting)
	r.clock.faster(fast)
	r.cutAfterPanes = 10
	r.until(2, 2)
	r.clock.faster(1)
	r.cutAfterPanes = 0
	r.until(3, 2)
	r.clock.faster(fast)
	r.drain(3)
	r.exact()
}

// damage copies the snapshots, has one file of the last damaged, and tells with what the job then opens: with the snapshot
// before, or with an error.
func (r *rig) damage(harm func(folder string)) (from uint64, err error) {
	r.t.Helper()
	kept := r.snapshots
	defer func() { r.snapshots = kept }()
	r.snapshots = filepath.Join(r.t.TempDir(), "copy")
	if err := os.CopyFS(r.snapshots, os.DirFS(kept)); err != nil {
		r.t.Fatal(err)
	}
	all, err := numbers(r.snapshots)
	if err != nil || len(all) < 2 {
		r.t.Fatalf("snapshots %v, %v", all, err)
	}
	harm(filepath.Join(r.snapshots, strconv.FormatUint(all[0], 10)))
	before := tree(r.t, r.snapshots)
	defer func() {
		if after := tree(r.t, r.snapshots); !slices.Equal(before, after) {
			r.t.Errorf("opening the job changed its snapshots:\n%v\n%v", before, after)
		}
	}()
	run, err := r.open(2)
	if err != nil {
		return 0, err
	}
	from = run.job.from.Number
	if err := run.job.Close(); err != nil {
		r.t.Error(err)
	}
	run.end()
	return from, nil
}

// tree is what there is below a folder.
func tree(t *testing.T, folder string) (all []string) {
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, fmt.Sprintf("%s %x", path, b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// files are those below a folder.
func files(t *testing.T, folder string) (all []string) {
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A snapshot that is damaged in any byte of any file, or has a file too few or too many, is named, and the job goes on from
// the one before it. What is there stays as it is.
func TestDamagedSnapshot(t *testing.T) {
	r := newRig(t)
	r.until(2, 4)
	all, err := numbers(r.snapshots)
	if err != nil {
		t.Fatal(err)
	}
	older := all[1]
	random := rand.New(rand.NewPCG(1, 2))
	folder := filepath.Join(r.snapshots, strconv.FormatUint(all[0], 10))
	paths := files(t, folder)
	check := func(what string, harm func(path string) error) {
		t.Helper()
		path := paths[random.IntN(len(paths))]
		was, err := os.ReadFile(path)
		if err == nil {
			err = os.Remove(path) // it may be linked to from elsewhere
		}
		if err == nil {
			err = os.WriteFile(path, was, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := harm(path); err != nil {
			t.Fatal(err)
		}
		r.messages = nil
		j := &Job{cfg: r.config(2)}
		if err := j.restored(t.Context()); err != nil || j.from.Number != older {
			t.Errorf("%s, %s: the job goes on from %v, %v", path, what, j.kept, err)
		}
		if len(r.messages) != 1 || !strings.Contains(r.messages[0], filepath.Base(path)) && !strings.Contains(r.messages[0], manifestName) {
			t.Errorf("%s, %s: the job's messages are %q", path, what, r.messages)
		}
		if err := os.WriteFile(path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range min(len(paths), 40) {
		check("a bit flipped", func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil || len(b) == 0 {
				return errors.Join(err, os.WriteFile(path, []byte("x"), 0o600))
			}
			b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			return os.WriteFile(path, b, 0o600)
		})
	}
	for range 10 {
		check("cut short", func(path string) error {
			info, err := os.Stat(path)
			if err != nil || info.Size() == 0 {
				return errors.Join(err, os.Remove(path))
			}
			return os.Truncate(path, random.Int64N(info.Size()))
		})
	}
	check("gone", os.Remove)
	more := filepath.Join(filepath.Dir(paths[0]), manifestName+".old")
	check("one more", func(string) error { return os.WriteFile(more, nil, 0o600) })
	if err := os.Remove(more); err != nil {
		t.Fatal(err)
	}
	j := &Job{cfg: r.config(2)}
	if err := j.restored(t.Context()); err != nil || j.from.Number != all[0] {
		t.Errorf("with everything as it was, the job goes on from %v, %v", j.kept, err)
	}
	if from, err := r.damage(func(folder string) {
		if err := os.Remove(files(t, folder)[0]); err != nil {
			t.Fatal(err)
		}
	}); err != nil || from != older {
		t.Errorf("the job goes on from %d, %v", from, err)
	}

	// With nothing whole left, it does not begin anew.
	kept := r.snapshots
	for _, n := range all {
		path := files(t, filepath.Join(kept, strconv.FormatUint(n, 10)))[0]
		if err := os.WriteFile(path, []byte("nothing of the kind"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.open(2); !errors.Is(err, ErrRestore) || !errors.Is(err, errDamaged) {
		t.Errorf("opened with two damaged snapshots: %v", err)
	}
}

// Bundles that were finalized cannot be taken back: an earlier snapshot is no way out then.
func TestDamagedSnapshotOfFinalizedBundles(t *testing.T) {
	r := newRig(t)
	r.requires = []string{urn.RequirementFinalization}
	r.until(2, 4)
	_, err := r.damage(func(folder string) {
		if err := os.Truncate(filepath.Join(folder, manifestName), 100); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, ErrRestore) || !strings.Contains(err.Error(), "finalized") {
		t.Errorf("it opens with %v", err)
	}
}

// rewrite changes what a manifest says, with a sum that is right.
func rewrite(t *testing.T, folder string, version int, change func(m *manifest)) {
	path := filepath.Join(folder, manifestName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := decodeManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	change(m)
	if b, err = m.encode(); err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\n"))
	b = sealed.Encode(magic, version, body)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCancelledBeforeItIsOpen: a job that is cancelled while it reads what it goes on from ends then, for that reason, and leaves it as it is.
func TestCancelledBeforeItIsOpen(t *testing.T) {
	r := newRig(t)
	r.until(2, 4)
	over := errors.New("the job was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	r.wanted = ctx
	if _, err := r.damage(func(string) {}); !errors.Is(err, over) || errors.Is(err, errDamaged) {
		t.Errorf("it opens with %v", err)
	}
}

// A snapshot that is whole, but of another job or another version of Trestle, is refused by name: it is not passed over.
func TestForeignSnapshot(t *testing.T) {
	r := newRig(t)
	r.until(2, 4)
	for _, c := range []struct {
		name, says string
		harm       func(folder string)
	}{
		{"a later format", "format 99, this version of Trestle reads 4", func(folder string) {
			rewrite(t, folder, 99, func(*manifest) {})
		}},
		{"the first format", "format 1, this version of Trestle reads 4", func(folder string) {
			text := "0a1b2c3d\n" + `{"version":1,"digest":"x"}`
			if err := os.WriteFile(filepath.Join(folder, manifestName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"another pipeline", "another pipeline", func(folder string) {
			rewrite(t, folder, manifestVersion, func(m *manifest) { m.Digest = strings.Repeat("0", 64) })
		}},
		{"another engine", `of the engine "other"`, func(folder string) {
			rewrite(t, folder, manifestVersion, func(m *manifest) { m.Engine = "other" })
		}},
		{"other key groups", "128 key groups, where there are 16", func(folder string) {
			rewrite(t, folder, manifestVersion, func(m *manifest) { m.KeyGroups = 128 })
		}},
		{"another number", "it says that it is number 1", func(folder string) {
			rewrite(t, folder, manifestVersion, func(m *manifest) { m.Number = 1 })
		}},
		{"a later format of a task's part", "format 99, this version of Trestle reads 7", taskFormat(t, 99)},
		{"the format before residuals were in a store", "format 6, this version of Trestle reads 7", taskFormat(t, 6)},
	} {
		_, err := r.damage(c.harm)
		if !errors.Is(err, ErrRestore) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), r.t.Name()) {
			t.Errorf("%s: it opens with %v", c.name, err)
		}
	}
	// It is the same job as before: nothing was lost.
	r.drain(2)
	r.exact()
}

// A manifest whose number of the format was damaged is a damaged one, not another version's: the job may go on from the one before.
func TestDamagedFormat(t *testing.T) {
	m := manifest{Engine: engineName, Number: 3, Digest: "d", Parallelism: 1, KeyGroups: 16}
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	for version := range 10 {
		was := fmt.Appendf(nil, "%s%d ", magic, manifestVersion)
		_, err := decodeManifest(bytes.Replace(b, was, fmt.Appendf(nil, "%s%d ", magic, version), 1))
		if version == manifestVersion && err != nil || version != manifestVersion && !errors.Is(err, errDamaged) {
			t.Errorf("format %d, damaged: %v", version, err)
		}
	}
}

// FuzzManifest: what is not a manifest is refused, and what is one is written back as it was.
func FuzzManifest(f *testing.F) {
	m := manifest{
		Engine: engineName, Number: 3, Digest: "d", Parallelism: 2, KeyGroups: 128,
		Tasks: map[string]taskPart{"0-0": {Slots: []slotPart{{0, -5}}, Metrics: []byte("x")}},
		Files: map[string]fileSum{"0-0/side-0": {3, "abc"}, "0-0/store/1.sst": {9, "d"}},
	}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte("0a1b2c3d\n{\"version\":1,"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, sealed.Encode(magic, manifestVersion, b)} {
			m, err := decodeManifest(b)
			if err != nil {
				if !errors.Is(err, errDamaged) && !errors.Is(err, errFormat) {
					t.Errorf("%q: %v", b, err)
				}
				continue
			}
			again, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeManifest(again); err != nil {
				t.Errorf("%q was read, but not when it was written again as %q: %v", b, again, err)
			}
		}
	})
}

// taskFormat has a task's part of a snapshot be of another format.
func taskFormat(t *testing.T, version int) func(folder string) {
	return func(folder string) {
		text := fmt.Appendf(nil, "trestle task %d\n", version)
		if err := os.WriteFile(filepath.Join(folder, "2-0", "format"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		sum, err := sumFile(t.Context(), filepath.Join(folder, "2-0", "format"), int64(len(text)))
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, folder, manifestVersion, func(m *manifest) { m.Files["2-0/format"] = sum })
	}
}
