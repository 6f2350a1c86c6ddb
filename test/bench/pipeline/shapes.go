package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

// shape is a pipeline to be built.
type shape struct {
	name          string
	records, keys int64
	bytes, shards int
	rate          int64 // events a second, of the shape latency
	stream        bool  // of the shapes in model.go: the source is an unbounded one
}

// chained is how many DoFns the chain has.
const chained = 20

// build adds the pipeline to s, and returns how many records are to arrive at its end.
func (sh shape) build(s beam.Scope) (arrive int64, err error) {
	if sh.records < 1 || sh.keys < 1 || sh.shards < 1 || sh.rate < 1 || sh.bytes < 0 || sh.bytes > poolBytes {
		return 0, fmt.Errorf("records, keys, shards and rate must be positive, and bytes from 0 to %d", poolBytes)
	}
	switch sh.name {
	case "floor": // the source and nothing else: what no runner can save
		beam.ParDo0(s, &sink{}, sh.source(s))
	case "chain": // fused behind the source
		col := sh.source(s)
		for range chained {
			col = beam.ParDo(s, identity, col)
		}
		beam.ParDo0(s, &sink{}, col)
	case "gbk": // each group's values are read once
		beam.ParDo0(s, &groupSink{}, beam.GroupByKey(s, sh.source(s)))
	case "gbk2": // and twice: by two DoFns, since one DoFn of the Go SDK can iterate a group once only
		groups := beam.GroupByKey(s, sh.source(s))
		beam.ParDo0(s, &groupSink{}, groups)
		beam.ParDo0(s, &groupSink{}, groups)
		return 2 * sh.records, nil
	case "combine":
		ones := beam.ParDo(s, one, sh.source(s))
		beam.ParDo0(s, &sumSink{}, beam.CombinePerKey(s, add, ones))
	case "side": // a side input that is read once
		values := beam.DropKey(s, sh.source(s))
		beam.ParDo0(s, &sideSink{}, beam.Impulse(s), beam.SideInput{Input: values})
	case "tiny":
		doubled := beam.ParDo(s, double, beam.Create(s, int64(1), int64(2), int64(3)))
		beam.ParDo0(s, &tinySink{}, doubled)
		return 3, nil
	default:
		arrive, known := sh.buildModel(s)
		if !known {
			return 0, fmt.Errorf("no shape is called %q", sh.name)
		}
		return arrive, nil
	}
	return sh.records, nil
}

// source makes the records: KV<int64, []byte>, the keys in random order.
func (sh shape) source(s beam.Scope) beam.PCollection {
	return beam.ParDo(s, &generate{Keys: sh.keys, Bytes: sh.bytes}, sh.parts(s))
}

// parts are the ranges of the records' numbers.
func (sh shape) parts(s beam.Scope) beam.PCollection {
	parts := beam.ParDo(s, &split{Shards: int64(sh.shards), Records: sh.records}, beam.Impulse(s))
	if sh.shards > 1 {
		parts = beam.Reshuffle(s, parts)
	}
	return parts
}

func init() {
	register.DoFn2x0[[]byte, func(int64, int64)](&split{})
	register.DoFn3x0[int64, int64, func(int64, []byte)](&generate{})
	register.DoFn2x0[int64, []byte](&sink{})
	register.DoFn2x0[int64, func(*[]byte) bool](&groupSink{})
	register.DoFn2x0[int64, int64](&sumSink{})
	register.DoFn3x0[context.Context, []byte, func(*[]byte) bool](&sideSink{})
	beam.RegisterDoFn(&tinySink{})
	register.Function2x2(identity)
	register.Function2x2(one)
	register.Function2x1(add)
	register.Function1x1(double)
	register.Emitter2[int64, int64]()
	register.Emitter2[int64, []byte]()
	register.Iter1[[]byte]()
}

// split cuts the numbers of the records into ranges.
type split struct{ Shards, Records int64 }

// ProcessElement emits the ranges, each by its first number and the one after its last.
func (f *split) ProcessElement(_ []byte, emit func(first, end int64)) {
	for i := range f.Shards {
		emit(f.Records*i/f.Shards, f.Records*(i+1)/f.Shards)
	}
}

// poolBytes is how many random bytes values are cut from: more than a compressor looks back, so that values are as
// incompressible as they seem.
const poolBytes = 4 << 20

// generate makes the records of a range. It allocates nothing per record: a source as cheap as the SDK allows.
type generate struct {
	Keys  int64
	Bytes int

	pool []byte
}

// Setup fills the pool, with the same bytes each time.
func (f *generate) Setup() {
	f.pool = make([]byte, poolBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(f.pool) // it never fails
}

// ProcessElement emits the records from first up to end.
func (f *generate) ProcessElement(first, end int64, emit func(int64, []byte)) {
	for i := first; i < end; i++ {
		emit(f.record(i))
	}
}

// record is a record by its number.
func (f *generate) record(i int64) (key int64, value []byte) {
	x := scatter(uint64(i))
	at := x % uint64(poolBytes-f.Bytes+1)
	return int64((x >> 1) % uint64(f.Keys)), f.pool[at : at+uint64(f.Bytes)]
}

// scatter is the mixing step of SplitMix64.
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func identity(key int64, value []byte) (int64, []byte) { return key, value }

func one(key int64, _ []byte) (int64, int64) { return key, 1 }

func add(a, b int64) int64 { return a + b }

func double(n int64) int64 { return 2 * n }

const arrivedName = "arrived"

// tally counts records, and adds them to the job's counter once a bundle.
type tally struct{ n int64 }

func (t *tally) finish(ctx context.Context) {
	beam.NewCounter("bench", arrivedName).Inc(ctx, t.n)
	t.n = 0
}

func (t *tally) all(values func(*[]byte) bool) {
	var value []byte
	for values(&value) {
		t.n++
	}
}

// sink takes records.
type sink struct{ tally tally }

// ProcessElement counts a record.
func (f *sink) ProcessElement(int64, []byte) { f.tally.n++ }

// FinishBundle adds to the counter.
func (f *sink) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }

// groupSink reads each group once.
type groupSink struct{ tally tally }

// ProcessElement counts a group's values.
func (f *groupSink) ProcessElement(_ int64, values func(*[]byte) bool) { f.tally.all(values) }

// FinishBundle adds to the counter.
func (f *groupSink) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }

// sumSink takes sums of ones.
type sumSink struct{ tally tally }

// ProcessElement counts the records behind a sum.
func (f *sumSink) ProcessElement(_, sum int64) { f.tally.n += sum }

// FinishBundle adds to the counter.
func (f *sumSink) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }

// sideSink reads its side input once.
type sideSink struct{}

// ProcessElement counts the side input's values.
func (f *sideSink) ProcessElement(ctx context.Context, _ []byte, values func(*[]byte) bool) {
	var t tally
	t.all(values)
	t.finish(ctx)
}

// tinySink takes numbers.
type tinySink struct{ tally tally }

// ProcessElement counts a number.
func (f *tinySink) ProcessElement(int64) { f.tally.n++ }

// FinishBundle adds to the counter.
func (f *tinySink) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }
