package rewrite

import (
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/plan/graph"
)

// dropUnread drops transforms of the runner's whose results nobody reads, which may leave others unread in turn, and
// puts what is left in topological order. A transform of the SDK's stays: it may do something besides its outputs.
func dropUnread(p *pipepb.Pipeline) error {
	g, err := graph.New(p.GetComponents(), p.GetRootTransformIds())
	if err != nil {
		return err
	}
	read := map[string]bool{}
	var kept []string
	for _, n := range slices.Backward(g.Nodes) {
		if n.Kind != graph.SDK && !slices.ContainsFunc(n.Outputs, func(pc string) bool { return read[pc] }) {
			delete(p.GetComponents().GetTransforms(), n.ID)
			continue
		}
		kept = append(kept, n.ID)
		for _, pc := range n.Mains {
			read[pc] = true
		}
		for _, s := range n.Sides {
			read[s.PCollection] = true
		}
	}
	slices.Reverse(kept)
	p.RootTransformIds = kept
	return nil
}
