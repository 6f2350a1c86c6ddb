package stage

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/store/kv"
)

func openShelf(t fatal, dir string, cache *kv.Cache, index, tasks int, restore ...Restore) *shelf {
	t.Helper()
	h, err := newShelf(Spec{
		Index: index, Parallelism: tasks, KeyGroups: 8, State: State{Directory: filepath.Join(dir, fmt.Sprint(index)), Cache: cache},
		Restore: restore, Log: slog.New(slog.DiscardHandler), wanted: State{}.Wanted(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type fatal interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// TestShelfIsAsTheReference: whatever is put off and taken out, in memory, in files and over restarts with other numbers of tasks, what
// is due comes in its order, once, with what is known of it; and the least hold and the next wake-up are those of what is left.
func TestShelfIsAsTheReference(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		cache := kv.NewCache(rapid.SampledFrom([]int64{1 << 8, 1 << 20}).Draw(rt, "cache")) // in a tiny one all goes to files at once
		defer cache.Close()
		shelves := []*shelf{openShelf(rt, filepath.Join(dir, "0"), cache, 0, 1)}
		defer func() {
			for _, h := range shelves {
				if err := h.close(); err != nil {
					rt.Fatal(err)
				}
			}
		}()
		type entry struct {
			drained bool
			p       putOff
		}
		has := make([][]entry, 1) // by task, in the order in which it was put
		serial := 0
		in := func(h *shelf, drained bool) *line {
			if drained {
				return &h.drained
			}
			return &h.rests
		}
		check := func() {
			for i, h := range shelves {
				hold, first := never, map[bool]int64{false: never, true: never}
				for _, e := range has[i] {
					if e.p.hold < coder.MaxTimestamp {
						hold = min(hold, e.p.hold)
					}
					first[e.drained] = min(first[e.drained], e.p.due)
				}
				for _, c := range []struct {
					what string
					line *line
					want int64
				}{{"holds", &h.holds, hold}, {"rests", &h.rests, first[false]}, {"drained", &h.drained, first[true]}} {
					if got, err := h.first(c.line); got != c.want || err != nil {
						rt.Fatalf("task %d: first of %s: %d, %v, the reference has %d", i, c.what, got, err, c.want)
					}
				}
				if some, err := h.some(); some != (len(has[i]) > 0) || err != nil {
					rt.Fatalf("task %d: some: %t, %v; the reference has %d", i, some, err, len(has[i]))
				}
			}
		}
		for step := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			task := rapid.IntRange(0, len(shelves)-1).Draw(rt, "task")
			h := shelves[task]
			drained := rapid.Bool().Draw(rt, "drained")
			switch rapid.SampledFrom([]string{"put", "put", "put", "put", "put", "take", "take", "take", "restart"}).Draw(rt, "step") {
			case "put":
				for range rapid.IntRange(1, 5).Draw(rt, "parts") {
					serial++
					p := putOff{
						record:    fmt.Appendf(nil, "%d", serial),
						due:       rapid.SampledFrom([]int64{math.MinInt64, -1, 0, 1, 2, 3, math.MaxInt64}).Draw(rt, "due"),
						hold:      rapid.SampledFrom([]int64{coder.MinTimestamp, -1, 0, 1, 2, coder.MaxTimestamp}).Draw(rt, "hold"),
						unbounded: rapid.Bool().Draw(rt, "unbounded"),
					}
					if err := h.put(in(h, drained), p); err != nil {
						rt.Fatal(err)
					}
					has[task] = append(has[task], entry{drained, p})
				}
				if err := h.over.Commit(); err != nil {
					rt.Fatal(err)
				}
			case "take":
				until, count := rapid.SampledFrom([]int64{math.MinInt64, 0, 2, math.MaxInt64}).Draw(rt, "until"), rapid.IntRange(1, 6).Draw(rt, "count")
				got, err := h.take(in(h, drained), until, count)
				if err != nil {
					rt.Fatal(err)
				}
				slices.SortStableFunc(has[task], func(a, b entry) int { return cmp.Compare(a.p.due, b.p.due) })
				var want []putOff
				has[task] = slices.DeleteFunc(has[task], func(e entry) bool {
					goes := e.drained == drained && e.p.due <= until && len(want) < count
					if goes {
						want = append(want, e.p)
					}
					return goes
				})
				if !slices.EqualFunc(got, want, func(a, b putOff) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
					rt.Fatalf("task %d gives %v, the reference %v", task, got, want)
				}
			case "restart":
				var all []Restore
				for i, h := range shelves {
					r := Restore{Directory: filepath.Join(dir, fmt.Sprintf("snapshot-%d-%d", step, i)), Index: i, Parallelism: len(shelves)}
					if err := os.Mkdir(r.Directory, 0o700); err != nil {
						rt.Fatal(err)
					}
					if err := h.snapshot(r.Directory); err != nil {
						rt.Fatal(err)
					}
					if err := h.close(); err != nil {
						rt.Fatal(err)
					}
					all = append(all, r)
				}
				tasks := rapid.IntRange(1, 3).Draw(rt, "tasks")
				dealt := make([][]entry, tasks)
				own := tasks == len(shelves) && rapid.Bool().Draw(rt, "own") // each is given its own part only, as an engine may
				if own {
					dealt = has
				} else {
					n := 0
					for i := range has {
						slices.SortStableFunc(has[i], func(a, b entry) int { return cmp.Compare(a.p.due, b.p.due) })
						for _, drained := range []bool{false, true} {
							for _, e := range has[i] {
								if e.drained == drained {
									dealt[n%tasks] = append(dealt[n%tasks], e)
									n++
								}
							}
						}
					}
				}
				shelves = nil
				for i := range tasks {
					from := all
					if own {
						from = all[i : i+1]
					}
					shelves = append(shelves, openShelf(rt, filepath.Join(dir, fmt.Sprint(step+1)), cache, i, tasks, from...))
				}
				has = dealt
			}
			check()
		}
	})
}

// TestManyWait: what waits does not lie in memory, however much that is, nor does what is known of it; and it is all there after a
// restart.
func TestManyWait(t *testing.T) {
	const parts, size = 50_000, 1 << 10
	const queued = 16 << 20 // of memory tables, as many as may wait for a slow disk
	dir := t.TempDir()
	cache := kv.NewCache(1 << 20)
	defer cache.Close()
	h := openShelf(t, filepath.Join(dir, "first"), cache, 0, 1)
	before := heap()
	fill(t, h, parts, size)
	if grown := heap() - before; grown > parts*size/4+queued {
		t.Errorf("with %d MB put off, the heap is %d MB larger", parts*size>>20, grown>>20)
	}
	snapshot := filepath.Join(dir, "snapshot")
	if err := os.Mkdir(snapshot, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := h.snapshot(snapshot); err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	taken, last := 0, int64(math.MinInt64)
	h = openShelf(t, filepath.Join(dir, "second"), cache, 0, 1, Restore{Directory: snapshot, Parallelism: 1})
	for {
		got, err := h.take(&h.rests, math.MaxInt64, mostResumed)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		if len(got) > 2*resumeBytes/size {
			t.Fatalf("%d parts of %d bytes at a time", len(got), size)
		}
		for _, p := range got {
			if p.due < last {
				t.Fatalf("due at %d, after one at %d", p.due, last)
			}
			last = p.due
		}
		taken += len(got)
	}
	if hold, err := h.first(&h.holds); hold != never || err != nil {
		t.Errorf("nothing is left, and holds %d, %v", hold, err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if taken != parts {
		t.Errorf("%d parts of %d come back", taken, parts)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fill puts off many parts, due in another order than they come, and with few different holds.
func fill(t testing.TB, h *shelf, parts, size int) {
	t.Helper()
	for i := range parts {
		p := putOff{record: make([]byte, size), due: int64(i * 7919 % parts), hold: int64(i % 3)}
		if err := h.put(&h.rests, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.over.Commit(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkPolling is a round of each of many restrictions that wait: a hundred at a time are taken out, and put off once more, and
// the task is told what holds the watermark and when to wake up. The time is that of a restriction.
func BenchmarkPolling(b *testing.B) {
	for _, parts := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(parts), func(b *testing.B) {
			cache := kv.NewCache(64 << 20)
			defer cache.Close()
			h := openShelf(b, b.TempDir(), cache, 0, 1)
			fill(b, h, parts, 100)
			var due int64
			n := 0
			for b.Loop() {
				if n--; n >= 0 {
					continue
				}
				got, err := h.take(&h.rests, math.MaxInt64, 100)
				if err != nil {
					b.Fatal(err)
				}
				for _, p := range got {
					due = p.due
					p.due += int64(parts)
					if err := h.put(&h.rests, p); err != nil {
						b.Fatal(err)
					}
				}
				if err := h.over.Commit(); err != nil {
					b.Fatal(err)
				}
				if hold, err := h.first(&h.holds); hold != 0 || err != nil {
					b.Fatal(hold, err)
				}
				if at, err := h.first(&h.rests); at < due || err != nil {
					b.Fatal(at, err)
				}
				n = len(got) - 1
			}
			b.ReportMetric(float64(heap())/(1<<20), "heap-MB")
			if err := h.close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
