package harness

import (
	"maps"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

// Pools are the addresses of the worker pools that the environments name, those among alternatives too. What is wrong with
// an environment is not told: Check does.
func Pools(environments map[string]*pipepb.Environment) []string {
	var pools []string
	for _, id := range slices.Sorted(maps.Keys(environments)) {
		pools = appendPools(pools, environments[id], 0)
	}
	return pools
}

func appendPools(pools []string, env *pipepb.Environment, depth int) []string {
	switch env.GetUrn() {
	case urn.EnvExternal:
		var payload pipepb.ExternalPayload
		if proto.Unmarshal(env.GetPayload(), &payload) == nil && payload.GetEndpoint().GetUrl() != "" {
			pools = append(pools, payload.GetEndpoint().GetUrl())
		}
	case urn.EnvAnyOf:
		var payload pipepb.AnyOfEnvironmentPayload
		if depth < maxNesting && proto.Unmarshal(env.GetPayload(), &payload) == nil {
			for _, alternative := range payload.GetEnvironments() {
				pools = appendPools(pools, alternative, depth+1)
			}
		}
	}
	return pools
}
