package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/typex"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"

	"trestle/internal/server"
)

func init() {
	register.Function2x0(at)
	register.Function2x0(spread)
	register.Function5x1(describe)
	register.Function3x1(windowSum)
	register.Function3x1(count)
	register.Emitter3[beam.EventTime, string, int]()
	register.Emitter3[beam.EventTime, int, string]()
}

// at makes an element of a key at x seconds.
func at(x int, emit func(beam.EventTime, string, int)) {
	emit(mtime.FromMilliseconds(int64(x)*1000), "k", x)
}

// describe tells all that the model says of a group: its window, time, pane and values.
func describe(pane typex.PaneInfo, w beam.Window, t beam.EventTime, key string, values func(*int) bool) string {
	var all []int
	for v := 0; values(&v); {
		all = append(all, v)
	}
	slices.Sort(all)
	iw := w.(window.IntervalWindow)
	return fmt.Sprintf("%s in [%d, %d) at %d, timing %d %t %t: %v", key, iw.Start, iw.End, t.Milliseconds(), pane.Timing, pane.IsFirst, pane.IsLast, all)
}

func windowSum(w beam.Window, key string, sum int) string {
	iw := w.(window.IntervalWindow)
	return fmt.Sprintf("%s in [%d, %d): %d", key, iw.Start, iw.End, sum)
}

// TestWindows groups in windows of each kind that SDKs share.
func TestWindows(t *testing.T) {
	for _, c := range []struct {
		name   string
		fn     *window.Fn
		groups []any
		sums   []any
	}{
		{"fixed", window.NewFixedWindows(10 * time.Second), []any{
			"k in [0, 10000) at 9999, timing 1 true true: [0 3 9]",
			"k in [10000, 20000) at 19999, timing 1 true true: [14]",
			"k in [30000, 40000) at 39999, timing 1 true true: [31 35]",
		}, []any{"k in [0, 10000): 12", "k in [10000, 20000): 14", "k in [30000, 40000): 66"}},
		{"sliding", window.NewSlidingWindows(5*time.Second, 10*time.Second), []any{
			"k in [-5000, 5000) at 4999, timing 1 true true: [0 3]",
			"k in [0, 10000) at 9999, timing 1 true true: [0 3 9]",
			"k in [5000, 15000) at 14999, timing 1 true true: [9 14]",
			"k in [10000, 20000) at 19999, timing 1 true true: [14]",
			"k in [25000, 35000) at 34999, timing 1 true true: [31]",
			"k in [30000, 40000) at 39999, timing 1 true true: [31 35]",
			"k in [35000, 45000) at 44999, timing 1 true true: [35]",
		}, []any{
			"k in [-5000, 5000): 3", "k in [0, 10000): 12", "k in [5000, 15000): 23", "k in [10000, 20000): 14",
			"k in [25000, 35000): 31", "k in [30000, 40000): 66", "k in [35000, 45000): 35",
		}},
		{"sessions", window.NewSessions(5 * time.Second), []any{
			"k in [0, 8000) at 7999, timing 1 true true: [0 3]",
			"k in [9000, 14000) at 13999, timing 1 true true: [9]", // touches the next, and stays apart
			"k in [14000, 19000) at 18999, timing 1 true true: [14]",
			"k in [31000, 40000) at 39999, timing 1 true true: [31 35]",
		}, []any{"k in [0, 8000): 3", "k in [9000, 14000): 9", "k in [14000, 19000): 14", "k in [31000, 40000): 66"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, server.Config{})
			mustRun(t, s, func(s beam.Scope) {
				timed := beam.WindowInto(s, c.fn, beam.ParDo(s, at, beam.CreateList(s, []int{35, 0, 9, 14, 31, 3})))
				groups := beam.ParDo(s, describe, beam.GroupByKey(s, timed))
				passert.Equals(s, beam.WindowInto(s, window.NewGlobalWindows(), groups), c.groups...)
				sums := beam.ParDo(s, windowSum, stats.SumPerKey(s, timed))
				passert.Equals(s, beam.WindowInto(s, window.NewGlobalWindows(), sums), c.sums...)
			})
		})
	}
}

// spread makes an element of one of two keys, one millisecond after the other, in two sessions.
func spread(x int, emit func(beam.EventTime, int, string)) {
	t := int64(x)
	if x >= sessionSize {
		t += 1_000_000
	}
	emit(mtime.FromMilliseconds(t), x%2, fmt.Sprintf("%0100d", x))
}

// sessionSize is how many elements are in the first session.
const sessionSize = 20_000

func count(w beam.Window, key int, values func(*string) bool) string {
	n := 0
	for v := ""; values(&v); {
		n++
	}
	iw := w.(window.IntervalWindow)
	return fmt.Sprintf("%d in [%d, %d): %d", key, iw.Start, iw.End, n)
}

// TestSessionsOfManyWindows: sessions that thousands of windows merge into, with hardly any memory.
func TestSessionsOfManyWindows(t *testing.T) {
	s := start(t, server.Config{Memory: 1})
	mustRun(t, s, func(s beam.Scope) {
		timed := beam.WindowInto(s, window.NewSessions(time.Second), beam.ParDo(s, spread, beam.CreateList(s, numbers(sessionSize+10))))
		counts := beam.ParDo(s, count, beam.GroupByKey(s, timed))
		passert.Equals(s, beam.WindowInto(s, window.NewGlobalWindows(), counts),
			"0 in [0, 20998): 10000", "1 in [1, 20999): 10000",
			"0 in [1020000, 1021008): 5", "1 in [1020001, 1021009): 5")
	})
}
