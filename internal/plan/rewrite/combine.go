package rewrite

import (
	"maps"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

// liftCombines replaces the inside of each combine_per_key that allows it by the lifted form
// (StandardPTransforms.CombineComponents in beam_runner_api.proto), so that a combine's values meet before they are sent:
//
//	KV(K, V) → Precombine → KV(K, A) → GroupByKey → KV(K, Iterable(A)) → MergeAccumulators → KV(K, A) → ExtractOutputs
func liftCombines(p *pipepb.Pipeline) {
	c := p.GetComponents()
	combines := NewCombines(p)
	for _, id := range slices.Sorted(maps.Keys(c.GetTransforms())) {
		t := c.GetTransforms()[id]
		if env, ok := combines.Liftable(id); ok {
			lift(c, id, t, env)
		}
	}
}

// Combines tells which combines of a pipeline can be lifted. The pipeline need not be valid.
type Combines struct {
	c *pipepb.Components
	// readers has the primitive transforms that read a PCollection.
	readers map[string][]string
}

// NewCombines looks at a pipeline.
func NewCombines(p *pipepb.Pipeline) *Combines {
	l := &Combines{c: p.GetComponents(), readers: map[string][]string{}}
	for _, id := range Primitives(p, func(string) bool { return false }) {
		for _, pc := range l.c.GetTransforms()[id].GetInputs() {
			l.readers[pc] = append(l.readers[pc], id)
		}
	}
	return l
}

// Liftable tells whether the transform is a combine_per_key that can be lifted, and the environment of its CombineFn.
//
// Lifting merges elements before they reach the grouping, so that a trigger that looks at each element would see too few:
// one that counts them, and Always, which gives each a pane. Merging windows do not matter: Precombine keeps each window's
// accumulator by itself and the grouping merges them.
func (l *Combines) Liftable(id string) (environment string, ok bool) {
	c := l.c
	t := c.GetTransforms()[id]
	if t.GetSpec().GetUrn() != urn.TransformCombinePerKey || len(t.GetInputs()) != 1 || len(t.GetOutputs()) != 1 {
		return "", false
	}
	var payload pipepb.CombinePayload
	if err := proto.Unmarshal(t.GetSpec().GetPayload(), &payload); err != nil || c.GetCoders()[payload.GetAccumulatorCoderId()] == nil {
		return "", false
	}
	input := c.GetPcollections()[only(t.GetInputs())]
	coder := c.GetCoders()[input.GetCoderId()]
	if coder.GetSpec().GetUrn() != urn.CoderKV || len(coder.GetComponentCoderIds()) != 2 {
		return "", false
	}
	if !sparseTrigger(c.GetWindowingStrategies()[input.GetWindowingStrategyId()].GetTrigger()) {
		return "", false
	}
	environment = t.GetEnvironmentId()
	if environment == "" {
		environment = environmentWithin(c, t)
	}
	return environment, environment != "" && !l.readInside(id)
}

// sparseTrigger tells whether a trigger fires alike whether it sees every element or only one for each key and window.
func sparseTrigger(t *pipepb.Trigger) bool {
	all := func(list []*pipepb.Trigger) bool {
		return !slices.ContainsFunc(list, func(t *pipepb.Trigger) bool { return !sparseTrigger(t) })
	}
	switch t := t.GetTrigger().(type) {
	case nil, *pipepb.Trigger_Default_, *pipepb.Trigger_Never_,
		*pipepb.Trigger_AfterProcessingTime_, *pipepb.Trigger_AfterSynchronizedProcessingTime_:
		return true
	case *pipepb.Trigger_AfterEndOfWindow_:
		return sparseTrigger(t.AfterEndOfWindow.GetEarlyFirings()) && sparseTrigger(t.AfterEndOfWindow.GetLateFirings())
	case *pipepb.Trigger_AfterAny_:
		return all(t.AfterAny.GetSubtriggers())
	case *pipepb.Trigger_Repeat_:
		return sparseTrigger(t.Repeat.GetSubtrigger())
	}
	return false
}

// environmentWithin is the one environment of the transforms inside t; "" when there are none or several.
func environmentWithin(c *pipepb.Components, t *pipepb.PTransform) string {
	found := map[string]bool{}
	for _, id := range inside(c, t) {
		if env := c.GetTransforms()[id].GetEnvironmentId(); env != "" {
			found[env] = true
		}
	}
	if len(found) != 1 {
		return ""
	}
	for env := range found {
		return env
	}
	return ""
}

// readInside tells whether something outside the composite reads a PCollection that is made inside it, other than the
// composite's output: then the inside has to stay.
func (l *Combines) readInside(id string) bool {
	t := l.c.GetTransforms()[id]
	subs := inside(l.c, t)
	within := map[string]bool{id: true}
	for _, sub := range subs {
		within[sub] = true
	}
	out := only(t.GetOutputs())
	for _, sub := range subs {
		for _, pc := range l.c.GetTransforms()[sub].GetOutputs() {
			if pc != out && slices.ContainsFunc(l.readers[pc], func(reader string) bool { return !within[reader] }) {
				return true
			}
		}
	}
	return false
}

// inside are the ids of the transforms below t, at any depth.
func inside(c *pipepb.Components, t *pipepb.PTransform) []string {
	var ids []string
	seen := map[string]bool{}
	todo := slices.Clone(t.GetSubtransforms())
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[id] || c.GetTransforms()[id] == nil {
			continue
		}
		seen[id] = true
		ids = append(ids, id)
		todo = append(todo, c.GetTransforms()[id].GetSubtransforms()...)
	}
	return ids
}

func lift(c *pipepb.Components, id string, t *pipepb.PTransform, environment string) {
	var payload pipepb.CombinePayload
	if err := proto.Unmarshal(t.GetSpec().GetPayload(), &payload); err != nil {
		return // Liftable has decoded it
	}
	in, out := only(t.GetInputs()), only(t.GetOutputs())
	input, output := c.GetPcollections()[in], c.GetPcollections()[out]
	key, acc := c.GetCoders()[input.GetCoderId()].GetComponentCoderIds()[0], payload.GetAccumulatorCoderId()

	accumulated := addCoder(c, id+"-accumulated", urn.CoderKV, key, acc)
	grouped := addCoder(c, id+"-grouped", urn.CoderKV, key, addCoder(c, id+"-accumulators", urn.CoderIterable, acc))
	name := t.GetUniqueName()
	pre := addPCollection(c, id+"-precombined", name+"/Precombine.out", accumulated, input)
	group := addPCollection(c, id+"-grouped", name+"/Group.out", grouped, output)
	merged := addPCollection(c, id+"-merged", name+"/Merge.out", accumulated, output)

	step := func(idSuffix, nameSuffix, stepURN, in, out string) string {
		s := &pipepb.PTransform{
			UniqueName:  name + nameSuffix,
			Spec:        &pipepb.FunctionSpec{Urn: stepURN},
			Inputs:      map[string]string{"in": in},
			Outputs:     map[string]string{"out": out},
			Annotations: t.GetAnnotations(),
		}
		if stepURN != urn.TransformGroupByKey {
			s.Spec.Payload = t.GetSpec().GetPayload()
			s.EnvironmentId = environment
		}
		return addTransform(c, id+idSuffix, s)
	}
	t.Subtransforms = []string{
		step("-precombine", "/Precombine", urn.CombinePrecombine, in, pre),
		step("-group", "/Group", urn.TransformGroupByKey, pre, group),
		step("-merge", "/Merge", urn.CombineMergeAccumulators, group, merged),
		step("-extract", "/ExtractOutputs", urn.CombineExtractOutputs, merged, out),
	}
}

// only is the value of a map that has one.
func only(m map[string]string) string {
	for _, v := range m {
		return v
	}
	return ""
}
