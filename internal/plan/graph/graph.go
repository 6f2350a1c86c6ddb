// Package graph is a view of a pipeline's primitive transforms: who produces a PCollection, who reads it, and in what order
// the transforms can run. It looks at protos and changes none.
package graph

import (
	"cmp"
	"container/heap"
	"fmt"
	"maps"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

// Kind says who carries a primitive transform out.
type Kind int

const (
	// SDK: the transform's environment does.
	SDK Kind = iota
	// Impulse, Group and Reshuffle: the runner does. Reshuffle stands for both kinds of Redistribute too.
	Impulse
	Group
	Reshuffle
	// Flatten: the runner or any environment does.
	Flatten
	// TestStream: the runner plays what it says.
	TestStream
)

// KindOf tells who carries out a transform of the URN; ok is false when nobody is known to.
func KindOf(transform string) (kind Kind, ok bool) {
	switch transform {
	case urn.TransformImpulse:
		return Impulse, true
	case urn.TransformGroupByKey:
		return Group, true
	case urn.TransformReshuffle, urn.TransformRedistributeByKey, urn.TransformRedistributeArbitrarily:
		return Reshuffle, true
	case urn.TransformFlatten:
		return Flatten, true
	case urn.TransformTestStream:
		return TestStream, true
	case urn.TransformWindowInto, urn.TransformMapWindows, urn.TransformMergeWindows, urn.TransformToString,
		urn.CombinePrecombine, urn.CombineMergeAccumulators, urn.CombineExtractOutputs, urn.CombineGroupedValues,
		urn.CombineConvertToAccumulators:
		return SDK, true
	}
	return SDK, HasParDoPayload(transform)
}

// HasParDoPayload tells whether a transform of the URN carries a ParDoPayload.
func HasParDoPayload(transform string) bool {
	switch transform {
	case urn.TransformParDo, urn.SDFPairWithRestriction, urn.SDFSplitAndSize, urn.SDFProcessSizedElements,
		urn.SDFTruncateRestriction:
		return true
	}
	return false
}

// Side is a side input of a transform.
type Side struct {
	// Tag is the input's local name.
	Tag, PCollection string
	// Access is the URN of the access pattern.
	Access string
}

// Node is a primitive transform.
type Node struct {
	ID    string
	Kind  Kind
	Proto *pipepb.PTransform
	// ParDo is the payload of a transform that carries one; nil otherwise.
	ParDo *pipepb.ParDoPayload
	// Mains are the PCollections of the main inputs by the order of their local names; a PCollection that is read twice
	// is there twice. Only a Flatten has more than one, and only an Impulse none.
	Mains []string
	// Sides are the side inputs by the order of their local names.
	Sides []Side
	// Outputs are the PCollections of the outputs by the order of their local names.
	Outputs []string
}

// Name is what a person calls the transform: its unique name, or its id where the SDK gave it none.
func (n *Node) Name() string { return cmp.Or(n.Proto.GetUniqueName(), n.ID) }

// Stateful tells whether all elements of a key have to meet in one place, one after the other: the DoFn has state or
// timers, or wants them sorted (ParDoPayload in beam_runner_api.proto).
func (n *Node) Stateful() bool {
	return len(n.ParDo.GetStateSpecs()) > 0 || len(n.ParDo.GetTimerFamilySpecs()) > 0 ||
		n.ParDo.GetOnWindowExpirationTimerFamilySpec() != "" || n.ParDo.GetRequiresTimeSortedInput()
}

// URN is the transform's URN.
func (n *Node) URN() string { return n.Proto.GetSpec().GetUrn() }

// Graph is the view. It is immutable.
type Graph struct {
	Components *pipepb.Components
	// Nodes in topological order; of several possible orders the one nearest to the order they were given in.
	Nodes []*Node
	byID  map[string]*Node
	from  map[string]*Node
	to    map[string][]*Node
}

// NewNode reads one transform. The error says what is wrong with its payload.
func NewNode(id string, t *pipepb.PTransform) (*Node, error) {
	n := &Node{ID: id, Proto: t}
	n.Kind, _ = KindOf(t.GetSpec().GetUrn())
	if HasParDoPayload(t.GetSpec().GetUrn()) {
		n.ParDo = &pipepb.ParDoPayload{}
		if err := proto.Unmarshal(t.GetSpec().GetPayload(), n.ParDo); err != nil {
			return nil, fmt.Errorf("decode ParDoPayload: %w", err)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(t.GetInputs())) {
		pc := t.GetInputs()[tag]
		if side, ok := n.ParDo.GetSideInputs()[tag]; ok {
			n.Sides = append(n.Sides, Side{Tag: tag, PCollection: pc, Access: side.GetAccessPattern().GetUrn()})
		} else {
			n.Mains = append(n.Mains, pc)
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(t.GetOutputs())) {
		n.Outputs = append(n.Outputs, t.GetOutputs()[tag])
	}
	return n, nil
}

// New builds the view of the transforms whose ids are given. It fails when a payload does not decode or when the
// transforms form a cycle, and then names the transform.
func New(c *pipepb.Components, ids []string) (*Graph, error) {
	nodes := make([]*Node, 0, len(ids))
	for _, id := range ids {
		n, err := NewNode(id, c.GetTransforms()[id])
		if err != nil {
			return nil, fmt.Errorf("transform %q: %w", id, err)
		}
		nodes = append(nodes, n)
	}
	sorted, rest := Sort(nodes)
	if len(rest) > 0 {
		return nil, fmt.Errorf("transform %q: it depends on its own output", rest[0].ID)
	}
	g := &Graph{Components: c, Nodes: sorted, byID: map[string]*Node{}, from: map[string]*Node{}, to: map[string][]*Node{}}
	for _, n := range sorted {
		g.byID[n.ID] = n
		for _, pc := range n.Outputs {
			g.from[pc] = n
		}
		for _, pc := range n.Mains {
			g.to[pc] = append(g.to[pc], n)
		}
		for _, s := range n.Sides {
			g.to[s.PCollection] = append(g.to[s.PCollection], n)
		}
	}
	return g, nil
}

// Node finds a transform by its id; nil when there is none.
func (g *Graph) Node(id string) *Node { return g.byID[id] }

// Producer is the transform that a PCollection comes from; nil when there is none.
func (g *Graph) Producer(pcollection string) *Node { return g.from[pcollection] }

// Consumers are the transforms that read a PCollection, once for each input that does.
func (g *Graph) Consumers(pcollection string) []*Node { return g.to[pcollection] }

// Sort puts nodes in topological order; of the orders possible, the one that takes the earliest node of the given order
// each time. What is on a cycle, or behind one, is left over in rest.
func Sort(nodes []*Node) (sorted, rest []*Node) {
	from := map[string]int{}
	for i, n := range nodes {
		for _, pc := range n.Outputs {
			from[pc] = i
		}
	}
	missing := make([]int, len(nodes))
	next := make([][]int, len(nodes))
	need := func(i int, pc string) {
		if p, ok := from[pc]; ok {
			missing[i]++
			next[p] = append(next[p], i)
		}
	}
	for i, n := range nodes {
		for _, pc := range n.Mains {
			need(i, pc)
		}
		for _, s := range n.Sides {
			need(i, s.PCollection)
		}
	}
	var ready Indexes
	for i, m := range missing {
		if m == 0 {
			ready = append(ready, i)
		}
	}
	heap.Init(&ready)
	for ready.Len() > 0 {
		i := heap.Pop(&ready).(int)
		sorted = append(sorted, nodes[i])
		for _, j := range next[i] {
			if missing[j]--; missing[j] == 0 {
				heap.Push(&ready, j)
			}
		}
	}
	for i, m := range missing {
		if m > 0 {
			rest = append(rest, nodes[i])
		}
	}
	return sorted, rest
}

// Indexes is a heap (container/heap) of indexes, the least one first: what is ready in a topological sort.
type Indexes []int

func (x Indexes) Len() int           { return len(x) }
func (x Indexes) Less(i, j int) bool { return x[i] < x[j] }
func (x Indexes) Swap(i, j int)      { x[i], x[j] = x[j], x[i] }

// Push adds an index.
func (x *Indexes) Push(v any) { *x = append(*x, v.(int)) }

// Pop takes the last one off.
func (x *Indexes) Pop() any {
	old := *x
	v := old[len(old)-1]
	*x = old[:len(old)-1]
	return v
}
