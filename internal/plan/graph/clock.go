package graph

import (
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// ByClock tells whether n is a grouping whose trigger goes by the clock: when its panes fire, and so what they have, is not the
// same each time that it is given the same elements.
func (g *Graph) ByClock(n *Node) bool {
	return n.Kind == Group && slices.ContainsFunc(n.Mains, func(pc string) bool {
		id := g.Components.GetPcollections()[pc].GetWindowingStrategyId()
		return byClock(g.Components.GetWindowingStrategies()[id].GetTrigger())
	})
}

// byClock tells whether a part of a trigger looks at the clock.
func byClock(t *pipepb.Trigger) bool {
	any := func(parts ...*pipepb.Trigger) bool { return slices.ContainsFunc(parts, byClock) }
	switch t := t.GetTrigger().(type) {
	case *pipepb.Trigger_AfterProcessingTime_, *pipepb.Trigger_AfterSynchronizedProcessingTime_:
		return true
	case *pipepb.Trigger_AfterEndOfWindow_:
		return any(t.AfterEndOfWindow.GetEarlyFirings(), t.AfterEndOfWindow.GetLateFirings())
	case *pipepb.Trigger_AfterAll_:
		return any(t.AfterAll.GetSubtriggers()...)
	case *pipepb.Trigger_AfterAny_:
		return any(t.AfterAny.GetSubtriggers()...)
	case *pipepb.Trigger_AfterEach_:
		return any(t.AfterEach.GetSubtriggers()...)
	case *pipepb.Trigger_OrFinally_:
		return any(t.OrFinally.GetMain(), t.OrFinally.GetFinally())
	case *pipepb.Trigger_Repeat_:
		return any(t.Repeat.GetSubtrigger())
	}
	return false
}
