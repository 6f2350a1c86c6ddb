package plan

import (
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/trigger"
	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
)

// parDo reports what a DoFn asks for and cannot have.
//
// Stable input is had by a cut before the transform: what has crossed into a stage of a bounded pipeline does not change.
// Bundle finalization is had as it is: a bundle is finalized when its output is committed.
func (v *validator) parDo(n *graph.Node) {
	if n.ParDo == nil {
		return
	}
	for _, tag := range sortedKeys(n.ParDo.GetSideInputs()) {
		v.sideInput(n, tag)
	}
	if r := n.ParDo.GetRestrictionCoderId(); r != "" {
		v.coder(n.Name(), r)
		v.bounded(n)
	} else if n.URN() != urn.TransformParDo {
		v.report(n.Name(), fmt.Sprintf("it is a step of a splittable DoFn (%s) without a restriction coder", n.URN()), "")
	}
	if n.Stateful() {
		v.stateful(n)
	}
}

func (v *validator) sideInput(n *graph.Node, tag string) {
	pc, ok := n.Proto.GetInputs()[tag]
	if !ok {
		v.report(n.Name(), fmt.Sprintf("its side input %q is not among its inputs", tag), "")
		return
	}
	switch access := n.ParDo.GetSideInputs()[tag].GetAccessPattern().GetUrn(); access {
	case urn.SideInputIterable:
	case urn.SideInputMultimap:
		if c := v.coderOf(pc); c != nil && c.GetSpec().GetUrn() != urn.CoderKV {
			v.report(n.Name(), fmt.Sprintf("its side input %q is read by key, and is no collection of key-value pairs", tag), "")
		}
	default:
		v.report(n.Name(), fmt.Sprintf("its side input %q is read as %q, which this version of Trestle does not know", tag, access), "")
	}
}

// bounded reports an unbounded splittable DoFn.
func (v *validator) bounded(n *graph.Node) {
	if n.URN() != urn.TransformParDo && n.URN() != urn.SDFProcessSizedElements {
		return
	}
	for _, pc := range n.Outputs {
		if v.c.GetPcollections()[pc].GetIsBounded() == pipepb.IsBounded_UNBOUNDED {
			v.report(n.Name(), "it is an unbounded source, which this version of Trestle cannot run",
				"limit what it reads, by a number of records or a time")
			return
		}
	}
}

// keyed reports a grouping of what are no key-value pairs.
func (v *validator) keyed(n *graph.Node) {
	for _, pc := range n.Mains {
		if c := v.coderOf(pc); c != nil && c.GetSpec().GetUrn() != urn.CoderKV {
			v.report(n.Name(), fmt.Sprintf("it groups a collection of coder %q, where it needs %q", c.GetSpec().GetUrn(), urn.CoderKV), "")
		}
	}
}

// grouping reports what a GroupByKey (or a combine) cannot do with its input's windows and triggers.
func (v *validator) grouping(n *graph.Node) {
	for _, id := range n.Mains {
		pc := v.c.GetPcollections()[id]
		ws := v.c.GetWindowingStrategies()[pc.GetWindowingStrategyId()]
		if ws == nil {
			continue // reported with the PCollection
		}
		v.merging(n.Name(), ws)
		v.panes(n.Name(), ws)
	}
}

// panes reports what a windowing strategy says about panes and no runner can do, or the model forbids.
func (v *validator) panes(transform string, ws *pipepb.WindowingStrategy) {
	if _, err := trigger.Compile(ws.GetTrigger(), merges(ws)); err != nil {
		v.report(transform, fmt.Sprintf("its trigger: %v", err), "")
	}
	if ws.GetAccumulationMode() == pipepb.AccumulationMode_RETRACTING {
		v.report(transform, "it wants retractions, which no runner puts out", "use accumulating or discarding panes")
	}
	if ws.GetAllowedLateness() < 0 {
		v.report(transform, fmt.Sprintf("its allowed lateness is %d ms: it cannot be negative", ws.GetAllowedLateness()), "")
	}
}

// once tells whether a grouping of a bounded collection puts each group out exactly once, at the end.
func once(ws *pipepb.WindowingStrategy) bool {
	closing := ws.GetClosingBehavior() == pipepb.ClosingBehavior_EMIT_ALWAYS && ws.GetAllowedLateness() > 0
	return onePane(ws.GetTrigger()) && (!closing || ws.GetTrigger().GetNever() != nil)
}

// onePane tells whether a trigger fires exactly once for each key and window of a bounded collection: when a grouping has
// all data before any window ends, nothing is early and nothing late. Then Default, AfterEndOfWindow without early firings
// (its late ones have nothing to fire for) and Never (the window's expiry emits what there is, see Trigger.Never in
// beam_runner_api.proto) all give one pane, and repeating them gives no other.
func onePane(t *pipepb.Trigger) bool {
	switch t := t.GetTrigger().(type) {
	case nil, *pipepb.Trigger_Default_, *pipepb.Trigger_Never_:
		return true
	case *pipepb.Trigger_AfterEndOfWindow_:
		return t.AfterEndOfWindow.GetEarlyFirings() == nil
	case *pipepb.Trigger_Repeat_:
		return t.Repeat.GetSubtrigger() != nil && onePane(t.Repeat.GetSubtrigger())
	}
	return false
}
