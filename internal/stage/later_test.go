package stage

import (
	"math"
	"slices"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
	"trestle/internal/store/kv"
)

// What a bundle did not come to is first next time, before what it worked at, and holds what it held: of two restrictions, one that
// takes long each time keeps neither the other nor the watermark from getting on.
func TestWhatWasNotComeToIsFirstNextTime(t *testing.T) {
	quiet, other, fresh := []byte("quiet"), []byte("other"), []byte("fresh")
	cache := kv.NewCache(1 << 20)
	defer cache.Close()
	shelf := openShelf(t, t.TempDir(), cache, 0, 1)
	defer func() {
		if err := shelf.close(); err != nil {
			t.Error(err)
		}
	}()
	b := &bundles{
		spec: Spec{Stage: &plan.Stage{Input: plan.Input{Splittable: true}}},
		later: &later{
			shelf: shelf, endless: true, most: leastResumed,
			running: resumedOf([]putOff{{record: quiet, hold: 5, unbounded: true}, {record: other, hold: 7, unbounded: true}}),
		},
	}
	b.later.split = []putOff{b.later.untouched(other), b.later.untouched(fresh)}
	rest := &fnpb.DelayedBundleApplication{Application: &fnpb.BundleApplication{
		Element: []byte("rest of quiet"), IsBounded: pipepb.IsBounded_UNBOUNDED,
		OutputWatermarks: map[string]*timestamppb.Timestamp{"out": {Seconds: 9}},
	}}
	if err := b.takeBack([]*fnpb.DelayedBundleApplication{rest}); err != nil {
		t.Fatal(err)
	}
	type part struct {
		record    string
		hold      int64
		unbounded bool
	}
	var got []part
	parts, err := shelf.take(&shelf.rests, never, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		got = append(got, part{string(p.record), p.hold, p.unbounded})
	}
	want := []part{{"other", 7, true}, {"fresh", coder.MinTimestamp, true}, {"rest of quiet", 9000, true}}
	if !slices.Equal(got, want) {
		t.Errorf("put off: %v, want %v", got, want)
	}
	if b.later.running.count != 0 || b.later.split != nil {
		t.Error("the bundle that has ended is still known")
	}
}

// A delay counts to the nanosecond, from when it was asked for; what an int64 of nanoseconds does not hold is the last that it does.
func TestDueIn(t *testing.T) {
	at := time.Unix(1_800_000_000, 999_999_999)
	late := time.Unix(1<<40, 0)
	for _, c := range []struct {
		now            time.Time
		seconds, nanos int64
		want           int64
	}{
		{at, 0, 0, at.UnixNano()},
		{at, 0, 1, at.UnixNano() + 1},
		{at, 3600, 5, at.UnixNano() + 3_600_000_000_005},
		{at, -1, 0, at.UnixNano()},
		{at, 0, -1, at.UnixNano()},
		{at, math.MinInt64, math.MinInt32, at.UnixNano()},
		{at, 2, -500_000_000, at.UnixNano() + 1_500_000_000},
		{at, 0, math.MaxInt32, at.UnixNano() + math.MaxInt32},
		{at, 315_576_000_000, 999_999_999, math.MaxInt64}, // 10,000 years
		{at, math.MaxInt64, math.MaxInt32, math.MaxInt64},
		{late, 0, 0, math.MaxInt64},
		{late, 1, 0, math.MaxInt64},
		{time.Unix(-1<<40, 0), 1, 0, math.MinInt64 + 1_000_000_000},
		{time.Time{}, math.MaxInt64, 0, -1},
	} {
		if got := dueIn(c.now, &durationpb.Duration{Seconds: c.seconds, Nanos: int32(c.nanos)}); got != c.want {
			t.Errorf("%v and %d s %d ns: %d, want %d", c.now, c.seconds, c.nanos, got, c.want)
		}
	}
	if got := dueIn(at, nil); got != at.UnixNano() {
		t.Errorf("no delay: %d", got)
	}
}

// The watermark that an SDK says is a lower bound, in Beam's bounds of time.
func TestMillis(t *testing.T) {
	for _, c := range []struct{ seconds, nanos, want int64 }{
		{0, 0, 0}, {1, 999_999, 1000}, {1, 1_000_000, 1001}, {0, -1, -1}, {-1, 999_999_999, -1},
		{math.MaxInt64, math.MaxInt32, coder.MaxTimestamp}, {math.MinInt64, math.MinInt32, coder.MinTimestamp},
		{coder.MaxTimestamp / 1000, 775_000_000, coder.MaxTimestamp}, {coder.MinTimestamp / 1000, -775_000_000, coder.MinTimestamp},
	} {
		if got := millis(&timestamppb.Timestamp{Seconds: c.seconds, Nanos: int32(c.nanos)}); got != c.want {
			t.Errorf("%d s %d ns: %d, want %d", c.seconds, c.nanos, got, c.want)
		}
	}
}
