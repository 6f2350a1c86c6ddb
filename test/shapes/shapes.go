// Package shapes makes random pipelines of Beam's Go SDK, and says what each of them puts out by computing it in memory.
//
// A [Pipeline] is a list of operations on collections of KV<string, int>, of which each reads earlier ones. What their
// DoFns do with an element, or with a group, are functions that the computation in memory calls too: it is the runner that
// is tested, not they. What nobody reads is gathered, at the end, in one file.
package shapes

import (
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// Pipeline is a random pipeline.
type Pipeline []Op

// Op is an operation. Its kind says what its numbers mean.
type Op struct {
	Kind string
	// In are the operations, by index, whose results it reads: its main input first.
	In   []int
	A, B int
}

// pair is an element.
type pair struct {
	K string
	V int
}

// String is the pipeline, an operation a line.
func (p Pipeline) String() string {
	var text strings.Builder
	for i, op := range p {
		fmt.Fprintf(&text, "%d: %s %v a=%d b=%d\n", i, op.Kind, op.In, op.A, op.B)
	}
	return text.String()
}

// Limits of a pipeline's size: runs of a few are to take seconds.
const (
	maxOps  = 10
	maxBag  = 5000    // elements in a collection
	maxRead = 50_000  // elements of side inputs that are read
	maxFat  = 8 << 20 // bytes that are grouped
)

// Draw makes a random pipeline.
func Draw(t *rapid.T) Pipeline {
	var p Pipeline
	var bags [][]pair
	for range rapid.IntRange(1, 3).Draw(t, "sources") {
		size := rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(0, 2000)).Draw(t, "size")
		p = append(p, Op{Kind: "source", A: size, B: rapid.IntRange(0, 1<<20).Draw(t, "seed")})
		bags = append(bags, p.eval(len(p)-1, nil))
	}
	for range rapid.IntRange(1, maxOps).Draw(t, "operations") {
		op := Op{
			Kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
			A:    rapid.IntRange(0, 99).Draw(t, "a"),
			B:    rapid.IntRange(0, 99).Draw(t, "b"),
		}
		for range inputs(op.Kind, rapid.IntRange(1, 3).Draw(t, "inputs")) {
			op.In = append(op.In, rapid.IntRange(0, len(p)-1).Draw(t, "input"))
		}
		if op.Kind == "side" && len(bags[op.In[0]])*len(bags[op.In[1]]) > maxRead {
			op.Kind = "lookup" // which reads one key's
		}
		for op.Kind == "fat" && op.weight(bags[op.In[0]]) > maxFat {
			op.A /= 2
		}
		p = append(p, op)
		bag := p.eval(len(p)-1, bags)
		if len(bag) > maxBag {
			p[len(p)-1] = Op{Kind: "group", In: op.In[:1]}
			bag = p.eval(len(p)-1, bags)
		}
		bags = append(bags, bag)
	}
	return p
}

// weight is how many bytes the operation makes of a collection.
func (op Op) weight(bag []pair) (n int) {
	for _, e := range bag {
		n += len(fatten(op, e.V))
	}
	return n
}

// kinds of operations that are not sources.
var kinds = []string{
	"affine", "rekey", "swell", "keep", "fault", "range",
	"group", "fat", "join", "sum", "total", "count",
	"flatten", "reshuffle", "side", "lookup",
	"fixed", "sliding", "sessions", "fixed sum", "sessions sum", "fixed side",
}

// inputs is how many an operation has; many is for one that takes any number.
func inputs(kind string, many int) int {
	switch kind {
	case "flatten":
		return many
	case "join", "side", "lookup", "fixed side":
		return 2
	default:
		return 1
	}
}

// Keyed is a pipeline that lasts some seconds, for who wants something to happen to it meanwhile: it has side inputs, state and
// sessions, and size elements in its largest collection.
func Keyed(size int) Pipeline {
	return Pipeline{
		{Kind: "source", A: size, B: 7},
		{Kind: "rekey", In: []int{0}, A: 99},
		{Kind: "count", In: []int{1}},
		{Kind: "sum", In: []int{2}},
		{Kind: "sessions", In: []int{1}, A: 7},
		{Kind: "source", A: size / 10, B: 11},
		{Kind: "source", A: 200, B: 3},
		{Kind: "lookup", In: []int{5, 6}},
		{Kind: "fixed side", In: []int{5, 6}, A: 9},
	}
}

// leaves are the operations whose results nobody reads.
func (p Pipeline) leaves() []int {
	read := map[int]bool{}
	for _, op := range p {
		for _, in := range op.In {
			read[in] = true
		}
	}
	var leaves []int
	for i := range p {
		if !read[i] {
			leaves = append(leaves, i)
		}
	}
	return leaves
}

// line is an element of a leaf as it is in the output.
func line(leaf int, e pair) string { return fmt.Sprintf("%d: %s=%d", leaf, e.K, e.V) }

// Output is what the pipeline puts out, sorted.
func (p Pipeline) Output() []string {
	bags := make([][]pair, 0, len(p))
	for i := range p {
		bags = append(bags, p.eval(i, bags))
	}
	var out []string
	for _, leaf := range p.leaves() {
		for _, e := range bags[leaf] {
			out = append(out, line(leaf, e))
		}
	}
	slices.Sort(out)
	return out
}
