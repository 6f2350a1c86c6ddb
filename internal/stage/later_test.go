package stage

import (
	"slices"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
)

// What a bundle did not come to is first next time, before what it worked at, and holds what it held: of two restrictions, one that
// takes long each time keeps neither the other nor the watermark from getting on.
func TestWhatWasNotComeToIsFirstNextTime(t *testing.T) {
	quiet, other, fresh := []byte("quiet"), []byte("other"), []byte("fresh")
	b := &bundles{
		spec:  Spec{Stage: &plan.Stage{Input: plan.Input{Splittable: true}}},
		later: &later{endless: true, running: []putOff{{record: quiet, hold: 5, unbounded: true}, {record: other, hold: 7, unbounded: true}}},
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
	for _, p := range b.later.fresh {
		got = append(got, part{string(p.record), p.hold, p.unbounded})
	}
	want := []part{{"other", 7, true}, {"fresh", coder.MinTimestamp, true}, {"rest of quiet", 9000, true}}
	if !slices.Equal(got, want) {
		t.Errorf("put off: %v, want %v", got, want)
	}
	if b.later.running != nil || b.later.split != nil {
		t.Error("the bundle that has ended is still known")
	}
}
