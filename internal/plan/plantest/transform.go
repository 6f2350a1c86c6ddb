package plantest

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
)

var kinds = map[string]string{
	"impulse": urn.TransformImpulse, "pardo": urn.TransformParDo, "gbk": urn.TransformGroupByKey,
	"flatten": urn.TransformFlatten, "reshuffle": urn.TransformReshuffle, "redistribute": urn.TransformRedistributeArbitrarily,
	"window_into": urn.TransformWindowInto, "combine": urn.TransformCombinePerKey, "precombine": urn.CombinePrecombine,
	"merge": urn.CombineMergeAccumulators, "extract": urn.CombineExtractOutputs, "grouped": urn.CombineGroupedValues,
	"pair": urn.SDFPairWithRestriction, "split": urn.SDFSplitAndSize, "process": urn.SDFProcessSizedElements,
	"teststream": urn.TransformTestStream, "leaf": "", "composite": "",
}

// transform reads "NAME(INPUTS) > OUTPUTS OPTIONS".
func (ps *parser) transform(kind, rest string) error {
	transformURN, ok := kinds[kind]
	if !ok {
		return fmt.Errorf("no kind %q", kind)
	}
	rest, opens := strings.CutSuffix(rest, "{")
	rest, options := cutOptions(strings.TrimSpace(rest))
	head, outs, _ := strings.Cut(rest, ">")
	name, ins, _ := strings.Cut(strings.TrimSpace(head), "(")
	t := &pipepb.PTransform{
		UniqueName: name, Spec: &pipepb.FunctionSpec{Urn: transformURN},
		Inputs: map[string]string{}, Outputs: map[string]string{},
	}
	sides := map[string]*pipepb.SideInput{}
	first := ""
	for i, in := range split(strings.TrimSuffix(ins, ")")) {
		tag, pc, side := strings.Cut(in, "=")
		if !side {
			tag, pc = fmt.Sprintf("i%d", i), in
			if first == "" {
				first = pc
			}
		} else {
			access := urn.SideInputIterable
			if main, isMap := strings.CutSuffix(pc, "/multimap"); isMap {
				pc, access = main, urn.SideInputMultimap
			} else if main, other, has := strings.Cut(pc, "/"); has {
				pc, access = main, other
			}
			sides[tag] = &pipepb.SideInput{AccessPattern: &pipepb.FunctionSpec{Urn: access}}
		}
		t.Inputs[tag] = pc
	}
	for i, out := range split(outs) {
		id, err := ps.output(out, t.Spec.Urn, first)
		if err != nil {
			return err
		}
		t.Outputs[fmt.Sprintf("o%d", i)] = id
	}
	if kind, known := graph.KindOf(transformURN); known && kind == graph.SDK {
		t.EnvironmentId = "sdk"
	}
	if err := ps.options(t, options, sides); err != nil {
		return err
	}
	if ps.c.Transforms[name] != nil {
		return fmt.Errorf("there is a transform %q already", name)
	}
	ps.c.Transforms[name] = t
	if len(ps.open) > 0 {
		parent := ps.open[len(ps.open)-1]
		parent.Subtransforms = append(parent.Subtransforms, name)
	} else {
		ps.p.RootTransformIds = append(ps.p.RootTransformIds, name)
	}
	if opens {
		ps.open = append(ps.open, t)
	}
	return nil
}

// cutOptions takes the words behind the outputs off: those that are flags, or key=value outside the parentheses.
func cutOptions(text string) (rest string, options []string) {
	for {
		i := strings.LastIndexAny(text, " ")
		if i < 0 {
			return text, options
		}
		word := text[i+1:]
		key, _, _ := strings.Cut(word, "=")
		switch key {
		case "env", "restriction", "acc", "urn", "stable", "sorted", "finalize", "state", "timers", "expiry", "broken":
		default:
			return text, options
		}
		text, options = strings.TrimSpace(text[:i]), append(options, word)
	}
}

func (ps *parser) options(t *pipepb.PTransform, options []string, sides map[string]*pipepb.SideInput) error {
	pardo := &pipepb.ParDoPayload{SideInputs: sides}
	combine := &pipepb.CombinePayload{}
	broken := false
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "env":
			t.EnvironmentId = value
		case "urn":
			t.Spec.Urn = value
		case "restriction", "acc":
			id, err := ps.coder(value)
			if err != nil {
				return err
			}
			pardo.RestrictionCoderId, combine.AccumulatorCoderId = id, id
		case "stable":
			pardo.RequiresStableInput = true
		case "sorted":
			pardo.RequiresTimeSortedInput = true
		case "finalize":
			pardo.RequestsFinalization = true
		case "state":
			pardo.StateSpecs = map[string]*pipepb.StateSpec{"s": state(value)}
		case "timers":
			if value == "both" {
				value, pardo.TimerFamilySpecs = "", timers(pardo.TimerFamilySpecs, "c", "processing")
			}
			pardo.TimerFamilySpecs = timers(pardo.TimerFamilySpecs, "t", value)
		case "expiry":
			pardo.TimerFamilySpecs = timers(pardo.TimerFamilySpecs, "end", "")
			pardo.OnWindowExpirationTimerFamilySpec = "end"
		case "broken":
			broken = true
		}
	}
	var payload proto.Message
	switch {
	case graph.HasParDoPayload(t.Spec.Urn):
		payload = pardo
	case t.Spec.Urn == urn.TransformTestStream:
		payload = ps.testStream(t)
	case t.Spec.Urn == urn.TransformCombinePerKey || strings.Contains(t.Spec.Urn, "combine_"):
		payload = combine
	}
	if payload != nil {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(payload)
		if err != nil {
			return err
		}
		t.Spec.Payload = b
	}
	if broken {
		t.Spec.Payload = []byte{0xff}
	}
	return nil
}

// testStream is the payload of a TestStream, whose elements have the coder of its first output: an element for each output, of
// no bytes, and the end of processing time.
func (ps *parser) testStream(t *pipepb.PTransform) *pipepb.TestStreamPayload {
	payload := &pipepb.TestStreamPayload{CoderId: ps.c.Pcollections[t.Outputs["o0"]].GetCoderId()}
	add := func(e *pipepb.TestStreamPayload_Event) { payload.Events = append(payload.Events, e) }
	for _, tag := range slices.Sorted(maps.Keys(t.Outputs)) {
		add(&pipepb.TestStreamPayload_Event{Event: &pipepb.TestStreamPayload_Event_ElementEvent{
			ElementEvent: &pipepb.TestStreamPayload_Event_AddElements{
				Tag: tag, Elements: []*pipepb.TestStreamPayload_TimestampedElement{{}},
			},
		}})
	}
	add(&pipepb.TestStreamPayload_Event{Event: &pipepb.TestStreamPayload_Event_ProcessingTimeEvent{
		ProcessingTimeEvent: &pipepb.TestStreamPayload_Event_AdvanceProcessingTime{AdvanceDuration: math.MaxInt64},
	}})
	return payload
}

// state is a state of the kind: a bag unless another is named.
func state(kind string) *pipepb.StateSpec {
	protocol := func(urn string) *pipepb.FunctionSpec { return &pipepb.FunctionSpec{Urn: urn} }
	switch kind {
	case "multimap":
		return &pipepb.StateSpec{Protocol: protocol(urn.UserStateMultimap), Spec: &pipepb.StateSpec_MultimapSpec{
			MultimapSpec: &pipepb.MultimapStateSpec{KeyCoderId: "bytes", ValueCoderId: "bytes"}}}
	case "list":
		return &pipepb.StateSpec{Protocol: protocol(urn.UserStateOrderedList), Spec: &pipepb.StateSpec_OrderedListSpec{
			OrderedListSpec: &pipepb.OrderedListStateSpec{ElementCoderId: "bytes"}}}
	case "", "bag":
		kind = urn.UserStateBag
	}
	return &pipepb.StateSpec{Protocol: protocol(kind), Spec: &pipepb.StateSpec_BagSpec{BagSpec: &pipepb.BagStateSpec{ElementCoderId: "bytes"}}}
}

// timers adds a family; domain is event unless it is processing.
func timers(to map[string]*pipepb.TimerFamilySpec, family, domain string) map[string]*pipepb.TimerFamilySpec {
	if to == nil {
		to = map[string]*pipepb.TimerFamilySpec{}
	}
	spec := &pipepb.TimerFamilySpec{TimeDomain: pipepb.TimeDomain_EVENT_TIME, TimerFamilyCoderId: "timer"}
	switch domain {
	case "":
	case "processing":
		spec.TimeDomain = pipepb.TimeDomain_PROCESSING_TIME
	default:
		spec.TimeDomain = pipepb.TimeDomain_UNSPECIFIED
	}
	to[family] = spec
	return to
}

// output reads NAME[:CODER][@WINDOW][~] and adds the PCollection, unless it is there.
func (ps *parser) output(text, transformURN, input string) (string, error) {
	text, unbounded := strings.CutSuffix(text, "~")
	text, window, _ := strings.Cut(text, "@")
	id, coder, _ := strings.Cut(text, ":")
	if ps.c.Pcollections[id] != nil {
		return id, nil
	}
	pc := &pipepb.PCollection{UniqueName: id, IsBounded: pipepb.IsBounded_BOUNDED, WindowingStrategyId: window}
	from := ps.c.Pcollections[input]
	if unbounded || from.GetIsBounded() == pipepb.IsBounded_UNBOUNDED {
		pc.IsBounded = pipepb.IsBounded_UNBOUNDED
	}
	if window == "" {
		if pc.WindowingStrategyId = from.GetWindowingStrategyId(); pc.WindowingStrategyId == "" {
			pc.WindowingStrategyId = "global"
		}
	}
	if coder == "" {
		if coder = from.GetCoderId(); coder == "" {
			coder = "bytes"
		}
		if kv := ps.c.Coders[coder]; transformURN == urn.TransformGroupByKey && len(kv.GetComponentCoderIds()) == 2 {
			coder = fmt.Sprintf("kv(%s, iterable(%s))", kv.ComponentCoderIds[0], kv.ComponentCoderIds[1])
		}
	}
	var err error
	pc.CoderId, err = ps.coder(coder)
	ps.c.Pcollections[id] = pc
	return id, err
}
