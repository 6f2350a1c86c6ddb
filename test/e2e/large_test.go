package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"

	"trestle/internal/server"
)

func init() {
	register.Function1x2(huge)
	register.Function1x1(length)
}

// hugeBytes is far more than gRPC's default message size of 4 MiB, and than the server's memory in the test.
const hugeBytes = 20 << 20

func huge(x int) (int, string) { return x, strings.Repeat("x", hugeBytes) }

func length(s string) string { return fmt.Sprint(len(s)) }

// TestHugeElements: an element larger than a message, and than the memory budget, passes every kind of exchange.
func TestHugeElements(t *testing.T) {
	s := start(t, server.Config{Memory: 4 << 20})
	want := fmt.Sprint(hugeBytes)
	mustRun(t, s, func(s beam.Scope) {
		kvs := beam.ParDo(s, huge, beam.CreateList(s, numbers(2)))
		passert.Equals(s, beam.ParDo(s, twice, beam.GroupByKey(s, kvs)), "0:1 of "+want, "1:1 of "+want)
		passert.Equals(s, beam.ParDo(s, length, beam.Reshuffle(s, beam.DropKey(s, kvs))), want, want)
		passert.Equals(s, beam.ParDo(s, lengths, beam.Create(s, 1), beam.SideInput{Input: beam.DropKey(s, kvs)}), want, want)
	})
}

func init() { register.Function3x0(lengths) }

func lengths(_ int, side func(*string) bool, emit func(string)) {
	for v := ""; side(&v); {
		emit(length(v))
	}
}
