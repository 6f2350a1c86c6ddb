package plan

import (
	"fmt"
	"strings"

	"trestle/internal/beam/grouping"
	"trestle/internal/beam/urn"
	"trestle/internal/plan/graph"
)

// parDo reports what a DoFn asks for and cannot have.
//
// Stable input is had by a cut before the transform: what has crossed into a stage of a bounded pipeline does not change, and in
// a streaming one it is kept until a snapshot has it (Input.Stable).
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
		if err := grouping.Check(ws); err != nil {
			v.report(n.Name(), "the windowing strategy of its input: "+strings.ReplaceAll(err.Error(), "\n", "; "), "")
		}
	}
}
