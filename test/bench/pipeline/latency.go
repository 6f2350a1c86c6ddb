package main

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

// Latency is how long results were on their way, in milliseconds. It is measured inside of the pipeline, which works with
// one clock only when its worker is this process: LOOPBACK.
type Latency struct {
	Results int     `json:"results"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// latencies are those of all results after the warm-up, which all instances of the sink in this process add to.
var latencies struct {
	sync.Mutex
	nanos []int64
}

func addLatencies(nanos []int64) {
	latencies.Lock()
	defer latencies.Unlock()
	latencies.nanos = append(latencies.nanos, nanos...)
}

// takeLatency sums up what was added; nil when nothing was.
func takeLatency() *Latency {
	latencies.Lock()
	defer latencies.Unlock()
	all := latencies.nanos
	latencies.nanos = nil
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	at := func(share float64) float64 { return float64(all[int(share*float64(len(all)-1))]) / 1e6 }
	return &Latency{Results: len(all), P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// warmup is how long results are not counted: connections, code and caches are cold.
const warmup = 3 * time.Second

// buildLatency adds a pipeline that counts the events of each key in windows of a second: combined, as a count is written in
// Beam, or by user code that is given all events of a group. The events come at a rate, as
// they happen: event time is the time at which they are made. A result's latency is from the end of its window, the first
// moment at which it can be known, until it is in the hands of user code.
func (sh shape) buildLatency(s beam.Scope, combined bool) (arrive int64) {
	seconds := float64(sh.records) / float64(sh.rate)
	begin := time.Now().Add(time.Second)
	events := beam.ParDo(s, &paceFn{
		G: generate{Keys: sh.keys, Bytes: max(sh.bytes, 8)}, Begin: begin.UnixNano(), Nanos: int64(seconds * 1e9 / float64(sh.records)),
	}, sh.parts(s))
	windowed := beam.WindowInto(s, window.NewFixedWindows(time.Second), events)
	from := begin.Add(warmup).UnixNano()
	if combined {
		beam.ParDo0(s, &countSink{From: from}, beam.CombinePerKey(s, add, beam.ParDo(s, one, windowed)))
	} else {
		beam.ParDo0(s, &latencySink{From: from}, beam.GroupByKey(s, windowed))
	}
	return sh.records
}

func init() {
	beam.RegisterDoFn(&paceFn{}) // see streamFn
	register.DoFn3x0[beam.EventTime, int64, func(*[]byte) bool](&latencySink{})
	beam.RegisterDoFn(&countSink{})
}

// paceFn makes the events of a range, each when its time has come: event i, i × Nanos after Begin.
type paceFn struct {
	wholeRange
	G            generate
	Begin, Nanos int64
}

// poll is how often it looks what has happened, like a source that polls.
const poll = 2 * time.Millisecond

// Setup fills the pool.
func (f *paceFn) Setup() { f.G.Setup() }

// ProcessElement emits what has happened since it looked last.
func (f *paceFn) ProcessElement(w *sdf.ManualWatermarkEstimator, t *sdf.LockRTracker, _, _ int64, emit func(beam.EventTime, int64, []byte)) sdf.ProcessContinuation {
	i := t.GetRestriction().(offsetrange.Restriction).Start
	now := time.Now()
	for ; f.Begin+i*f.Nanos <= now.UnixNano(); i++ {
		if !t.TryClaim(i) {
			return sdf.StopProcessing()
		}
		key, value := f.G.record(i)
		value = slices.Clone(value)
		binary.BigEndian.PutUint64(value, uint64(now.UnixNano()))
		emit(mtime.FromTime(now), key, value)
	}
	w.UpdateWatermark(now)
	return sdf.ResumeProcessingIn(poll)
}

// latencySink takes the groups of windows.
type latencySink struct {
	From int64

	tally tally
	nanos []int64
}

// came notes the latency of a result, whose event time is the last millisecond of its window.
func (f *latencySink) came(at beam.EventTime) {
	end := at.ToTime().Add(time.Millisecond)
	if now := time.Now(); now.UnixNano() >= f.From {
		f.nanos = append(f.nanos, now.Sub(end).Nanoseconds())
	}
}

// ProcessElement counts a group's events.
func (f *latencySink) ProcessElement(at beam.EventTime, _ int64, values func(*[]byte) bool) {
	f.tally.all(values)
	f.came(at)
}

// FinishBundle adds to the counter, and to the latencies.
func (f *latencySink) FinishBundle(ctx context.Context) {
	f.tally.finish(ctx)
	addLatencies(f.nanos)
	f.nanos = f.nanos[:0]
}

// countSink takes the counts of windows.
type countSink struct {
	From int64

	sink latencySink
}

// Setup tells the sink from when on results count.
func (f *countSink) Setup() { f.sink.From = f.From }

// ProcessElement takes a count.
func (f *countSink) ProcessElement(at beam.EventTime, _, count int64) {
	f.sink.tally.n += count
	f.sink.came(at)
}

// FinishBundle adds to the counter, and to the latencies.
func (f *countSink) FinishBundle(ctx context.Context) { f.sink.FinishBundle(ctx) }
