// Package rewrite turns a valid pipeline into one of primitive transforms only, each of which either an environment or the
// runner carries out. One file is one pass.
package rewrite

import (
	"strconv"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// Options switch passes off. The result means the same with or without them.
type Options struct {
	// KeepCombines leaves combines as their SDK expanded them, where it did: nothing is lifted.
	KeepCombines bool
}

// Apply rewrites p, which the caller owns and which must be valid. Afterwards p has primitive transforms only, and all of
// them are roots. An error means that p was not valid.
func Apply(p *pipepb.Pipeline, o Options) error {
	mergeEnvironments(p)
	if !o.KeepCombines {
		liftCombines(p)
	}
	keepPrimitives(p)
	if err := expandSplittables(p); err != nil {
		return err
	}
	return dropUnread(p)
}

// fresh is an id that is not yet in m: the given one, with a number where it is taken.
func fresh[V any](m map[string]V, id string) string {
	if _, taken := m[id]; !taken {
		return id
	}
	for n := 2; ; n++ {
		if id := id + "-" + strconv.Itoa(n); !contains(m, id) {
			return id
		}
	}
}

func contains[V any](m map[string]V, id string) bool {
	_, ok := m[id]
	return ok
}

// addCoder adds a coder under an id made from the wanted one, and returns the id.
func addCoder(c *pipepb.Components, id, coderURN string, components ...string) string {
	id = fresh(c.GetCoders(), id)
	c.Coders[id] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: coderURN}, ComponentCoderIds: components}
	return id
}

// addPCollection adds a PCollection that is like the given one but for its coder, and returns its id.
func addPCollection(c *pipepb.Components, id, name, coder string, like *pipepb.PCollection) string {
	id = fresh(c.GetPcollections(), id)
	c.Pcollections[id] = &pipepb.PCollection{
		UniqueName: name, CoderId: coder, IsBounded: like.GetIsBounded(), WindowingStrategyId: like.GetWindowingStrategyId(),
	}
	return id
}

// addTransform adds a transform and returns its id.
func addTransform(c *pipepb.Components, id string, t *pipepb.PTransform) string {
	id = fresh(c.GetTransforms(), id)
	c.Transforms[id] = t
	return id
}
