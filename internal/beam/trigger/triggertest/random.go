package triggertest

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// Random is a generator of triggers' texts, of counts up to 4 and delays up to 20 ms.
func Random(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string { return random(t, depth) })
}

func random(t *rapid.T, depth int) string {
	kinds := 7
	if depth > 0 {
		kinds = 13
	}
	switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return "Default"
	case 1:
		return "Always"
	case 2:
		return "Never"
	case 3:
		return fmt.Sprintf("ElementCount(%d)", rapid.IntRange(1, 4).Draw(t, "count"))
	case 4:
		if period := rapid.IntRange(0, 8).Draw(t, "period"); period > 0 {
			return fmt.Sprintf("AfterProcessingTime(delay %d, align to %d from %d)",
				rapid.IntRange(0, 20).Draw(t, "delay"), period, rapid.IntRange(0, 8).Draw(t, "offset"))
		}
		return fmt.Sprintf("AfterProcessingTime(delay %d)", rapid.IntRange(0, 20).Draw(t, "delay"))
	case 5:
		return "AfterSynchronizedProcessingTime"
	case 6:
		return "AfterEndOfWindow"
	case 7:
		var parts []string
		which := rapid.IntRange(1, 3).Draw(t, "early, late or both")
		if which&1 != 0 {
			parts = append(parts, "early="+random(t, depth-1))
		}
		if which&2 != 0 {
			parts = append(parts, "late="+random(t, depth-1))
		}
		return "AfterEndOfWindow(" + strings.Join(parts, ", ") + ")"
	case 8, 9:
		return "Repeat(" + random(t, depth-1) + ")"
	case 10:
		return "OrFinally(" + random(t, depth-1) + ", " + random(t, depth-1) + ")"
	default:
		name := rapid.SampledFrom([]string{"AfterAll", "AfterAny", "AfterEach"}).Draw(t, "composite")
		subs := make([]string, rapid.IntRange(1, 3).Draw(t, "subtriggers"))
		for i := range subs {
			subs[i] = random(t, depth-1)
		}
		return name + "(" + strings.Join(subs, ", ") + ")"
	}
}
