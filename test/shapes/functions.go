package shapes

import (
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// What follows is the user code of the pipelines. All values are at least 0 and below modulus.
const modulus = 1_000_003

// element is the i-th of a source. Every other one has the same key.
func element(seed, i int) pair {
	random := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
	key := 0
	if random.IntN(2) == 0 {
		key = random.IntN(1 + seed%50)
	}
	return pair{"k" + strconv.Itoa(key), random.IntN(1000)}
}

// each is what the operations do that look at one element at a time.
func each(op Op, k string, v int, emit func(string, int)) {
	switch op.Kind {
	case "affine":
		emit(k, (v*(op.A+1)+op.B)%modulus)
	case "rekey":
		emit("r"+strconv.Itoa(v%(op.A+1)), v)
	case "swell":
		for i := range (v + op.A) % 4 {
			emit(k, (v+i)%modulus)
		}
	case "keep":
		if v%(op.A%5+2) != 0 {
			emit(k, v)
		}
	case "range":
		for i := range width(v) {
			emit(k, int(i))
		}
	}
}

// width is the length of the range that a splittable DoFn makes of a value.
func width(v int) int64 { return int64(v % 6) }

// fatten makes a long text of a value.
func fatten(op Op, v int) string { return strings.Repeat(strconv.Itoa(v)+" ", v%(op.A*op.B+1)) }

// digest tells bags of values apart.
func digest(values []int) int {
	values = slices.Sorted(slices.Values(values))
	h := fnv.New64a()
	for _, v := range values {
		_, _ = io.WriteString(h, strconv.Itoa(v)+",") // a hash takes everything
	}
	return int(h.Sum64() % modulus)
}

func digestTexts(values []string) int {
	hashes := make([]int, 0, len(values))
	for _, v := range values {
		h := fnv.New64a()
		_, _ = io.WriteString(h, v)
		hashes = append(hashes, int(h.Sum64()%modulus))
	}
	return digest(hashes)
}

func both(a, b int) int { return (31*a + b) % modulus }

// second is an element's time.
func second(v int) int { return v % 300 }

// seconds is the size of the operation's windows, or the gap of its sessions; period is that of sliding ones.
func (op Op) seconds() int { return 5 + op.A%20 }
func (op Op) period() int  { return 3 + op.B%10 }

// sideSeconds is the size of the windows of a side input.
const sideSeconds = 60

// inWindow is the key of a result in a window.
func inWindow(k string, start, end int64) string {
	return fmt.Sprintf("%s[%d,%d)", k, start, end)
}

// summary is a combine function: it puts together the sum, the number and the largest of the values.
type summary struct{}

type summed struct{ Sum, Count, Max int }

func (summary) CreateAccumulator() summed { return summed{} }

func (summary) AddInput(a summed, v int) summed {
	return summed{a.Sum + v, a.Count + 1, max(a.Max, v)}
}

func (summary) MergeAccumulators(a, b summed) summed {
	return summed{a.Sum + b.Sum, a.Count + b.Count, max(a.Max, b.Max)}
}

func (summary) ExtractOutput(a summed) int { return digest([]int{a.Sum, a.Count, a.Max}) }
