package plan

import (
	"cmp"
	"fmt"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
	"trestle/internal/plan/rewrite"
)

// validator finds everything that keeps a pipeline from running. It reads what SDKs sent: any id may be dangling, any
// message missing.
type validator struct {
	p        *pipepb.Pipeline
	c        *pipepb.Components
	o        Options
	combines *rewrite.Combines
	problems []Problem
	// coders has the ids that were looked at already, with how deep coders nest in each.
	coders map[string]int
}

// validate is everything that is wrong with the pipeline, in the order of its transforms.
func validate(p *pipepb.Pipeline, o Options) []Problem {
	v := &validator{
		p: p, c: p.GetComponents(), o: o, combines: rewrite.NewCombines(p),
		coders: map[string]int{},
	}
	if len(p.GetRootTransformIds()) == 0 {
		v.report("", "it has no root transforms", "a pipeline needs at least one transform that is applied to its root")
		return v.problems
	}
	v.composites()
	var nodes []*graph.Node
	primitives := v.primitives()
	for _, id := range primitives {
		t := v.c.GetTransforms()[id]
		n, err := graph.NewNode(id, t)
		if err != nil {
			// The decoder's own words differ from build to build, and say nothing that helps.
			v.report(v.name(id), "its payload is no ParDoPayload", "")
			continue
		}
		v.transform(n)
		nodes = append(nodes, n)
	}
	v.edges(nodes)
	v.mergingState(nodes)
	v.requirements()
	return v.problems
}

func (v *validator) report(transform, reason, hint string) {
	p := Problem{Transform: transform, Reason: reason, Hint: hint}
	if !slices.Contains(v.problems, p) {
		v.problems = append(v.problems, p)
	}
}

// name is what a person calls the transform.
func (v *validator) name(id string) string {
	return cmp.Or(v.c.GetTransforms()[id].GetUniqueName(), id)
}

// composites checks the tree of transforms: that each is there, and in one place.
func (v *validator) composites() {
	parent := map[string]string{}
	var walk func(id, in string)
	walk = func(id, in string) {
		t := v.c.GetTransforms()[id]
		if t == nil {
			v.report(v.name(in), fmt.Sprintf("it refers to a transform %q that the pipeline does not have", id), "")
			return
		}
		if other, seen := parent[id]; seen {
			v.report(v.name(id), fmt.Sprintf("it is in two places, or in itself: in %s and in %s", v.place(other), v.place(in)), "")
			return
		}
		parent[id] = in
		for _, sub := range t.GetSubtransforms() {
			walk(sub, id)
		}
		for _, pcs := range []map[string]string{t.GetInputs(), t.GetOutputs()} {
			for _, tag := range sortedKeys(pcs) {
				if v.c.GetPcollections()[pcs[tag]] == nil {
					v.report(v.name(id), fmt.Sprintf("it refers to a PCollection %q that the pipeline does not have", pcs[tag]), "")
				}
			}
		}
	}
	for _, id := range v.p.GetRootTransformIds() {
		walk(id, "")
	}
}

// place names what a transform is contained in.
func (v *validator) place(parent string) string {
	if parent == "" {
		return "the pipeline's root"
	}
	return v.name(parent)
}

// primitives are the transforms that will do the work, a combine that is going to be lifted in place of its inside.
func (v *validator) primitives() []string {
	return rewrite.Primitives(v.p, func(id string) bool {
		_, ok := v.combines.Liftable(id)
		return ok && !v.o.DisableLifting
	})
}

// transform checks one primitive by itself.
func (v *validator) transform(n *graph.Node) {
	for _, pcs := range []map[string]string{n.Proto.GetInputs(), n.Proto.GetOutputs()} {
		for _, tag := range sortedKeys(pcs) {
			v.pcollection(n, pcs[tag])
		}
	}
	kind, known := graph.KindOf(n.URN())
	if n.URN() == urn.TransformCombinePerKey {
		if env, ok := v.combines.Liftable(n.ID); ok && !v.o.DisableLifting {
			v.inEnvironment(n, env)
			v.coder(n.Name(), combinePayload(n.Proto).GetAccumulatorCoderId())
			v.grouping(n)
			return
		}
	}
	if !known {
		v.unknown(n)
		return
	}
	v.shape(n, kind)
	switch kind {
	case graph.SDK:
		v.inEnvironment(n, n.Proto.GetEnvironmentId())
	case graph.TestStream:
		v.testStream(n)
	case graph.Group:
		v.keyed(n)
		v.grouping(n)
	}
	v.parDo(n)
	if payload := combinePayload(n.Proto); payload != nil && payload.GetAccumulatorCoderId() != "" {
		v.coder(n.Name(), payload.GetAccumulatorCoderId())
	}
}

// unknown reports a transform that nobody is known to carry out.
func (v *validator) unknown(n *graph.Node) {
	hint := "only the transforms of Beam's model can be primitive; the SDK should have expanded this one"
	switch n.URN() {
	case "":
		v.report(n.Name(), "it has neither a URN nor sub-transforms, and its outputs are not its inputs", "")
		return
	case urn.TransformRead:
		hint = "use a source that is a splittable DoFn; in Java, --experiments=use_sdf_read turns sources into that"
	case urn.TransformCombinePerKey:
		v.report(n.Name(), "it is a combine that cannot be lifted, and has no sub-transforms to run in its place",
			"lifting needs a KV input, an accumulator coder, an environment, and a trigger that does not look at each element")
		return
	}
	v.report(n.Name(), fmt.Sprintf("its URN %q is not known to this version of Trestle", n.URN()), hint)
}

// shape checks how many main inputs and outputs a primitive has.
func (v *validator) shape(n *graph.Node, kind graph.Kind) {
	wantIn, wantOut := 1, -1 // -1: any number
	switch kind {
	case graph.Impulse:
		wantIn, wantOut = 0, 1
	case graph.TestStream:
		wantIn = 0
	case graph.Group, graph.Reshuffle:
		wantOut = 1
	case graph.Flatten:
		wantIn, wantOut = -1, 1
	}
	if wantIn >= 0 && len(n.Mains) != wantIn {
		v.report(n.Name(), fmt.Sprintf("it has %d main inputs, where %s has %d", len(n.Mains), n.URN(), wantIn), "")
	}
	if wantOut >= 0 && len(n.Outputs) != wantOut {
		v.report(n.Name(), fmt.Sprintf("it has %d outputs, where %s has %d", len(n.Outputs), n.URN(), wantOut), "")
	}
	if kind == graph.Flatten || kind == graph.Reshuffle {
		v.sameWindows(n)
	}
	if kind == graph.Impulse && len(n.Outputs) == 1 {
		if coder := v.coderOf(n.Outputs[0]); coder != nil && coder.GetSpec().GetUrn() != urn.CoderBytes {
			v.report(n.Name(), fmt.Sprintf("its output's coder is %q: an impulse is bytes", coder.GetSpec().GetUrn()), "")
		}
	}
}

// sameWindows checks that what only passes on has the windows of what it came from: the senders write their windows in the
// reader's coder.
func (v *validator) sameWindows(n *graph.Node) {
	window := func(pc string) string {
		ws := v.c.GetWindowingStrategies()[v.c.GetPcollections()[pc].GetWindowingStrategyId()]
		return v.c.GetCoders()[ws.GetWindowCoderId()].GetSpec().GetUrn()
	}
	for _, out := range n.Outputs {
		for _, in := range n.Mains {
			if a, b := window(in), window(out); a != b && a != "" && b != "" {
				v.report(n.Name(), fmt.Sprintf("its input %q has windows of coder %q, its output %q of %q", in, a, out, b),
					"put the inputs into the same windows first")
			}
		}
	}
}

func (v *validator) inEnvironment(n *graph.Node, env string) {
	switch {
	case env == "":
		v.report(n.Name(), "it names no environment to run in", "")
	case v.c.GetEnvironments()[env] == nil:
		v.report(n.Name(), fmt.Sprintf("its environment %q is not in the pipeline", env), "")
	}
}

// pcollection checks what a PCollection refers to.
func (v *validator) pcollection(n *graph.Node, id string) {
	pc := v.c.GetPcollections()[id]
	if pc == nil {
		v.report(n.Name(), fmt.Sprintf("it refers to a PCollection %q that the pipeline does not have", id), "")
		return
	}
	v.coder(n.Name(), pc.GetCoderId())
	ws := v.c.GetWindowingStrategies()[pc.GetWindowingStrategyId()]
	if ws == nil {
		v.report(n.Name(), fmt.Sprintf("PCollection %q has a windowing strategy %q that the pipeline does not have",
			id, pc.GetWindowingStrategyId()), "")
		return
	}
	v.coder(n.Name(), ws.GetWindowCoderId())
}

// coderOf is a PCollection's coder; nil if it has none.
func (v *validator) coderOf(pcollection string) *pipepb.Coder {
	return v.c.GetCoders()[v.c.GetPcollections()[pcollection].GetCoderId()]
}

// maxNesting is how deep coders may nest: a walk over an element is a recursion, for which package coder has a limit of its
// own, and the coders that the plan puts around an element (a length prefix, pairs, the windowed value) count there.
const maxNesting = 90

// coder checks a coder and its components; name is a transform that uses it.
func (v *validator) coder(name, id string) {
	v.coderIn(name, id, map[string]bool{})
}

// coderIn checks a coder inside others, the path of which is given, and tells how deep coders nest in it.
func (v *validator) coderIn(name, id string, path map[string]bool) (depth int) {
	if path[id] {
		v.report(name, fmt.Sprintf("coder %q contains itself", id), "")
		return 0
	}
	if depth, ok := v.coders[id]; ok {
		return depth
	}
	c := v.c.GetCoders()[id]
	if c == nil {
		v.coders[id] = 0
		v.report(name, fmt.Sprintf("it needs a coder %q that the pipeline does not have", id), "")
		return 0
	}
	if want, known := urn.CoderArity(c.GetSpec().GetUrn()); known && len(c.GetComponentCoderIds()) != want {
		v.report(name, fmt.Sprintf("coder %q (%s) has %d component coders, where there should be %d",
			id, c.GetSpec().GetUrn(), len(c.GetComponentCoderIds()), want), "")
	}
	if len(path) < maxNesting {
		path[id] = true
		for _, comp := range c.GetComponentCoderIds() {
			depth = max(depth, v.coderIn(name, comp, path))
		}
		delete(path, id)
		depth++
	} else {
		depth = maxNesting + 1
	}
	v.coders[id] = depth
	if depth == maxNesting+1 { // those that it is in need not be told of
		v.report(name, fmt.Sprintf("coders nest deeper than %d levels, with %q among them", maxNesting, id), "")
	}
	return depth
}

// edges checks how the primitives are joined.
func (v *validator) edges(nodes []*graph.Node) {
	from := map[string]*graph.Node{}
	for _, n := range nodes {
		for _, pc := range n.Outputs {
			if other := from[pc]; other != nil && other != n {
				v.report(n.Name(), fmt.Sprintf("its output %q is also made by %s", pc, other.Name()), "")
			} else if other == n {
				v.report(n.Name(), fmt.Sprintf("it has %q as an output twice", pc), "")
			}
			from[pc] = n
		}
	}
	for _, n := range nodes {
		for _, tag := range sortedKeys(n.Proto.GetInputs()) {
			if pc := n.Proto.GetInputs()[tag]; from[pc] == nil && v.c.GetPcollections()[pc] != nil {
				v.report(n.Name(), fmt.Sprintf("no transform makes its input %q", pc), "")
			}
		}
	}
	if _, rest := graph.Sort(nodes); len(rest) > 0 {
		v.report(rest[0].Name(), "it depends on its own output, or on a transform that does", "")
	}
}

// requirements checks what the pipeline says it needs (Pipeline.requirements in beam_runner_api.proto: a runner should
// reject what it does not know).
func (v *validator) requirements() {
	for _, r := range v.p.GetRequirements() {
		switch r {
		case urn.RequirementSplittableDoFn, urn.RequirementFinalization, urn.RequirementStableInput,
			urn.RequirementStateful, urn.RequirementTimeSortedInput, urn.RequirementOnWindowExpiration:
		default:
			v.report("", fmt.Sprintf("it requires %q, which Trestle does not know", r), "")
		}
	}
}
