package shapes

import (
	"maps"
	"slices"
	"strings"
)

// eval computes an operation's result in memory, given those of the operations before it.
func (p Pipeline) eval(i int, bags [][]pair) []pair {
	op := p[i]
	var out []pair
	emit := func(k string, v int) { out = append(out, pair{k, v}) }
	if op.Kind == "source" {
		(&source{op.A, op.B}).ProcessElement(nil, emit)
		return out
	}
	in := bags[op.In[0]]
	var side []pair
	if len(op.In) > 1 {
		side = bags[op.In[1]]
	}
	switch op.Kind {
	case "flatten":
		for _, from := range op.In {
			out = append(out, bags[from]...)
		}
	case "reshuffle", "fault":
		return in
	case "affine", "rekey", "swell", "keep", "range":
		for _, e := range in {
			each(op, e.K, e.V, emit)
		}
	case "fat":
		for k, values := range byKey(in) {
			texts := make([]string, 0, len(values))
			for _, v := range values {
				texts = append(texts, fatten(op, v))
			}
			emit(k, digestTexts(texts))
		}
	case "group":
		for k, values := range byKey(in) {
			emit(k, digest(values))
		}
	case "sum":
		for k, values := range byKey(in) {
			emit(k, summarise(values))
		}
	case "count":
		for k, values := range byKey(in) {
			for i := range values {
				emit(k, i+1)
			}
		}
	case "total":
		if len(in) > 0 {
			emit("total", summarise(slices.Collect(maps.Values(index(in)))))
		}
	case "join":
		a, b := byKey(in), byKey(side)
		for k := range byKey(slices.Concat(in, side)) {
			emit(k, both(digest(a[k]), digest(b[k])))
		}
	case "side":
		values := slices.Collect(maps.Values(index(side)))
		for _, e := range in {
			emit(e.K, both(e.V, digest(values)))
		}
	case "lookup":
		values := byKey(side)
		for _, e := range in {
			emit(e.K, both(e.V, digest(values[e.K])))
		}
	case "fixed side":
		for _, e := range in {
			// The side input's window is the one that has the end of the main input's: WindowMappingFn's default in the
			// SDKs, as the programming guide has it.
			last := second(e.V)/op.seconds()*op.seconds() + op.seconds() - 1
			var values []int
			for _, s := range side {
				if second(s.V)/sideSeconds == last/sideSeconds {
					values = append(values, s.V)
				}
			}
			emit(e.K, both(e.V, digest(values)))
		}
	default:
		summary := strings.HasSuffix(op.Kind, " sum")
		for k, values := range byKey(in) {
			for w, values := range op.windows(values) {
				if summary {
					emit(inWindow(k, w.start, w.end), summarise(values))
				} else {
					emit(inWindow(k, w.start, w.end), digest(values))
				}
			}
		}
	}
	return out
}

func byKey(bag []pair) map[string][]int {
	groups := map[string][]int{}
	for _, e := range bag {
		groups[e.K] = append(groups[e.K], e.V)
	}
	return groups
}

func index(bag []pair) map[int]int {
	values := map[int]int{}
	for i, e := range bag {
		values[i] = e.V
	}
	return values
}

func summarise(values []int) int {
	var c summary
	a := c.CreateAccumulator()
	for _, v := range values {
		a = c.AddInput(a, v)
	}
	return c.ExtractOutput(a)
}

// span is a window, in milliseconds.
type span struct{ start, end int64 }

// windows assigns a key's values to the windows of the operation's kind, and merges those of sessions.
func (op Op) windows(values []int) map[span][]int {
	size := op.seconds()
	out := map[span][]int{}
	add := func(start, end, v int) {
		w := span{int64(start) * 1000, int64(end) * 1000}
		out[w] = append(out[w], v)
	}
	switch kind, _, _ := strings.Cut(op.Kind, " "); kind {
	case "fixed":
		for _, v := range values {
			start := second(v) / size * size
			add(start, start+size, v)
		}
	case "sliding":
		for _, v := range values {
			last := second(v) / op.period() * op.period()
			for start := last; start > second(v)-size; start -= op.period() {
				add(start, start+size, v)
			}
		}
	default: // sessions
		sorted := slices.SortedFunc(slices.Values(values), func(a, b int) int { return second(a) - second(b) })
		for first := 0; first < len(sorted); {
			next := first + 1
			for next < len(sorted) && second(sorted[next]) < second(sorted[next-1])+size {
				next++
			}
			for _, v := range sorted[first:next] {
				add(second(sorted[first]), second(sorted[next-1])+size, v)
			}
			first = next
		}
	}
	return out
}
