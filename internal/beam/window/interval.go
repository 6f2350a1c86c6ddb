package window

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"trestle/internal/beam/coder"
)

// Interval is a window from Start to End, in milliseconds since the epoch; End is the first instant behind it.
type Interval struct{ Start, End int64 }

// MaxTimestamp is the last millisecond of the window, within Beam's bounds of time.
func (w Interval) MaxTimestamp() int64 {
	if w.End == math.MinInt64 {
		return coder.MinTimestamp
	}
	return clip(w.End - 1)
}

// errSpan says that a window would begin before time can be told.
var errSpan = errors.New("window: the span is longer than time")

// DecodeInterval decodes the interval window at the start of b (beam:coder:interval_window:v1: the end, then the span
// as a varint) and returns its size. The error wraps io.ErrUnexpectedEOF when b ends within it.
func DecodeInterval(b []byte) (Interval, int, error) {
	if len(b) <= coder.TimestampSize {
		return Interval{}, 0, fmt.Errorf("interval window of %d bytes: %w", len(b), io.ErrUnexpectedEOF)
	}
	end := coder.Timestamp(b)
	span, n := binary.Uvarint(b[coder.TimestampSize:])
	switch {
	case n == 0:
		return Interval{}, 0, fmt.Errorf("interval window of %d bytes: %w", len(b), io.ErrUnexpectedEOF)
	case n < 0 || span > math.MaxInt64 || end < math.MinInt64+int64(span):
		return Interval{}, 0, errSpan
	}
	return Interval{Start: end - int64(span), End: end}, coder.TimestampSize + n, nil
}

// AppendInterval appends the encoding of w, whose End is not before its Start.
func AppendInterval(dst []byte, w Interval) []byte {
	return binary.AppendUvarint(coder.AppendTimestamp(dst, w.End), uint64(w.End-w.Start))
}

// Merge merges intervals as sessions do: those that overlap become one; those that only touch stay apart. It returns
// the merged windows by time, and for each window of in the index of the one that it went to. in may be in any order
// and is left as it is.
func Merge(in []Interval) (merged []Interval, into []int) {
	order := make([]int, len(in))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(in[i].Start, in[j].Start), cmp.Compare(in[i].End, in[j].End))
	})
	into = make([]int, len(in))
	for _, i := range order {
		w, last := in[i], len(merged)-1
		if last >= 0 && (w.Start < merged[last].End || w == merged[last]) {
			merged[last].End = max(merged[last].End, w.End)
		} else {
			merged = append(merged, w)
			last++
		}
		into[i] = last
	}
	return merged, into
}
