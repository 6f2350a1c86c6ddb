package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/state"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/timers"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

// The event time of record i is i milliseconds after the epoch: a key's records are keys milliseconds apart in the mean.
const (
	// gap makes sessions of seven records in the mean where there are 10 000 keys.
	gap = 20 * time.Second
	// delay is from a record's time to that of the timer that it sets.
	delay = 10 * time.Second
	// Of sliding windows: each record is in four.
	slidingSize, slidingPeriod = time.Minute, 15 * time.Second
	overlap                    = int64(slidingSize / slidingPeriod)
)

// buildModel adds a shape that needs more of the model than grouping: state, timers, windows that overlap or merge. None is
// one that it does not know.
func (sh shape) buildModel(s beam.Scope) (arrive int64, known bool) {
	switch sh.name {
	case "stateful": // a value per key: a read and a write for each record
		beam.ParDo0(s, &countingFn{Count: state.MakeValueState[int64]("count")}, sh.timed(s))
	case "bag": // a bag per key, which is only added to
		beam.ParDo0(s, &baggingFn{Bag: state.MakeBagState[[]byte]("bag")}, sh.timed(s))
	case "wide": // a value of the record's size per key: each record reads it and writes another
		beam.ParDo0(s, &replacingFn{Value: state.MakeValueState[[]byte]("value")}, sh.timed(s))
	case "timers": // a timer for each record
		beam.ParDo0(s, &timingFn{Due: timers.InEventTime("due"), Tagged: true}, sh.timed(s))
		return 2 * sh.records, true
	case "retimers": // a timer per key, which each record sets anew
		beam.ParDo0(s, &timingFn{Due: timers.InEventTime("due")}, sh.timed(s))
	case "sessions":
		windowed := beam.WindowInto(s, window.NewSessions(gap), sh.timed(s))
		beam.ParDo0(s, &groupSink{}, beam.GroupByKey(s, windowed))
	case "sliding":
		windowed := beam.WindowInto(s, window.NewSlidingWindows(slidingPeriod, slidingSize), sh.timed(s))
		beam.ParDo0(s, &groupSink{}, beam.GroupByKey(s, windowed))
		return overlap * sh.records, true
	case "latency":
		return sh.buildLatency(s, false), true
	case "latency-count":
		return sh.buildLatency(s, true), true
	default:
		return 0, false
	}
	return sh.records, true
}

// timed is the source of records with event times: bounded, or in a stream an unbounded one that comes to an end.
func (sh shape) timed(s beam.Scope) beam.PCollection {
	parts := sh.parts(s)
	g := generate{Keys: sh.keys, Bytes: sh.bytes}
	if sh.stream {
		return beam.ParDo(s, &streamFn{G: g}, parts)
	}
	return beam.ParDo(s, &timedFn{G: g}, parts)
}

func init() {
	register.DoFn3x0[int64, int64, func(beam.EventTime, int64, []byte)](&timedFn{})
	// Not with the generics of package register, for each of which the compiler needs up to a minute and 2 GB: a call costs
	// a microsecond more, with each runner.
	beam.RegisterDoFn(&countingFn{})
	beam.RegisterDoFn(&baggingFn{})
	beam.RegisterDoFn(&replacingFn{})
	beam.RegisterDoFn(&timingFn{})
	register.Emitter3[beam.EventTime, int64, []byte]()
}

// timedFn makes the records of a range, with event times.
type timedFn struct{ G generate }

// Setup fills the pool.
func (f *timedFn) Setup() { f.G.Setup() }

// ProcessElement emits the records from first up to end.
func (f *timedFn) ProcessElement(first, end int64, emit func(beam.EventTime, int64, []byte)) {
	for i := first; i < end; i++ {
		key, value := f.G.record(i)
		emit(mtime.Time(i), key, value)
	}
}

// countingFn counts the records of each key in a value.
type countingFn struct {
	Count state.Value[int64]

	tally tally
}

// ProcessElement counts a record.
func (f *countingFn) ProcessElement(p state.Provider, _ int64, _ []byte) error {
	n, _, err := f.Count.Read(p)
	if err != nil {
		return err
	}
	f.tally.n++
	return f.Count.Write(p, n+1)
}

// FinishBundle adds to the counter.
func (f *countingFn) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }

// baggingFn keeps all values of each key.
type baggingFn struct {
	Bag state.Bag[[]byte]

	tally tally
}

// ProcessElement keeps a record's value.
func (f *baggingFn) ProcessElement(p state.Provider, _ int64, value []byte) error {
	f.tally.n++
	return f.Bag.Add(p, value)
}

// FinishBundle adds to the counter.
func (f *baggingFn) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }

// replacingFn keeps the last value of each key.
type replacingFn struct {
	Value state.Value[[]byte]

	tally tally
}

// ProcessElement takes a record's value in place of the one before, which is of the same size.
func (f *replacingFn) ProcessElement(p state.Provider, key int64, value []byte) error {
	before, ok, err := f.Value.Read(p)
	if err != nil {
		return err
	}
	if ok && len(before) != len(value) {
		return fmt.Errorf("key %d has a value of %d bytes, want %d", key, len(before), len(value))
	}
	f.tally.n++
	return f.Value.Write(p, value)
}

// FinishBundle adds to the counter.
func (f *replacingFn) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }

// timingFn sets a timer for each record, or one for each key again and again.
type timingFn struct {
	Due    timers.EventTime
	Tagged bool

	tally tally
}

// ProcessElement sets a timer.
func (f *timingFn) ProcessElement(at beam.EventTime, p timers.Provider, _ int64, _ []byte) {
	f.tally.n++
	due := at.ToTime().Add(delay)
	if f.Tagged {
		f.Due.Set(p, due, timers.WithTag(strconv.FormatInt(int64(at), 36)))
	} else {
		f.Due.Set(p, due)
	}
}

// OnTimer counts a timer of a record; how often one that is set again and again fires depends on when the watermark moves.
func (f *timingFn) OnTimer(_ beam.EventTime, _ timers.Provider, _ int64, _ timers.Context) {
	if f.Tagged {
		f.tally.n++
	}
}

// FinishBundle adds to the counter.
func (f *timingFn) FinishBundle(ctx context.Context) { f.tally.finish(ctx) }
