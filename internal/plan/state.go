package plan

import (
	"cmp"
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
)

// stateful reports what is wrong with a DoFn's state and timers.
func (v *validator) stateful(n *graph.Node) {
	if n.URN() != urn.TransformParDo || n.ParDo.GetRestrictionCoderId() != "" {
		v.report(n.Name(), "its DoFn is splittable and has state or timers: the model has no such thing", "")
	}
	for _, pc := range n.Mains {
		if c := v.coderOf(pc); c != nil && c.GetSpec().GetUrn() != urn.CoderKV {
			v.report(n.Name(), fmt.Sprintf("its DoFn has state, timers or sorted input, and its input's coder is %q, where it needs %q",
				c.GetSpec().GetUrn(), urn.CoderKV), "give each element a key")
		}
	}
	for _, id := range sortedKeys(n.ParDo.GetStateSpecs()) {
		spec := n.ParDo.GetStateSpecs()[id]
		if _, known := stateKind(spec); !known {
			v.report(n.Name(), fmt.Sprintf("its state %q has the protocol %q, which this version of Trestle does not know", id, spec.GetProtocol().GetUrn()), "")
		}
		for _, c := range stateCoders(spec) {
			v.coder(n.Name(), *c)
		}
	}
	for _, family := range sortedKeys(n.ParDo.GetTimerFamilySpecs()) {
		spec := n.ParDo.GetTimerFamilySpecs()[family]
		switch spec.GetTimeDomain() {
		case pipepb.TimeDomain_EVENT_TIME, pipepb.TimeDomain_PROCESSING_TIME:
		default:
			v.report(n.Name(), fmt.Sprintf("its timer family %q has the time domain %v", family, spec.GetTimeDomain()), "")
		}
	}
	if family := n.ParDo.GetOnWindowExpirationTimerFamilySpec(); family != "" && n.ParDo.GetTimerFamilySpecs()[family] == nil {
		v.report(n.Name(), fmt.Sprintf("the timer family %q for the end of its windows is not among its timer families", family), "")
	}
}

// mergingState reports state and timers in windows that may yet merge: those of several windows would have to become one, for
// which the model has no rule, and Beam's other runners refuse it too. Behind a grouping windows are merged, whatever their
// strategy says: Python's does not say.
func (v *validator) mergingState(nodes []*graph.Node) {
	makers := map[string]*graph.Node{}
	for _, n := range nodes {
		for _, pc := range n.Proto.GetOutputs() {
			makers[pc] = n
		}
	}
	for _, n := range nodes {
		if n.ParDo == nil || !n.Stateful() {
			continue
		}
		for _, pc := range n.Mains {
			id := v.c.GetPcollections()[pc].GetWindowingStrategyId()
			ws := v.c.GetWindowingStrategies()[id]
			if ws == nil || !merges(ws) || !unmerged(v.c, makers, pc, map[string]bool{}) {
				continue
			}
			v.report(n.Name(), fmt.Sprintf("its DoFn has state, timers or sorted input, in windows that may yet merge (%s)", ws.GetWindowFn().GetUrn()),
				"group by key before it, which merges them, or use windows that do not merge")
		}
	}
}

// unmerged tells whether elements of a collection, in windows that merge, may have come there by no grouping. Each collection is
// seen once.
func unmerged(c *pipepb.Components, makers map[string]*graph.Node, pc string, seen map[string]bool) bool {
	if seen[pc] {
		return false
	}
	seen[pc] = true
	maker := makers[pc]
	if maker == nil {
		return false // reported with the transform that reads it
	}
	switch maker.URN() {
	case urn.TransformGroupByKey, urn.TransformCombinePerKey, urn.CombineGroupedValues:
		return false
	}
	if len(maker.Mains) == 0 {
		return true
	}
	windowing := func(pc string) string { return c.GetPcollections()[pc].GetWindowingStrategyId() }
	for _, in := range maker.Mains {
		if windowing(in) != windowing(pc) || unmerged(c, makers, in, seen) {
			return true
		}
	}
	return false
}

// stateKind is the protocol by which a state is read and written. SDKs of before Beam 2.22 name only the type.
func stateKind(s *pipepb.StateSpec) (kind string, known bool) {
	switch kind = s.GetProtocol().GetUrn(); kind {
	case urn.UserStateBag, urn.UserStateMultimap, urn.UserStateOrderedList:
		return kind, true
	case "":
	default:
		return kind, false
	}
	switch s.GetSpec().(type) {
	case *pipepb.StateSpec_ReadModifyWriteSpec, *pipepb.StateSpec_BagSpec, *pipepb.StateSpec_CombiningSpec:
		return urn.UserStateBag, true
	case *pipepb.StateSpec_MapSpec, *pipepb.StateSpec_SetSpec, *pipepb.StateSpec_MultimapSpec:
		return urn.UserStateMultimap, true
	case *pipepb.StateSpec_OrderedListSpec:
		return urn.UserStateOrderedList, true
	}
	return "", false
}

// stateCoders are the places where a state's specification names coders.
func stateCoders(s *pipepb.StateSpec) []*string {
	switch s := s.GetSpec().(type) {
	case *pipepb.StateSpec_ReadModifyWriteSpec:
		return []*string{&s.ReadModifyWriteSpec.CoderId}
	case *pipepb.StateSpec_BagSpec:
		return []*string{&s.BagSpec.ElementCoderId}
	case *pipepb.StateSpec_CombiningSpec:
		return []*string{&s.CombiningSpec.AccumulatorCoderId}
	case *pipepb.StateSpec_MapSpec:
		return []*string{&s.MapSpec.KeyCoderId, &s.MapSpec.ValueCoderId}
	case *pipepb.StateSpec_MultimapSpec:
		return []*string{&s.MultimapSpec.KeyCoderId, &s.MultimapSpec.ValueCoderId}
	case *pipepb.StateSpec_SetSpec:
		return []*string{&s.SetSpec.ElementCoderId}
	case *pipepb.StateSpec_OrderedListSpec:
		return []*string{&s.OrderedListSpec.ElementCoderId}
	}
	return nil
}

// state is what a stage keeps for its first transform.
func (a *assembly) state(n *graph.Node) *State {
	read := n.Mains[0]
	s := &State{
		Transform: n.ID, Kinds: map[string]string{}, Values: map[string]string{}, Sorted: n.ParDo.GetRequiresTimeSortedInput(), Windowing: a.windowing(read),
		Expiration: n.ParDo.GetOnWindowExpirationTimerFamilySpec(),
	}
	for id, spec := range n.ParDo.GetStateSpecs() {
		s.Kinds[id], _ = stateKind(spec)
		if value := cmp.Or(spec.GetMultimapSpec().GetValueCoderId(), spec.GetMapSpec().GetValueCoderId()); value != "" {
			if walkable := a.wires.walkable(value); walkable != "" {
				s.Values[id] = walkable
			}
		}
	}
	key, _, ok := a.wires.keyValue(a.form(read))
	if !ok {
		a.problems = append(a.problems, Problem{Transform: n.Name(), Reason: "the elements that it keeps state for do not reach it as key-value pairs"})
		return s
	}
	for _, family := range sortedKeys(n.ParDo.GetTimerFamilySpecs()) {
		s.Timers = append(s.Timers, TimerFamily{
			Name:           family,
			Coder:          a.wires.make(cmp.Or(key, "key")+"-timer", urn.CoderTimer, nil, key, a.window(read)),
			ProcessingTime: n.ParDo.GetTimerFamilySpecs()[family].GetTimeDomain() == pipepb.TimeDomain_PROCESSING_TIME,
		})
	}
	return s
}

// state makes the coders of a transform's state and timers those of the wire: keys and windows of timers are the same bytes
// as in elements, and values of ordered lists tell their length, whatever they are.
func (d *descriptor) state(s *State) {
	t := d.out.Transforms[s.Transform]
	pardo := proto.CloneOf(d.g.Node(s.Transform).ParDo)
	for _, spec := range pardo.GetStateSpecs() {
		if list := spec.GetOrderedListSpec(); list != nil && d.comps.GetCoders()[list.GetElementCoderId()].GetSpec().GetUrn() != urn.CoderLengthPrefix {
			list.ElementCoderId = d.wires.make(list.GetElementCoderId()+"-prefixed", urn.CoderLengthPrefix, nil, list.GetElementCoderId())
		}
		for _, id := range stateCoders(spec) {
			d.coder(*id)
		}
	}
	for _, family := range s.Timers {
		pardo.TimerFamilySpecs[family.Name].TimerFamilyCoderId = family.Coder
		d.coder(family.Coder)
	}
	// What was decoded always marshals.
	t.Spec.Payload, _ = proto.MarshalOptions{Deterministic: true}.Marshal(pardo)
}
