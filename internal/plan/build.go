package plan

import (
	"cmp"
	"fmt"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/fuse"
	"trestle/internal/plan/graph"
	"trestle/internal/plan/rewrite"
)

// Options change how a pipeline is planned, never what it computes: tests vary them and compare. The zero value is what
// jobs run with.
type Options struct {
	// DisableFusion gives each transform of an SDK's a stage of its own.
	DisableFusion bool
	// DisableLifting runs combines as the SDK expanded them.
	DisableLifting bool
	// Streams says that the engine runs streaming plans. Then a bounded pipeline is one, too, where a grouping's trigger goes
	// by the clock: over bounded input, which is grouped when all of it is there, it would have nothing to go by.
	Streams bool
	// Streaming makes each plan a streaming one: Beam's option of that name.
	Streaming bool
}

// Build makes the plan of a pipeline. p is not changed and not kept. The same pipeline gives the same plan.
//
// The error is a *[RefusedError] that has everything which is wrong with the pipeline, or which this version of Trestle
// cannot run.
func Build(p *pipepb.Pipeline, o Options) (*Plan, error) {
	if problems := validate(p, o); len(problems) > 0 {
		return nil, &RefusedError{Problems: problems}
	}
	p = proto.Clone(p).(*pipepb.Pipeline)
	if err := rewrite.Apply(p, rewrite.Options{KeepCombines: o.DisableLifting}); err != nil {
		return nil, fmt.Errorf("rewrite the pipeline: %w", err)
	}
	g, err := graph.New(p.GetComponents(), p.GetRootTransformIds())
	if err != nil {
		return nil, fmt.Errorf("order the rewritten pipeline: %w", err)
	}
	streams := o.Streaming || unbounded(g) || o.Streams && clocked(g)
	a := &assembly{
		plan:    &Plan{Pipeline: p, Streaming: streams},
		comps:   p.GetComponents(),
		g:       g,
		fused:   fuse.Fuse(g, fuse.Options{Apart: o.DisableFusion, Streaming: streams}),
		wires:   newWires(p.GetComponents().GetCoders()),
		index:   map[*fuse.Stage]int{},
		forms:   map[string]string{},
		outputs: map[outputKey]int{},
	}
	a.assemble()
	if len(a.problems) > 0 {
		return nil, &RefusedError{Problems: a.problems}
	}
	return a.plan, nil
}

// unbounded tells whether any collection of the pipeline is unbounded.
func unbounded(g *graph.Graph) bool {
	for _, n := range g.Nodes {
		if n.URN() == urn.TransformTestStream {
			return true
		}
		for _, pc := range n.Outputs {
			if g.Components.GetPcollections()[pc].GetIsBounded() == pipepb.IsBounded_UNBOUNDED {
				return true
			}
		}
	}
	return false
}

// clocked tells whether a grouping's trigger goes by the clock.
func clocked(g *graph.Graph) bool { return slices.ContainsFunc(g.Nodes, g.ByClock) }

// assembly turns fused stages into the plan: coders, exchanges, descriptors.
type assembly struct {
	plan  *Plan
	comps *pipepb.Components
	g     *graph.Graph
	fused *fuse.Result
	wires *wires
	index map[*fuse.Stage]int
	// forms has the element coder in which each PCollection crosses.
	forms    map[string]string
	outputs  map[outputKey]int
	problems []Problem
}

// outputKey tells a stage's outputs apart: a PCollection leaves once for each coder that its readers want.
type outputKey struct {
	stage              int
	pcollection, coder string
}

func (a *assembly) assemble() {
	a.windowings()
	for i, s := range a.fused.Stages {
		a.index[s] = i
		names := []string{}
		stage := &Stage{Index: i, Environment: s.Environment}
		for _, n := range s.Transforms {
			stage.Transforms = append(stage.Transforms, n.ID)
			names = append(names, n.Name())
		}
		if s.Environment == "" {
			names = append(names, s.Mouth.Name())
		}
		stage.Name = foldNames(names)
		a.plan.Stages = append(a.plan.Stages, stage)
	}
	for i, s := range a.fused.Stages {
		a.input(a.plan.Stages[i], s)
		a.sideInputs(a.plan.Stages[i], s)
	}
	for _, c := range a.fused.Cuts {
		a.plan.Cuts = append(a.plan.Cuts, Cut{PCollection: c.PCollection, From: c.From.ID, To: c.To.ID, Reason: c.Reason})
	}
	for _, s := range a.plan.Stages {
		if s.Environment != "" {
			a.describe(s)
		}
	}
}

// input fills in a stage's main input and the exchanges that feed it.
func (a *assembly) input(stage *Stage, s *fuse.Stage) {
	in := Input{PCollection: s.PCollection, Kind: Elements, Splittable: s.Splittable}
	kind := Forward
	switch {
	case s.Mouth == nil:
		in.Coder = a.windowed(s.PCollection)
	case s.Mouth.Kind == graph.TestStream:
		in.Kind = Played
		in.Coder = a.windowed(s.PCollection)
		a.played(stage, s)
	case s.Mouth.Kind == graph.Impulse:
		in.Kind = Impulse
		in.Coder = a.windowed(s.PCollection)
	case s.Mouth.Kind == graph.Group:
		in.Kind = Groups
		kind = Keyed
		read := s.Mouth.Mains[0]
		in.Group = &Grouping{
			Transform:   s.Mouth.ID,
			StateBacked: a.stateBacked(s.Environment),
			Coder:       a.windowed(read),
			Windowing:   a.windowing(read),
		}
		in.Group.Merging = a.merging(stage.Index, s.Mouth.Name(), in.Group.Windowing)
		in.Coder = a.wires.windowed(a.grouped(s.Mouth, in.Group.StateBacked), a.window(read))
	default:
		in.Coder = a.windowed(s.PCollection)
	}
	switch {
	case s.Splittable:
		kind = Rebalance
	case s.Keyed:
		in.Kind, kind = KeyedElements, Keyed
		in.State = a.state(s.Transforms[0])
	}
	in.Stable = a.plan.Streaming && slices.ContainsFunc(s.Transforms, func(n *graph.Node) bool { return n.ParDo.GetRequiresStableInput() })
	coder := in.Coder
	if in.Group != nil {
		coder = in.Group.Coder
	}
	for _, src := range a.fused.Feeds(s) {
		k := kind
		if k == Forward && src.Spread {
			k = Rebalance
		}
		in.Exchanges = append(in.Exchanges, a.exchange(src, k, coder, stage.Index, -1))
	}
	stage.Input = in
}

// sideInputs fills in what a stage's transforms read whole.
func (a *assembly) sideInputs(stage *Stage, s *fuse.Stage) {
	for _, n := range s.Transforms {
		for _, side := range n.Sides {
			si := SideInput{
				Transform: n.ID, Tag: side.Tag, PCollection: side.PCollection, AccessPattern: side.Access,
				Coder: a.windowed(side.PCollection),
			}
			if a.plan.Streaming {
				a.readiness(&si, n)
			}
			for _, src := range a.fused.Sources(side.PCollection) {
				si.Exchanges = append(si.Exchanges, a.exchange(src, Broadcast, si.Coder, stage.Index, len(stage.SideInputs)))
			}
			stage.SideInputs = append(stage.SideInputs, si)
		}
	}
}

// exchange joins a source to a reader that takes the records in the given coder.
func (a *assembly) exchange(src fuse.Source, kind ExchangeKind, coder string, to, side int) int {
	from := a.index[src.Stage]
	sender := a.plan.Stages[from]
	if sender.Environment == "" {
		if own := a.windowed(src.PCollection); own != coder {
			a.mismatch(src, to)
		}
	}
	key := outputKey{from, src.PCollection, coder}
	out, ok := a.outputs[key]
	if !ok {
		out = len(sender.Outputs)
		a.outputs[key] = out
		sender.Outputs = append(sender.Outputs, Output{PCollection: src.PCollection, Coder: coder})
	}
	x := &Exchange{ID: len(a.plan.Exchanges), Kind: kind, From: from, Output: out, To: to, Side: side, Coder: coder}
	a.plan.Exchanges = append(a.plan.Exchanges, x)
	sender.Outputs[out].Exchanges = append(sender.Outputs[out].Exchanges, x.ID)
	return x.ID
}

// mismatch reports a reader that wants another coder than the runner's own records have: an SDK could write either, the
// runner cannot turn one into the other.
func (a *assembly) mismatch(src fuse.Source, to int) {
	n := a.g.Producer(src.PCollection)
	p := Problem{
		Transform: n.Name(),
		Reason: fmt.Sprintf("its result is merged with collections of another coder on the way to %s",
			a.plan.Stages[to].Name),
		Hint: "give the inputs of the Flatten one type, or put a Map between",
	}
	if !slices.Contains(a.problems, p) {
		a.problems = append(a.problems, p)
	}
}

// form is the element coder in which a PCollection crosses. What an SDK makes crosses in the collection's own coder, made
// fit for the wire; what the runner makes has the coder that follows from its input, and what is flattened or reshuffled
// from that keeps it.
func (a *assembly) form(pcollection string) string {
	if id, ok := a.forms[pcollection]; ok {
		return id
	}
	id := ""
	if n := a.g.Producer(pcollection); n != nil {
		switch n.Kind {
		case graph.TestStream:
			id = a.playedCoder(n, pcollection)
		case graph.Group:
			id = a.grouped(n, false)
		case graph.Flatten, graph.Reshuffle:
			for _, src := range a.fused.Through(n) {
				if src.Stage.Environment == "" {
					id = cmp.Or(id, a.form(src.PCollection))
				}
			}
		}
	}
	if id == "" {
		id = a.wires.element(a.comps.GetPcollections()[pcollection].GetCoderId())
	}
	a.forms[pcollection] = id
	return id
}

// grouped is the coder of a GroupByKey's result, made from that of what is grouped: the key's bytes pass through the runner
// as they came.
func (a *assembly) grouped(n *graph.Node, stateBacked bool) string {
	key, value, ok := a.wires.keyValue(a.form(n.Mains[0]))
	if !ok {
		p := Problem{Transform: n.Name(), Reason: "the elements that it groups do not reach it as key-value pairs"}
		if !slices.Contains(a.problems, p) {
			a.problems = append(a.problems, p)
		}
		return a.form(n.Mains[0])
	}
	values, suffix := urn.CoderIterable, "-values"
	if stateBacked {
		values, suffix = urn.CoderStateBackedIterable, "-backed"
	}
	return a.wires.make(n.Outputs[0]+"-groups", urn.CoderKV, nil, key, a.wires.make(value+suffix, values, nil, value))
}

// windowed is the coder of a PCollection's records.
func (a *assembly) windowed(pcollection string) string {
	return a.wires.windowed(a.form(pcollection), a.window(pcollection))
}

func (a *assembly) window(pcollection string) string {
	return a.windowing(pcollection).GetWindowCoderId()
}

func (a *assembly) windowing(pcollection string) *pipepb.WindowingStrategy {
	return a.comps.GetWindowingStrategies()[a.comps.GetPcollections()[pcollection].GetWindowingStrategyId()]
}

// stateBacked tells whether an environment's harness reads state-backed iterables.
func (a *assembly) stateBacked(environment string) bool {
	return slices.Contains(a.comps.GetEnvironments()[environment].GetCapabilities(), urn.CoderStateBackedIterable)
}
