package plan

import (
	"fmt"
	"maps"
	"slices"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

// describe makes what the harness is told to run (ProcessBundleDescriptor in beam_fn_api.proto): the stage's transforms
// between a source and its sinks, with everything that they refer to, and no composites.
func (a *assembly) describe(s *Stage) {
	d := &descriptor{assembly: a, out: emptyDescriptor(fmt.Sprintf("stage-%d", s.Index))}
	d.environment(s.Environment)
	for _, id := range s.Transforms {
		d.transform(id, s.Environment)
	}
	if s.Input.State != nil {
		d.state(s.Input.State)
	}

	s.Input.Source = d.port(fmt.Sprintf("stage-%d-source", s.Index), urn.RunnerSource, s.Input.Coder)
	d.out.Transforms[s.Input.Source].Outputs = map[string]string{"out": s.Input.PCollection}
	d.boundary(s.Input.PCollection, a.inside(s.Input))
	for i := range s.Outputs {
		out := &s.Outputs[i]
		out.Sink = d.port(fmt.Sprintf("stage-%d-sink-%d", s.Index, i), urn.RunnerSink, out.Coder)
		d.out.Transforms[out.Sink].Inputs = map[string]string{"in": out.PCollection}
		if i == 0 || !slices.ContainsFunc(s.Outputs[:i], func(o Output) bool { return o.PCollection == out.PCollection }) {
			d.boundary(out.PCollection, out.Coder)
		}
	}
	for _, side := range s.SideInputs {
		d.boundary(side.PCollection, side.Coder)
	}
	s.Descriptor = d.out
	s.Input.Truncation = a.truncation(s)
}

// inside is the windowed coder that the stage's transforms see their input in. It is the wire's, but for groups that may
// be read from state: that is said of the port alone. (Java's harness can make a state-backed coder for a port only.)
func (a *assembly) inside(in Input) string {
	if in.Group == nil || !in.Group.StateBacked {
		return in.Coder
	}
	n := a.g.Node(in.Group.Transform)
	return a.wires.windowed(a.grouped(n, false), a.window(n.Mains[0]))
}

type descriptor struct {
	*assembly
	out *fnpb.ProcessBundleDescriptor
}

// transform adds one of the stage's transforms and what it refers to.
func (d *descriptor) transform(id, environment string) {
	n := d.g.Node(id)
	t := proto.Clone(n.Proto).(*pipepb.PTransform)
	t.EnvironmentId = environment // a Flatten may come without
	d.out.Transforms[id] = t
	for _, pcs := range []map[string]string{t.GetInputs(), t.GetOutputs()} {
		for _, pc := range pcs {
			d.pcollection(pc)
		}
	}
	if n.ParDo.GetRestrictionCoderId() != "" {
		d.coder(n.ParDo.GetRestrictionCoderId())
	}
	if payload := combinePayload(t); payload.GetAccumulatorCoderId() != "" {
		d.coder(payload.GetAccumulatorCoderId())
	}
}

// port adds a source or sink and returns its id. The endpoint is for whoever hands the descriptor to a harness.
func (d *descriptor) port(id, portURN, coder string) string {
	for base, n := id, 2; d.g.Node(id) != nil; n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	d.coder(coder)
	// A message of one string that is known to be valid UTF-8 always marshals.
	payload, _ := proto.Marshal(&fnpb.RemoteGrpcPort{CoderId: coder})
	d.out.Transforms[id] = &pipepb.PTransform{UniqueName: id, Spec: &pipepb.FunctionSpec{Urn: portURN, Payload: payload}}
	return id
}

// boundary gives a PCollection at the stage's edge the element coder of its records, in place of its own.
func (d *descriptor) boundary(pcollection, windowedCoder string) {
	element := d.comps.GetCoders()[windowedCoder].GetComponentCoderIds()[0]
	d.pcollection(pcollection)
	d.out.Pcollections[pcollection].CoderId = element
	d.coder(element)
}

func (d *descriptor) pcollection(id string) {
	if d.out.Pcollections[id] != nil {
		return
	}
	pc := proto.Clone(d.comps.GetPcollections()[id]).(*pipepb.PCollection)
	d.out.Pcollections[id] = pc
	d.coder(pc.GetCoderId())
	if ws := d.comps.GetWindowingStrategies()[pc.GetWindowingStrategyId()]; d.out.WindowingStrategies[pc.GetWindowingStrategyId()] == nil {
		d.out.WindowingStrategies[pc.GetWindowingStrategyId()] = ws
		d.coder(ws.GetWindowCoderId())
		if ws.GetEnvironmentId() != "" {
			d.environment(ws.GetEnvironmentId())
		}
	}
}

// coder adds a coder and its components.
func (d *descriptor) coder(id string) {
	if d.out.Coders[id] != nil {
		return
	}
	c := d.comps.GetCoders()[id]
	d.out.Coders[id] = c
	for _, comp := range c.GetComponentCoderIds() {
		d.coder(comp)
	}
}

func (d *descriptor) environment(id string) {
	if env := d.comps.GetEnvironments()[id]; env != nil {
		d.out.Environments[id] = env
	}
}

// combinePayload is the payload of a transform that has a CombinePayload; nil for others.
func combinePayload(t *pipepb.PTransform) *pipepb.CombinePayload {
	switch t.GetSpec().GetUrn() {
	case urn.TransformCombinePerKey, urn.CombinePrecombine, urn.CombineMergeAccumulators, urn.CombineExtractOutputs,
		urn.CombineGroupedValues, urn.CombineConvertToAccumulators:
		payload := &pipepb.CombinePayload{}
		if err := proto.Unmarshal(t.GetSpec().GetPayload(), payload); err == nil {
			return payload
		}
	}
	return nil
}

// sortedKeys are a map's keys in order: whatever is reported or decided in a loop over a map goes by it.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
