package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem/local"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/textio"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/filter"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"

	"os"
	"path/filepath"

	"trestle/internal/server"
)

func init() {
	register.Function1x2(modThree)
	register.Function2x1(sumValues)
	register.Function2x1(countValues)
	register.Function2x1(twice)
	register.Function3x0(withSide)
	register.Function3x0(withMap)
	register.Function1x1(isEven)
	register.Function2x1(counted)
	register.Function2x0(big)
	register.Emitter2[int, string]()
	register.Emitter1[int]()
	register.Emitter1[string]()
	register.Iter1[int]()
	register.Iter1[string]()
}

func modThree(x int) (int, int) { return x % 3, x }

func sumValues(k int, values func(*int) bool) string {
	sum, n := 0, 0
	for v := 0; values(&v); {
		sum += v
		n++
	}
	return fmt.Sprintf("%d:%d/%d", k, sum, n)
}

func isEven(x int) bool { return x%2 == 0 }

// TestGroupByKey groups, more elements than a bundle of input has, on several tasks.
func TestGroupByKey(t *testing.T) {
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		in := beam.CreateList(s, numbers(3000))
		out := beam.ParDo(s, sumValues, beam.GroupByKey(s, beam.ParDo(s, modThree, in)))
		passert.Equals(s, out, "0:1498500/1000", "1:1499500/1000", "2:1500500/1000")
	})
}

func withSide(x int, side func(*int) bool, emit func(int)) {
	sum := 0
	for v := 0; side(&v); {
		sum += v
	}
	emit(x + sum)
}

// TestIterableSideInput reads a side input that comes from the same elements as the main input.
func TestIterableSideInput(t *testing.T) {
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		in := beam.CreateList(s, numbers(4))
		out := beam.ParDo(s, withSide, in, beam.SideInput{Input: filter.Include(s, in, isEven)})
		passert.Equals(s, out, 2, 3, 4, 5)
	})
}

func withMap(x int, side func(int) func(*int) bool, emit func(string)) {
	n := 0
	values := side(x)
	for v := 0; values(&v); {
		n += v
	}
	emit(fmt.Sprintf("%d=%d", x, n))
}

// TestMultimapSideInput looks keys up, present and absent.
func TestMultimapSideInput(t *testing.T) {
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		side := beam.ParDo(s, modThree, beam.CreateList(s, numbers(10)))
		out := beam.ParDo(s, withMap, beam.CreateList(s, []int{0, 1, 2, 7}), beam.SideInput{Input: side})
		passert.Equals(s, out, "0=18", "1=12", "2=15", "7=0")
	})
}

// TestFlatten flattens collections of one stage, of several, and one collection twice.
func TestFlatten(t *testing.T) {
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		a, b := beam.CreateList(s, []int{1, 2}), beam.CreateList(s, []int{3})
		passert.Equals(s, beam.Flatten(s, a, b), 1, 2, 3)
		passert.Equals(s, beam.Flatten(s, a, filter.Include(s, a, isEven)), 1, 2, 2)
		passert.Equals(s, beam.Flatten(s, a, a), 1, 1, 2, 2)
		passert.Equals(s, beam.Flatten(s, a, beam.Flatten(s, b, a)), 1, 1, 2, 2, 3)
	})
}

// TestCombine sums globally and per key; the Go SDK sends combines as they are, so the runner lifts them.
func TestCombine(t *testing.T) {
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		in := beam.CreateList(s, numbers(1001))
		passert.Equals(s, stats.Sum(s, in), 500500)
		passert.Equals(s, beam.DropKey(s, stats.SumPerKey(s, beam.ParDo(s, modThree, in))), 166833, 167167, 166500)
	})
}

// TestReshuffle keeps every element.
func TestReshuffle(t *testing.T) {
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		out := beam.Reshuffle(s, beam.CreateList(s, numbers(1000)))
		passert.Equals(s, stats.Sum(s, out), 499500)
		passert.Count(s, out, "reshuffled", 1000)
	})
}

// TestTextIO reads files by a splittable DoFn.
func TestTextIO(t *testing.T) {
	dir := t.TempDir()
	want := []any{}
	for f := range 3 {
		var text strings.Builder
		for l := range 100 * f {
			line := fmt.Sprintf("file %d line %d", f, l)
			fmt.Fprintln(&text, line)
			want = append(want, line)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("in%d.txt", f)), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, server.Config{})
	mustRun(t, s, func(s beam.Scope) {
		passert.Equals(s, textio.Read(s, filepath.Join(dir, "in*.txt")), want...)
	})
}

func counted(ctx context.Context, x int) int {
	beam.NewCounter("e2e", "seen").Inc(ctx, 1)
	beam.NewDistribution("e2e", "values").Update(ctx, int64(x))
	return x
}

// TestMetrics merges what the tasks' bundles measured.
func TestMetrics(t *testing.T) {
	s := start(t, server.Config{})
	result := mustRun(t, s, func(s beam.Scope) {
		beam.ParDo(s, counted, beam.Reshuffle(s, beam.CreateList(s, numbers(100))))
	})
	got := result.Metrics().Query(func(r beam.MetricResult) bool { return r.Namespace() == "e2e" })
	if len(got.Counters()) != 1 || got.Counters()[0].Result() != 100 {
		t.Errorf("counters: %v", got.Counters())
	}
	want := metrics.DistributionValue{Count: 100, Sum: 4950, Min: 0, Max: 99}
	if len(got.Distributions()) != 1 || got.Distributions()[0].Result() != want {
		t.Errorf("distributions: %v", got.Distributions())
	}
}

func twice(k int, values func(*string) bool) string {
	n, bytes := 0, 0
	for v := ""; values(&v); {
		n++
		bytes += len(v)
	}
	return fmt.Sprintf("%d:%d of %d", k, n, bytes)
}

func countValues(k int, values func(*string) bool) string { return twice(k, values) }

// big makes 40 values of 100 kB for each of two keys.
func big(x int, emit func(int, string)) { emit(x%2, strings.Repeat("x", 100_000)) }

// TestLargeGroups groups more than the server may keep in memory, in groups too large to travel in one message.
func TestLargeGroups(t *testing.T) {
	s := start(t, server.Config{Memory: 1 << 20})
	mustRun(t, s, func(s beam.Scope) {
		values := beam.ParDo(s, big, beam.CreateList(s, numbers(80)))
		passert.Equals(s, beam.ParDo(s, countValues, beam.GroupByKey(s, values)), "0:40 of 4000000", "1:40 of 4000000")
	})
}
