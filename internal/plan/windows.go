package plan

import (
	"fmt"
	"strings"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/grouping"
	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
)

// merges tells whether a grouping has to merge windows. Windows that an earlier grouping merged are grouped as they are.
func merges(ws *pipepb.WindowingStrategy) bool {
	switch ws.GetMergeStatus() {
	case pipepb.MergeStatus_NON_MERGING, pipepb.MergeStatus_ALREADY_MERGED:
		return false
	case pipepb.MergeStatus_NEEDS_MERGE:
		return true
	}
	switch ws.GetWindowFn().GetUrn() {
	case urn.WindowFnGlobal, urn.WindowFnFixed, urn.WindowFnSliding:
		return false
	}
	return true
}

// sessions tells whether windows merge as sessions do, which the runner knows by itself.
func sessions(coders map[string]*pipepb.Coder, ws *pipepb.WindowingStrategy) bool {
	return ws.GetWindowFn().GetUrn() == urn.WindowFnSessions &&
		coders[ws.GetWindowCoderId()].GetSpec().GetUrn() == urn.CoderIntervalWindow
}

// merging reports windows that only an SDK could merge, when it is not known which.
func (v *validator) merging(transform string, ws *pipepb.WindowingStrategy) {
	if !merges(ws) || sessions(v.c.GetCoders(), ws) {
		return
	}
	switch env := ws.GetEnvironmentId(); {
	case env == "":
		v.report(transform, fmt.Sprintf("it groups windows that merge in a way of their own (%s), and they name no environment to merge them in",
			ws.GetWindowFn().GetUrn()), "")
	case v.c.GetEnvironments()[env] == nil:
		v.report(transform, fmt.Sprintf("the environment %q of the windows that it groups is not in the pipeline", env), "")
	}
}

// windowings makes windowing strategies explicit: windows get a coder for the wire, on the harness's side too, which uses
// it in its state requests; what is unspecified gets the value that the model implies.
func (a *assembly) windowings() {
	for _, id := range sortedKeys(a.comps.GetWindowingStrategies()) {
		ws := a.comps.GetWindowingStrategies()[id]
		if a.comps.GetCoders()[ws.GetWindowCoderId()] == nil {
			continue // no PCollection has it, or validation would have told
		}
		if ws.GetMergeStatus() == pipepb.MergeStatus_UNSPECIFIED {
			ws.MergeStatus = pipepb.MergeStatus_NON_MERGING
			if merges(&pipepb.WindowingStrategy{WindowFn: ws.GetWindowFn()}) {
				ws.MergeStatus = pipepb.MergeStatus_NEEDS_MERGE
			}
		}
		if ws.GetOutputTime() == pipepb.OutputTime_UNSPECIFIED {
			ws.OutputTime = pipepb.OutputTime_END_OF_WINDOW
		}
		ws.WindowCoderId = a.wires.window(ws.GetWindowCoderId())
	}
}

// merging makes what an SDK is told to run to merge the windows of a grouping, which has a name; nil when it need not.
func (a *assembly) merging(stage int, grouping string, ws *pipepb.WindowingStrategy) *Merging {
	if !merges(ws) || sessions(a.comps.GetCoders(), ws) {
		return nil
	}
	w := a.wires
	nonce, global, window := w.make("nonce", urn.CoderBytes, nil), w.make("global", urn.CoderGlobalWindow, nil), ws.GetWindowCoderId()
	windows := w.make(window+"-many", urn.CoderIterable, nil, window)
	merged := w.make(window+"-merged", urn.CoderIterable, nil, w.make(window+"-merge", urn.CoderKV, nil, window, windows))
	input := w.make(window+"-to-merge", urn.CoderKV, nil, nonce, windows)
	output := w.make(window+"-of-merge", urn.CoderKV, nil, nonce, w.make(window+"-results", urn.CoderKV, nil, windows, merged))

	m := &Merging{
		Environment: ws.GetEnvironmentId(), Source: "merge-windows-source", Sink: "merge-windows-sink",
		Input: w.windowed(input, global), Output: w.windowed(output, global),
	}
	m.Descriptor = a.question(question{
		id: fmt.Sprintf("stage-%d-merge-windows", stage), environment: m.Environment,
		name: grouping + "/MergeWindows", transform: "merge-windows", urn: urn.TransformMergeWindows, function: ws.GetWindowFn(), answer: "merged",
		source: m.Source, sink: m.Sink, input: m.Input, output: m.Output,
	})
	return m
}

// sameWindow is TypeScript's name of the mapping of windows that gives the same window. Its harness maps no windows.
const sameWindow = "beam:window_mapping_fn:identity:v1"

// readiness says when a side input of a transform can be read.
func (a *assembly) readiness(si *SideInput, n *graph.Node) {
	si.Windowing = a.windowing(si.PCollection)
	if merges(si.Windowing) {
		// A view has the windows as they come.
		si.Windowing = proto.Clone(si.Windowing).(*pipepb.WindowingStrategy)
		si.Windowing.MergeStatus = pipepb.MergeStatus_ALREADY_MERGED
	}
	if err := grouping.Check(si.Windowing); err != nil {
		a.problems = append(a.problems, Problem{Transform: n.Name(), Reason: fmt.Sprintf("its side input %q comes in panes that the model forbids: %s",
			si.Tag, strings.ReplaceAll(err.Error(), "\n", "; "))})
	}
	w := a.wires
	from, to := a.window(n.Mains[0]), si.Windowing.GetWindowCoderId()
	if a.comps.GetCoders()[to].GetSpec().GetUrn() == urn.CoderGlobalWindow {
		return
	}
	mapping := n.ParDo.GetSideInputs()[si.Tag].GetWindowMappingFn()
	if mapping.GetUrn() == sameWindow {
		si.Same = true
		return
	}
	nonce, global := w.make("nonce", urn.CoderBytes, nil), w.make("global", urn.CoderGlobalWindow, nil)
	input, output := w.make(from+"-to-map", urn.CoderKV, nil, nonce, from), w.make(to+"-to-map", urn.CoderKV, nil, nonce, to)
	m := &Mapping{
		Source: "map-windows-source", Sink: "map-windows-sink",
		Input: w.windowed(input, global), Output: w.windowed(output, global),
	}
	m.Descriptor = a.question(question{
		id: fmt.Sprintf("%s-%s-map-windows", n.ID, si.Tag), environment: n.Proto.GetEnvironmentId(),
		name: n.Name() + "/MapWindows", transform: "map-windows", urn: urn.TransformMapWindows, function: mapping, answer: "mapped",
		source: m.Source, sink: m.Sink, input: m.Input, output: m.Output,
	})
	si.Mapping = m
}

// question is something that an SDK is asked about windows, in a bundle of one transform.
type question struct {
	id, environment string
	// name is what the SDK calls the transform when it fails.
	name, transform, urn string
	function             *pipepb.FunctionSpec
	answer               string // the PCollection of the answers
	source, sink         string
	input, output        string // windowed-value coders in the global window
}

func (a *assembly) question(q question) *fnpb.ProcessBundleDescriptor {
	// Messages of valid strings always marshal.
	function, _ := proto.MarshalOptions{Deterministic: true}.Marshal(q.function)
	inPort, _ := proto.Marshal(&fnpb.RemoteGrpcPort{CoderId: q.input})
	outPort, _ := proto.Marshal(&fnpb.RemoteGrpcPort{CoderId: q.output})
	element := func(windowed string) string { return a.comps.GetCoders()[windowed].GetComponentCoderIds()[0] }
	global := a.comps.GetCoders()[q.input].GetComponentCoderIds()[1]
	d := &descriptor{assembly: a, out: &fnpb.ProcessBundleDescriptor{
		Id: q.id,
		Transforms: map[string]*pipepb.PTransform{
			q.source: {
				UniqueName: q.source,
				Spec:       &pipepb.FunctionSpec{Urn: urn.RunnerSource, Payload: inPort},
				Outputs:    map[string]string{"out": "windows"},
			},
			q.transform: {
				UniqueName:    q.name,
				Spec:          &pipepb.FunctionSpec{Urn: q.urn, Payload: function},
				Inputs:        map[string]string{"in": "windows"},
				Outputs:       map[string]string{"out": q.answer},
				EnvironmentId: q.environment,
			},
			q.sink: {
				UniqueName: q.sink,
				Spec:       &pipepb.FunctionSpec{Urn: urn.RunnerSink, Payload: outPort},
				Inputs:     map[string]string{"in": q.answer},
			},
		},
		Pcollections: map[string]*pipepb.PCollection{
			"windows": {UniqueName: "windows", CoderId: element(q.input), IsBounded: pipepb.IsBounded_BOUNDED, WindowingStrategyId: "global"},
			q.answer:  {UniqueName: q.answer, CoderId: element(q.output), IsBounded: pipepb.IsBounded_BOUNDED, WindowingStrategyId: "global"},
		},
		WindowingStrategies: map[string]*pipepb.WindowingStrategy{"global": {
			WindowFn:         &pipepb.FunctionSpec{Urn: urn.WindowFnGlobal},
			MergeStatus:      pipepb.MergeStatus_NON_MERGING,
			WindowCoderId:    global,
			Trigger:          &pipepb.Trigger{Trigger: &pipepb.Trigger_Default_{Default: &pipepb.Trigger_Default{}}},
			AccumulationMode: pipepb.AccumulationMode_DISCARDING,
			OutputTime:       pipepb.OutputTime_END_OF_WINDOW,
			ClosingBehavior:  pipepb.ClosingBehavior_EMIT_IF_NONEMPTY,
			OnTimeBehavior:   pipepb.OnTimeBehavior_FIRE_IF_NONEMPTY,
			EnvironmentId:    q.environment,
		}},
		Coders:       map[string]*pipepb.Coder{},
		Environments: map[string]*pipepb.Environment{},
	}}
	d.environment(q.environment)
	d.coder(q.input)
	d.coder(q.output)
	return d.out
}
