package window

import (
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
)

// First returns the encoding of the window that ends first among those that elements may be put into and that do not end before
// a time, in milliseconds. ok is false where the runner does not know the window function, or its windows are not intervals as
// standard_window_fns.proto has them. Sessions are meant before they merge.
func First(ws *pipepb.WindowingStrategy, coders map[string]*pipepb.Coder, from int64) (w []byte, ok bool) {
	fn := ws.GetWindowFn()
	if fn.GetUrn() == urn.WindowFnGlobal {
		return Global, true
	}
	if coders[ws.GetWindowCoderId()].GetSpec().GetUrn() != urn.CoderIntervalWindow {
		return nil, false
	}
	var i Interval
	switch fn.GetUrn() {
	case urn.WindowFnFixed:
		var p pipepb.FixedWindowsPayload
		if proto.Unmarshal(fn.GetPayload(), &p) != nil {
			return nil, false
		}
		size := millis(p.GetSize())
		if size <= 0 {
			return nil, false
		}
		i.Start = aligned(from, size, p.GetOffset().AsTime().UnixMilli())
		i.End = i.Start + size
	case urn.WindowFnSliding:
		var p pipepb.SlidingWindowsPayload
		if proto.Unmarshal(fn.GetPayload(), &p) != nil {
			return nil, false
		}
		size, period := millis(p.GetSize()), millis(p.GetPeriod())
		if size <= 0 || period <= 0 {
			return nil, false
		}
		i.Start = aligned(from-size, period, p.GetOffset().AsTime().UnixMilli()) + period
		i.End = i.Start + size
	case urn.WindowFnSessions:
		var p pipepb.SessionWindowsPayload
		if proto.Unmarshal(fn.GetPayload(), &p) != nil {
			return nil, false
		}
		gap := millis(p.GetGapSize())
		if gap <= 0 {
			return nil, false
		}
		i = Interval{Start: from + 1 - gap, End: from + 1}
	default:
		return nil, false
	}
	if i.Start < coder.MinTimestamp || i.End > coder.MaxTimestamp || i.Start > i.End {
		return nil, false
	}
	return AppendInterval(nil, i), true
}

func millis(d interface{ AsDuration() time.Duration }) int64 { return d.AsDuration().Milliseconds() }

// aligned is the last multiple of a period, and an offset, that is not later than t.
func aligned(t, period, offset int64) int64 {
	past := (t - offset) % period
	if past < 0 {
		past += period
	}
	return t - past
}
