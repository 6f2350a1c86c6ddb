package rewrite

import (
	"fmt"
	"maps"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

// expandSplittables replaces each ParDo of a splittable DoFn by its three steps
// (StandardPTransforms.SplittableParDoComponents in beam_runner_api.proto):
//
//	element → PairWithRestriction → KV(element, restriction)
//	        → SplitAndSize        → KV(KV(element, restriction), size)
//	        → ProcessSizedElements → the DoFn's outputs
//
// where the payload's restriction coder is that of the restriction together with the watermark estimator's state. Every
// step has the payload, and with it the side inputs: an SDK may read them in any of the DoFn's methods.
//
// The processing step keeps the ParDo's id and name, so that metrics and messages speak of what the user wrote.
func expandSplittables(p *pipepb.Pipeline) error {
	c := p.GetComponents()
	var ids []string
	for _, id := range p.GetRootTransformIds() {
		t := c.GetTransforms()[id]
		if t.GetSpec().GetUrn() == urn.TransformParDo {
			var payload pipepb.ParDoPayload
			if err := proto.Unmarshal(t.GetSpec().GetPayload(), &payload); err != nil {
				return fmt.Errorf("transform %q: decode ParDoPayload: %w", id, err)
			}
			if payload.GetRestrictionCoderId() != "" {
				ids = append(ids, expandSplittable(c, id, t, &payload)...)
			}
		}
		ids = append(ids, id)
	}
	p.RootTransformIds = ids
	return nil
}

// expandSplittable makes t the processing step and returns the ids of the steps before it.
func expandSplittable(c *pipepb.Components, id string, t *pipepb.PTransform, payload *pipepb.ParDoPayload) []string {
	main := mainTag(t, payload)
	input := c.GetPcollections()[t.GetInputs()[main]]

	pairCoder := addCoder(c, id+"-pair", urn.CoderKV, input.GetCoderId(), payload.GetRestrictionCoderId())
	sizedCoder := addCoder(c, id+"-sized", urn.CoderKV, pairCoder, addCoder(c, id+"-size", urn.CoderDouble))
	paired := addPCollection(c, id+"-paired", t.GetUniqueName()+"/PairWithRestriction.out", pairCoder, input)
	sized := addPCollection(c, id+"-sized", t.GetUniqueName()+"/SplitAndSize.out", sizedCoder, input)

	step := func(idSuffix, name, stepURN, in, out string) string {
		s := proto.Clone(t).(*pipepb.PTransform)
		s.UniqueName = t.GetUniqueName() + name
		s.Spec.Urn = stepURN
		s.Inputs[main] = in
		s.Outputs = map[string]string{"out": out}
		return addTransform(c, id+idSuffix, s)
	}
	before := []string{
		step("-pair", "/PairWithRestriction", urn.SDFPairWithRestriction, t.GetInputs()[main], paired),
		step("-split", "/SplitAndSize", urn.SDFSplitAndSize, paired, sized),
	}
	t.Spec.Urn = urn.SDFProcessSizedElements
	t.Inputs = maps.Clone(t.GetInputs())
	t.Inputs[main] = sized
	return before
}

// mainTag is the local name of the one input that is no side input.
func mainTag(t *pipepb.PTransform, payload *pipepb.ParDoPayload) string {
	for tag := range t.GetInputs() {
		if _, side := payload.GetSideInputs()[tag]; !side {
			return tag
		}
	}
	return ""
}
