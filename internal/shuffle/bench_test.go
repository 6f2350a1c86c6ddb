package shuffle

import (
	"encoding/binary"
	"flag"
	"fmt"
	"syscall"
	"testing"
	"time"

	"trestle/internal/beam/coder"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// The hot path's report used five million records; that takes a gigabyte and some seconds.
var benchRecords = flag.Int("shuffle.records", 500_000, "records of 100 bytes that the grouping benchmarks group")

func windowedKV(t testing.TB, window string) *coder.Windowed {
	c := func(urn string, comps ...string) *pipepb.Coder {
		return &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: "beam:coder:" + urn + ":v1"}, ComponentCoderIds: comps}
	}
	w, err := coder.CompileWindowed(map[string]*pipepb.Coder{
		"bytes": c("bytes"), "varint": c("varint"), "global": c("global_window"), "interval": c("interval_window"),
		"kv": c("kv", "bytes", "bytes"), "wv": c("windowed_value", "kv", window),
		"plain": c("windowed_value", "varint", window),
	}, "wv")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

type xorshift uint64

func (x *xorshift) next() uint64 {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return uint64(*x)
}

// sdkOutput calls f with messages of about size bytes, as an SDK writes them, until there were n records.
func sdkOutput(n, keys, size int, f func(data []byte)) {
	rnd := xorshift(88172645463325252)
	pool := make([]byte, 1<<20)
	for i := 0; i < len(pool); i += 8 {
		binary.LittleEndian.PutUint64(pool[i:], rnd.next())
	}
	data := make([]byte, 0, size+256)
	for i := range n {
		r := rnd.next()
		data = coder.AppendHeader(data, int64(i), nil, coder.PaneInfo{})
		data = append(data, 8)
		data = binary.LittleEndian.AppendUint64(data, r%uint64(keys)*0x9e3779b97f4a7c15)
		data = append(data, 100)
		o := r >> 40 % (1<<20 - 100)
		data = append(data, pool[o:o+100]...)
		if len(data) >= size || i == n-1 {
			f(data)
			data = data[:0]
		}
	}
}

// perRecord reports what a benchmark of n records took since start, which cpu returned; on a busy machine, the CPU time
// is the one to trust.
func perRecord(b *testing.B, n int, start time.Duration) {
	took := cpu() - start
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/record")
	b.ReportMetric(float64(took.Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/record")
}

// cpu is the CPU time that the process has taken.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkPartition(b *testing.B) {
	const n = 16_000
	w := windowedKV(b, "global")
	for _, size := range []int{32 << 10, 1 << 20} {
		var messages [][]byte
		sdkOutput(n, 100_000, size, func(data []byte) { messages = append(messages, append([]byte(nil), data...)) })
		for _, groups := range []int{1, 128, 1024, 32768} {
			b.Run(fmt.Sprintf("message=%dK/groups=%d", size>>10, groups), func(b *testing.B) {
				p, err := NewPartitioner(w, groups, func(int, []byte) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				start := cpu()
				for b.Loop() {
					for _, m := range messages {
						if err := p.Write(m); err != nil {
							b.Fatal(err)
						}
					}
					if err := p.Flush(); err != nil {
						b.Fatal(err)
					}
				}
				perRecord(b, n, start)
			})
		}
	}
}

// BenchmarkGroup measures adding and iterating, without the making of the blocks.
func BenchmarkGroup(b *testing.B) {
	n := *benchRecords
	const groups = 128
	type block struct {
		group int
		data  []byte
	}
	for _, keys := range []int{100_000, 1} {
		var blocks []block
		p, err := NewPartitioner(windowedKV(b, "global"), groups, func(g int, data []byte) error {
			blocks = append(blocks, block{g, append([]byte(nil), data...)})
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		sdkOutput(n, keys, 1<<20, func(data []byte) {
			if err := p.Write(data); err != nil {
				b.Fatal(err)
			}
		})
		if err := p.Flush(); err != nil {
			b.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			budget int64
		}{{"memory", 1 << 40}, {"spilling", int64(n) * 54}, {"scarce", int64(n) * 13}} {
			b.Run(fmt.Sprintf("keys=%d/%s", keys, c.name), func(b *testing.B) {
				budget := NewBudget(c.budget)
				s := NewStore(b.TempDir(), budget)
				start := cpu()
				for b.Loop() {
					g := s.NewGrouper(groups)
					for _, bl := range blocks {
						if err := g.Add(0, bl.group, bl.data); err != nil {
							b.Fatal(err)
						}
					}
					gs, err := g.Seal()
					if err != nil {
						b.Fatal(err)
					}
					if got := consume(b, gs); got != n {
						b.Fatalf("got %d values of %d", got, n)
					}
					if err := g.Close(); err != nil {
						b.Fatal(err)
					}
				}
				perRecord(b, n, start)
				b.ReportMetric(float64(s.Spilled())/float64(b.N)/1e6, "spilledMB")
				b.ReportMetric(float64(budget.peak.Load())/1e6, "peakMB")
			})
		}
	}
}

// consume copies the values out, as a task does that sends them on.
func consume(b *testing.B, gs *Groups) (n int) {
	out := make([]byte, 0, 1<<20)
	for {
		ok, err := gs.Next()
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			return n
		}
		for {
			v, _, ok, err := gs.NextValue()
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				break
			}
			if len(out)+len(v) > cap(out) {
				out = out[:0]
			}
			out = append(out, v...)
			n++
		}
	}
}

// BenchmarkLookup looks up keys of one value of 100 bytes in a table of 100 000.
func BenchmarkLookup(b *testing.B) {
	for name, budget := range map[string]int64{"memory": 1 << 30, "disk": 0} {
		b.Run(name, func(b *testing.B) {
			const keys = 100_000
			s := newTestStore(b, budget, defaultTuning)
			g := s.NewGrouper(128)
			key := func(i int) []byte { return fmt.Appendf(nil, "key %d", i) }
			for i := range keys {
				if err := g.Add(0, KeyGroup(key(i), 128), appendEntry(nil, key(i), nil, 0, make([]byte, 100))); err != nil {
					b.Fatal(err)
				}
			}
			gs, err := g.Seal()
			if err != nil {
				b.Fatal(err)
			}
			t, err := s.BuildTable(gs)
			if err != nil {
				b.Fatal(err)
			}
			rnd := xorshift(1)
			for b.Loop() {
				if data, _, err := t.Lookup(key(int(rnd.next()%keys)), nil, 0, 1<<20); err != nil || len(data) != 100 {
					b.Fatal(len(data), err)
				}
			}
		})
	}
}

// BenchmarkSpool puts and gets blocks of 32 KiB.
func BenchmarkSpool(b *testing.B) {
	for name, budget := range map[string]int64{"memory": 1 << 30, "disk": 0} {
		b.Run(name, func(b *testing.B) {
			q := newTestStore(b, budget, defaultTuning).NewSpool()
			block := make([]byte, 32<<10)
			rnd := xorshift(1)
			for i := 0; i < len(block); i += 8 {
				binary.LittleEndian.PutUint64(block[i:], rnd.next())
			}
			const ahead = 256 // 8 MiB
			for range ahead {
				if err := q.Put(ctx, 0, block); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				if err := q.Put(ctx, 0, block); err != nil {
					b.Fatal(err)
				}
				if _, err := q.Get(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
