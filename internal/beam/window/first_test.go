package window

import (
	"testing"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
)

func strategyOf(t interface{ Fatal(...any) }, fn string, payload proto.Message) (*pipepb.WindowingStrategy, map[string]*pipepb.Coder) {
	b, err := proto.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	coders := map[string]*pipepb.Coder{"w": {Spec: &pipepb.FunctionSpec{Urn: urn.CoderIntervalWindow}}}
	return &pipepb.WindowingStrategy{WindowFn: &pipepb.FunctionSpec{Urn: fn, Payload: b}, WindowCoderId: "w"}, coders
}

// TestFirstIsTheFirstOfAll: of all windows that elements are put into, First's does not end before the time, and none that
// does not ends before it.
func TestFirstIsTheFirstOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, period := rapid.Int64Range(1, 30).Draw(t, "size"), rapid.Int64Range(1, 30).Draw(t, "period")
		offset, from := rapid.Int64Range(-50, 50).Draw(t, "offset"), rapid.Int64Range(-200, 200).Draw(t, "from")
		duration := func(ms int64) *durationpb.Duration { return durationpb.New(time.Duration(ms) * time.Millisecond) }
		ws, coders := strategyOf(t, urn.WindowFnSliding, &pipepb.SlidingWindowsPayload{
			Size: duration(size), Period: duration(period), Offset: timestamppb.New(time.UnixMilli(offset))})
		if rapid.Bool().Draw(t, "fixed") {
			period = size
			ws, coders = strategyOf(t, urn.WindowFnFixed, &pipepb.FixedWindowsPayload{Size: duration(size), Offset: timestamppb.New(time.UnixMilli(offset))})
		}
		b, ok := First(ws, coders, from)
		if !ok {
			t.Fatal("there is none")
		}
		got, _, err := DecodeInterval(b)
		if err != nil {
			t.Fatal(err)
		}
		var want Interval
		for n := int64(-400); ; n++ {
			if want = (Interval{offset + n*period, offset + n*period + size}); want.MaxTimestamp() >= from {
				break
			}
		}
		if got != want {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func TestFirstOfOthers(t *testing.T) {
	ws, coders := strategyOf(t, urn.WindowFnSessions, &pipepb.SessionWindowsPayload{GapSize: durationpb.New(10 * time.Millisecond)})
	if b, ok := First(ws, coders, 100); !ok || string(b) != string(AppendInterval(nil, Interval{91, 101})) {
		t.Errorf("sessions: %x, %v", b, ok)
	}
	for name, ws := range map[string]*pipepb.WindowingStrategy{
		"custom":     {WindowFn: &pipepb.FunctionSpec{Urn: "my:windows"}, WindowCoderId: "w"},
		"no size":    {WindowFn: &pipepb.FunctionSpec{Urn: urn.WindowFnFixed}, WindowCoderId: "w"},
		"own coder":  {WindowFn: ws.GetWindowFn(), WindowCoderId: "other"},
		"no payload": {WindowFn: &pipepb.FunctionSpec{Urn: urn.WindowFnFixed, Payload: []byte{0xff}}, WindowCoderId: "w"},
	} {
		if b, ok := First(ws, coders, 100); ok {
			t.Errorf("%s: %x", name, b)
		}
	}
	if b, ok := First(ws, coders, coder.MinTimestamp); ok {
		t.Errorf("before all time: %x", b)
	}
	global := &pipepb.WindowingStrategy{WindowFn: &pipepb.FunctionSpec{Urn: urn.WindowFnGlobal}}
	if b, ok := First(global, nil, 100); !ok || len(b) > 0 {
		t.Errorf("the global window: %x, %v", b, ok)
	}
}
