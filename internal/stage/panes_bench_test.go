package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"testing"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// sink is a runner that counts the bytes of elements.
type sink struct{ bytes int }

func (s *sink) process(_ context.Context, records []byte) error { s.bytes += len(records); return nil }
func (s *sink) cut(context.Context) error                       { return nil }
func (s *sink) busy() bool                                      { return false }
func (s *sink) finish(context.Context) error                    { return nil }
func (s *sink) abandon() error                                  { return nil }

// BenchmarkPanes groups 200,000 values of 100 bytes, of 10,000 keys in windows that each get ten of a key's, in a stream:
// what a task does for one besides the SDK's work.
func BenchmarkPanes(b *testing.B) {
	const values, keys = 200_000, 10_000
	for name, trigger := range map[string]string{
		"on time": "fn=fixed", "each": "fn=fixed trigger=Always", "sessions": "fn=sessions",
		"early and accumulating": "fn=fixed mode=accumulating trigger=AfterEndOfWindow(early=ElementCount(5))",
	} {
		b.Run(name, func(b *testing.B) {
			pipeline, err := plantest.Parse(`
env other
window w ` + trigger + `
impulse start() > I
pardo source(I) > in:kv(bytes,bytes)@w~ env=other
gbk group(in) > grouped
pardo work(grouped) > out
`)
			if err != nil {
				b.Fatal(err)
			}
			p, err := plan.Build(pipeline, plan.Options{})
			if err != nil {
				b.Fatal(err)
			}
			blocks := paneBlocks(b, values, keys)
			for b.Loop() {
				b.StopTimer()
				var out sink
				in, done := benchPanes(b, p, &out, 256<<20)
				b.StartTimer()
				for _, round := range blocks {
					for g, block := range round.blocks {
						if len(block) == 0 {
							continue
						}
						if err := in.process(b.Context(), Delivery{KeyGroup: g}, block); err != nil {
							b.Fatal(err)
						}
					}
					if err := in.advance(b.Context(), times{input: round.until}); err != nil {
						b.Fatal(err)
					}
					*in.output = round.until
				}
				b.StopTimer()
				if out.bytes < 100*values {
					b.Fatalf("%d bytes went to the harness", out.bytes)
				}
				done()
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/values, "ns/value")
		})
	}
}

// benchPanes opens the intake of a task with an empty store, whose cache has so many bytes; done closes it.
func benchPanes(b *testing.B, p *plan.Plan, out runner, cached int64) (in *panes, done func()) {
	cache := kv.NewCache(cached)
	store := shuffle.NewStore(b.TempDir(), shuffle.NewBudget(1<<30))
	in, err := newPanes(Spec{
		Plan: p, Stage: p.Stages[1], Parallelism: 1, KeyGroups: 128, BundleBytes: DefaultBundleBytes, Log: slog.New(slog.DiscardHandler),
		Store: store, State: State{Directory: b.TempDir(), Cache: cache},
	}, out)
	if err != nil {
		b.Fatal(err)
	}
	told := coder.MinTimestamp
	in.output = &told
	return in, func() {
		if err := errors.Join(in.close(), store.Close()); err != nil {
			b.Fatal(err)
		}
		cache.Close()
	}
}

// round is what comes before a watermark.
type round struct {
	blocks [][]byte // by key group
	until  int64
}

func paneBlocks(b *testing.B, values, keys int) (rounds []round) {
	const size = 1000
	random := rand.New(rand.NewPCG(1, 2))
	for n := 0; n < values; {
		r := round{blocks: make([][]byte, 128), until: int64(len(rounds)+1) * size}
		partitioner, err := shuffle.NewPartitioner(benchRecords(b), 128, func(keyGroup int, block []byte) error {
			r.blocks[keyGroup] = append(bytes.Clone(r.blocks[keyGroup]), block...)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		start := r.until - size
		for range 10 * keys {
			var key [4]byte
			binary.BigEndian.PutUint32(key[:], uint32(random.IntN(keys)))
			record := coder.AppendHeader(nil, start+1, window.AppendInterval(nil, window.Interval{Start: start, End: r.until}), coder.NoFiring)
			record = append(append(append(record, 4), key[:]...), 100)
			if err := partitioner.Write(append(record, make([]byte, 100)...)); err != nil {
				b.Fatal(err)
			}
			n++
		}
		if err := partitioner.Flush(); err != nil {
			b.Fatal(err)
		}
		rounds = append(rounds, r)
	}
	return rounds
}

// BenchmarkLongKeys groups three values of one key in a stream, takes a snapshot and puts the group out: what that costs for each byte
// of the key, which is in every entry of the store.
func BenchmarkLongKeys(b *testing.B) {
	pipeline, err := plantest.Parse(`
env other
window w fn=fixed
impulse start() > I
pardo source(I) > in:kv(bytes,bytes)@w~ env=other
gbk group(in) > grouped
pardo work(grouped) > out
`)
	if err != nil {
		b.Fatal(err)
	}
	p, err := plan.Build(pipeline, plan.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1 << 10, 1 << 20, 16 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			record := coder.AppendHeader(nil, 1, window.AppendInterval(nil, window.Interval{Start: 0, End: 1000}), coder.NoFiring)
			record = append(append(binary.AppendUvarint(record, uint64(size)), make([]byte, size)...), 1, 'v')
			for b.Loop() {
				var out sink
				in, done := benchPanes(b, p, &out, 64<<20)
				partitioner, err := shuffle.NewPartitioner(benchRecords(b), 128, func(g int, block []byte) error {
					return in.process(b.Context(), Delivery{KeyGroup: g}, block)
				})
				for i := 0; i < 3 && err == nil; i++ {
					err = errors.Join(partitioner.Write(record), partitioner.Flush())
				}
				if err == nil {
					err = errors.Join(in.snapshot(b.TempDir()), in.advance(b.Context(), times{input: coder.MaxTimestamp}))
				}
				if err != nil {
					b.Fatal(err)
				}
				done()
				if out.bytes < size {
					b.Fatalf("%d bytes went to the harness", out.bytes)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/byte")
		})
	}
}
