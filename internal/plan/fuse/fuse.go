// Package fuse cuts a graph of primitive transforms into stages: as few as the rules allow, since each PCollection that
// crosses from one stage to another is encoded, moved and decoded, and each that stays inside costs a call.
//
// It knows nothing of coders or harnesses. What it decides, it gives a reason for.
package fuse

import (
	"fmt"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
)

// Options change how stages are made. The result means the same whatever they are.
type Options struct {
	// Apart gives each transform of an SDK's a stage of its own.
	Apart bool
	// Streaming is set when side inputs become readable window by window, while the main input comes: see windowed.
	Streaming bool
}

// Stage is a set of transforms that run together. It is made by the fusion only; Result's readers do not change it.
type Stage struct {
	// Environment is the id of the environment; "" for a stage of the runner's own, which has no transforms.
	Environment string
	// Mouth is the runner's transform whose work is done where the stage's input arrives: an Impulse, a GroupByKey or (in
	// a stage of the runner's own) a Flatten, Reshuffle or TestStream; nil when the stage takes its PCollection's elements as
	// they come.
	Mouth *graph.Node
	// PCollection is the stage's main input: what its first transforms read.
	PCollection string
	// Splittable is set for the processing step of a splittable DoFn, which is alone at the head of its stage.
	Splittable bool
	// Keyed is set for a DoFn with state or timers, which is alone at the head of its stage.
	Keyed bool
	// Transforms in topological order.
	Transforms []*graph.Node
	// Order is the place of the stage's first transform, or of its Mouth, in the graph: what ties between stages that do not
	// depend on one another are broken by.
	Order int
}

// Cut is an edge of the graph that crosses between stages.
type Cut struct {
	PCollection string
	From, To    *graph.Node
	Reason      string
}

// Result is the outcome.
type Result struct {
	// Stages in topological order.
	Stages []*Stage
	// Cuts in the graph's order.
	Cuts []Cut

	graph  *graph.Graph
	home   map[string]*Stage // transform id → the stage that carries it out, if one does
	played map[string]*Stage // PCollection id → the stage that lets it out, of a TestStream's outputs
}

// alone tells that nothing else may read the stage's input in it, and that the input comes over an exchange of its own kind.
func (s *Stage) alone() bool { return s.Splittable || s.Keyed }

const keyPoint = "state or timers: all elements of a key have to meet"

const splitPoint = "split point: the restrictions of a splittable DoFn are spread over all tasks before they are processed"

// edge is one input of a transform.
type edge struct{ pcollection, to string }

type builder struct {
	g    *graph.Graph
	o    Options
	made []*Stage
	// home has the transforms that run in an SDK's stage, Flattens among them.
	home map[string]*Stage
	// readers has the stages whose main input a PCollection is.
	readers map[string][]*Stage
	// order is each transform's place in the graph.
	order map[string]int
	// why has the reason for which a transform did not join its producer's stage.
	why map[edge]string
}

// Fuse makes the stages of a graph. The same graph gives the same stages.
func Fuse(g *graph.Graph, o Options) *Result {
	b := &builder{
		g: g, o: o,
		home: map[string]*Stage{}, readers: map[string][]*Stage{}, order: map[string]int{}, why: map[edge]string{},
	}
	for i, n := range g.Nodes {
		b.order[n.ID] = i
	}
	for _, n := range g.Nodes {
		switch n.Kind {
		case graph.SDK:
			b.place(n)
		case graph.Flatten:
			b.placeFlatten(n)
		}
	}
	return b.finish()
}

// place finds or makes the stage of a transform that an environment carries out. Its inputs' producers have their places.
func (b *builder) place(n *graph.Node) {
	input := n.Mains[0]
	env := n.Proto.GetEnvironmentId()
	splittable, keyed := n.URN() == urn.SDFProcessSizedElements, n.Stateful()

	awaited := b.awaited(n)
	if s := b.home[b.producer(input)]; s != nil {
		reason := b.mustLeave(n, s, awaited)
		if reason == "" {
			b.join(n, s)
			return
		}
		b.why[edge{input, n.ID}] = reason
	}
	if !b.o.Apart && !splittable && !keyed {
		for _, s := range b.readers[input] {
			if _, waits := awaited[s]; s.Environment == env && !s.alone() && !waits {
				b.join(n, s)
				return
			}
		}
	}
	s := &Stage{Environment: env, PCollection: input, Splittable: splittable, Keyed: keyed, Order: b.order[n.ID]}
	b.made = append(b.made, s)
	b.readers[input] = append(b.readers[input], s)
	b.join(n, s)
}

func (b *builder) join(n *graph.Node, s *Stage) {
	s.Transforms = append(s.Transforms, n)
	b.home[n.ID] = s
}

// mustLeave is the reason for which n cannot run in s, where its main input is made; "" if it can.
func (b *builder) mustLeave(n *graph.Node, s *Stage, awaited map[*Stage]string) string {
	if b.o.Apart {
		return "fusion is switched off"
	}
	if n.URN() == urn.SDFProcessSizedElements {
		return splitPoint
	}
	if n.Stateful() {
		return keyPoint
	}
	if n.ParDo.GetRequiresStableInput() {
		return "stable input: the transform's input must not change when it is tried again"
	}
	if env := n.Proto.GetEnvironmentId(); env != s.Environment {
		return fmt.Sprintf("different environments: %s and %s", s.Environment, env)
	}
	if tag := b.windowed(n); tag != "" {
		return fmt.Sprintf("side input %s is read by window: elements wait before the transform until their window can be read", tag)
	}
	if tag, waits := awaited[s]; waits {
		return fmt.Sprintf("side input %s depends on the stage that makes the main input", tag)
	}
	return ""
}

// windowed is the local name of a side input of n's that has more windows than the global one, in a streaming plan. Whether an
// element can be processed then follows from its window, which the runner sees at the mouth of a stage only. "" stands for none.
func (b *builder) windowed(n *graph.Node) string {
	c := b.g.Components
	for _, side := range n.Sides {
		ws := c.GetWindowingStrategies()[c.GetPcollections()[side.PCollection].GetWindowingStrategyId()]
		if b.o.Streaming && c.GetCoders()[ws.GetWindowCoderId()].GetSpec().GetUrn() != urn.CoderGlobalWindow {
			return side.Tag
		}
	}
	return ""
}

// awaited are the stages that have to be complete before n's side inputs are, by whatever way through whole stages, each
// with the local name of a side input that waits for it. With n in one of them, that stage would wait for itself.
func (b *builder) awaited(n *graph.Node) map[*Stage]string {
	stages := map[*Stage]string{}
	seen := map[string]bool{}
	var todo []string
	push := func(pc string) {
		if !seen[pc] {
			seen[pc] = true
			todo = append(todo, pc)
		}
	}
	inputs := func(n *graph.Node) {
		for _, pc := range n.Mains {
			push(pc)
		}
		for _, side := range n.Sides {
			push(side.PCollection)
		}
	}
	for _, side := range n.Sides {
		push(side.PCollection)
		for len(todo) > 0 {
			from := b.g.Producer(todo[len(todo)-1])
			todo = todo[:len(todo)-1]
			if from == nil {
				continue
			}
			at := b.home[from.ID]
			if at == nil {
				inputs(from)
				continue
			}
			if _, known := stages[at]; !known {
				stages[at] = side.Tag
				for _, t := range at.Transforms {
					inputs(t)
				}
			}
		}
	}
	return stages
}

// placeFlatten lets the SDK flatten what one stage makes. Any other Flatten is sunk: its readers take the records of each
// of its inputs.
func (b *builder) placeFlatten(n *graph.Node) {
	reason := ""
	var s *Stage
	seen := map[string]bool{}
	for _, pc := range n.Mains {
		at := b.home[b.producer(pc)]
		switch {
		case b.o.Apart:
			reason = "fusion is switched off"
		case at == nil || s != nil && at != s:
			reason = "the Flatten's inputs do not all come from one stage"
		case seen[pc] && reason == "":
			// SDKs differ in what they make of two inputs that are one PCollection; the runner delivers it twice.
			reason = "the Flatten takes the same PCollection more than once"
		}
		seen[pc] = true
		s = at
	}
	if s != nil && reason == "" {
		b.join(n, s)
		return
	}
	for _, pc := range n.Mains {
		b.why[edge{pc, n.ID}] = reason
	}
}

// producer is the id of the transform that makes the PCollection.
func (b *builder) producer(pcollection string) string {
	if n := b.g.Producer(pcollection); n != nil {
		return n.ID
	}
	return ""
}
