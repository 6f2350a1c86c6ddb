package rewrite

import (
	"maps"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// mergeEnvironments makes one of environments that are the same in all but their id (resource hints are a part of an
// environment), so that transforms of both can share a stage and a harness.
func mergeEnvironments(p *pipepb.Pipeline) {
	c := p.GetComponents()
	first := map[string]string{} // an environment's bytes → the first id that has them
	same := map[string]string{}
	for _, id := range slices.Sorted(maps.Keys(c.GetEnvironments())) {
		bytes, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.GetEnvironments()[id])
		if err != nil {
			continue // not worth failing for: it stays by itself
		}
		if of, ok := first[string(bytes)]; ok {
			same[id] = of
			delete(c.GetEnvironments(), id)
		} else {
			first[string(bytes)] = id
		}
	}
	for _, t := range c.GetTransforms() {
		if of, ok := same[t.GetEnvironmentId()]; ok {
			t.EnvironmentId = of
		}
	}
	for _, w := range c.GetWindowingStrategies() {
		if of, ok := same[w.GetEnvironmentId()]; ok {
			w.EnvironmentId = of
		}
	}
}
