package rewrite

import (
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/plan/graph"
)

// Primitives are the ids of the transforms that do the work, in the order of a walk from the roots: those of a URN that an
// environment or the runner carries out (a Reshuffle is one, whatever is in it), those for which whole is true, and what
// has no sub-transforms. A composite without sub-transforms that only passes inputs on (Identity) does no work. The
// pipeline need not be valid: each transform is visited once.
//
// What no root contains is not a part of the pipeline: SDKs leave such things behind when they expand external transforms.
func Primitives(p *pipepb.Pipeline, whole func(id string) bool) []string {
	var ids []string
	seen := map[string]bool{}
	var walk func(id string)
	walk = func(id string) {
		t := p.GetComponents().GetTransforms()[id]
		if t == nil || seen[id] {
			return
		}
		seen[id] = true
		_, known := graph.KindOf(t.GetSpec().GetUrn())
		switch {
		case known || whole(id):
			ids = append(ids, id)
		case len(t.GetSubtransforms()) > 0:
			for _, sub := range t.GetSubtransforms() {
				walk(sub)
			}
		case !Identity(t):
			ids = append(ids, id)
		}
	}
	for _, id := range p.GetRootTransformIds() {
		walk(id)
	}
	return ids
}

// Identity tells whether a transform without sub-transforms does nothing: it has no URN that anybody carries out, and
// outputs PCollections of its inputs only (PTransform.subtransforms in beam_runner_api.proto).
func Identity(t *pipepb.PTransform) bool {
	if len(t.GetSubtransforms()) > 0 {
		return false
	}
	if _, known := graph.KindOf(t.GetSpec().GetUrn()); known {
		return false
	}
	inputs := map[string]bool{}
	for _, pc := range t.GetInputs() {
		inputs[pc] = true
	}
	for _, pc := range t.GetOutputs() {
		if !inputs[pc] {
			return false
		}
	}
	return len(t.GetOutputs()) > 0 || t.GetSpec().GetUrn() == ""
}

// keepPrimitives drops the composites. Messages lose nothing by it: a unique name has the enclosing names in it.
func keepPrimitives(p *pipepb.Pipeline) {
	ids := Primitives(p, func(string) bool { return false })
	kept := make(map[string]*pipepb.PTransform, len(ids))
	for _, id := range ids {
		t := p.GetComponents().GetTransforms()[id]
		t.Subtransforms = nil
		kept[id] = t
	}
	p.Components.Transforms = kept
	p.RootTransformIds = ids
}
