package plan

import (
	"fmt"
	"slices"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
)

// truncation makes what an SDK is told to run to truncate the restrictions of a stage's input; nil when it never is. The
// step has the id of the DoFn's processing step, so that state requests for side inputs are the same for both.
func (a *assembly) truncation(s *Stage) *Truncation {
	capabilities := a.comps.GetEnvironments()[s.Environment].GetCapabilities()
	if !s.Input.Splittable || !a.plan.Streaming || !slices.Contains(capabilities, urn.SDFTruncateRestriction) {
		return nil
	}
	d := &descriptor{assembly: a, out: emptyDescriptor(fmt.Sprintf("stage-%d-truncate", s.Index))}
	d.environment(s.Environment)
	step := a.g.Node(s.Transforms[0])
	truncated := fresh(d.comps.GetPcollections(), step.ID+"-truncated")

	t := proto.Clone(step.Proto).(*pipepb.PTransform)
	t.Spec.Urn, t.UniqueName, t.EnvironmentId = urn.SDFTruncateRestriction, t.GetUniqueName()+"/TruncateAndSize", s.Environment
	t.Outputs = map[string]string{"out": truncated}
	d.out.Transforms[step.ID] = t
	for _, pc := range t.GetInputs() {
		d.pcollection(pc)
	}
	d.coder(step.ParDo.GetRestrictionCoderId())
	for _, side := range s.SideInputs {
		if side.Transform == step.ID {
			d.boundary(side.PCollection, side.Coder)
		}
	}

	tr := &Truncation{Descriptor: d.out}
	tr.Source = d.port(fmt.Sprintf("stage-%d-truncate-source", s.Index), urn.RunnerSource, s.Input.Coder)
	d.out.Transforms[tr.Source].Outputs = map[string]string{"out": s.Input.PCollection}
	d.boundary(s.Input.PCollection, s.Input.Coder)
	tr.Sink = d.port(fmt.Sprintf("stage-%d-truncate-sink", s.Index), urn.RunnerSink, s.Input.Coder)
	d.out.Transforms[tr.Sink].Inputs = map[string]string{"in": truncated}
	pc := proto.Clone(d.out.Pcollections[s.Input.PCollection]).(*pipepb.PCollection)
	pc.UniqueName = truncated
	d.out.Pcollections[truncated] = pc
	return tr
}

// fresh is an id that is not in m: the given one, with a number where it is taken.
func fresh[V any](m map[string]V, id string) string {
	free := id
	for n := 2; ; n++ {
		if _, taken := m[free]; !taken {
			return free
		}
		free = fmt.Sprintf("%s-%d", id, n)
	}
}

func emptyDescriptor(id string) *fnpb.ProcessBundleDescriptor {
	return &fnpb.ProcessBundleDescriptor{
		Id:                  id,
		Transforms:          map[string]*pipepb.PTransform{},
		Pcollections:        map[string]*pipepb.PCollection{},
		WindowingStrategies: map[string]*pipepb.WindowingStrategy{},
		Coders:              map[string]*pipepb.Coder{},
		Environments:        map[string]*pipepb.Environment{},
	}
}
