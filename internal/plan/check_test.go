package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/plan"
	"trestle/internal/plan/graph"
)

// failer is what testing and rapid have in common.
type failer interface {
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// check holds a plan against the rules that every plan keeps.
func check(t failer, p *plan.Plan) {
	g, err := graph.New(p.Pipeline.GetComponents(), p.Pipeline.GetRootTransformIds())
	if err != nil {
		t.Fatalf("the rewritten pipeline: %v", err)
	}
	c := &checker{failer: t, p: p, g: g}
	c.transforms()
	for i, x := range p.Exchanges {
		c.exchange(i, x)
	}
	for i, s := range p.Stages {
		if s.Index != i {
			c.Errorf("stage %d has index %d", i, s.Index)
		}
		c.stage(s)
		if s.Descriptor != nil {
			c.descriptor(s, s.Descriptor)
		}
	}
}

type checker struct {
	failer
	p *plan.Plan
	g *graph.Graph
}

// transforms: each transform of an SDK's is in one stage, of its environment; nothing else but Flattens is.
func (c *checker) transforms() {
	in := map[string]int{}
	for _, s := range c.p.Stages {
		for _, id := range s.Transforms {
			in[id]++
			n := c.g.Node(id)
			if n.Kind != graph.SDK && n.Kind != graph.Flatten {
				c.Errorf("%s runs in a stage", id)
			}
			if n.Kind == graph.SDK && n.Proto.GetEnvironmentId() != s.Environment {
				c.Errorf("%s runs in environment %q", id, s.Environment)
			}
		}
		if (s.Environment == "") != (len(s.Transforms) == 0) || (s.Environment == "") != (s.Descriptor == nil) {
			c.Errorf("stage %d is half the runner's", s.Index)
		}
	}
	for _, n := range c.g.Nodes {
		if n.Kind == graph.SDK && in[n.ID] != 1 || in[n.ID] > 1 {
			c.Errorf("%s is in %d stages", n.ID, in[n.ID])
		}
	}
}

// exchange: both ends know of it, records flow downwards, and both ends have the same coder.
func (c *checker) exchange(i int, x *plan.Exchange) {
	if x.ID != i {
		c.Errorf("exchange %d has id %d", i, x.ID)
	}
	if x.From >= x.To {
		c.Errorf("exchange %d goes from stage %d to stage %d", i, x.From, x.To)
	}
	out := c.p.Stages[x.From].Outputs[x.Output]
	to := c.p.Stages[x.To]
	coder, exchanges := to.Input.Coder, to.Input.Exchanges
	if to.Input.Kind == plan.Groups {
		coder = to.Input.Group.Coder
	}
	if x.Side >= 0 {
		coder, exchanges = to.SideInputs[x.Side].Coder, to.SideInputs[x.Side].Exchanges
	}
	if x.Coder != out.Coder || x.Coder != coder {
		c.Errorf("exchange %d has coder %s, from %s, to %s", i, x.Coder, out.Coder, coder)
	}
	if !slices.Contains(out.Exchanges, i) || !slices.Contains(exchanges, i) {
		c.Errorf("exchange %d is unknown to one end", i)
	}
	if (x.Kind == plan.Broadcast) != (x.Side >= 0) || (x.Kind == plan.Keyed) != (x.Side < 0 && (to.Input.Kind == plan.Groups || to.Input.Kind == plan.KeyedElements)) {
		c.Errorf("exchange %d is of kind %d", i, x.Kind)
	}
	c.wire(x.Coder)
}

// wire: the runner can walk every value of the coder, and nothing is prefixed twice.
func (c *checker) wire(id string) {
	coder := c.p.Coders()[id]
	if coder.GetSpec().GetUrn() != urn.CoderWindowedValue {
		c.Errorf("coder %s is no windowed value coder", id)
	}
	var walk func(id string)
	walk = func(id string) {
		coder := c.p.Coders()[id]
		if coder == nil {
			c.Errorf("coder %q is missing", id)
			return
		}
		if !urn.KnownCoder(coder.GetSpec().GetUrn()) {
			c.Errorf("the runner cannot walk coder %q (%s)", id, coder.GetSpec().GetUrn())
		}
		for _, comp := range coder.GetComponentCoderIds() {
			if coder.GetSpec().GetUrn() != urn.CoderLengthPrefix {
				walk(comp)
			} else if c.p.Coders()[comp].GetSpec().GetUrn() == urn.CoderLengthPrefix {
				c.Errorf("coder %q is prefixed twice", id)
			}
		}
	}
	walk(id)
}

// origins counts how often the records of each PCollection that something makes are in the given one: the meaning of
// Flatten and Reshuffle.
func (c *checker) origins(pcollection string) map[string]int {
	n := c.g.Producer(pcollection)
	if n == nil || n.Kind != graph.Flatten && n.Kind != graph.Reshuffle {
		return map[string]int{pcollection: 1}
	}
	sum := map[string]int{}
	for _, pc := range n.Mains {
		for origin, times := range c.origins(pc) {
			sum[origin] += times
		}
	}
	return sum
}

// delivered holds what exchanges bring against what the PCollection is.
func (c *checker) delivered(what, pcollection string, exchanges []int) {
	got := map[string]int{}
	for _, x := range exchanges {
		x := c.p.Exchanges[x]
		for origin, times := range c.origins(c.p.Stages[x.From].Outputs[x.Output].PCollection) {
			got[origin] += times
		}
	}
	if diff := cmp.Diff(c.origins(pcollection), got); diff != "" {
		c.Errorf("%s: PCollection %s arrives otherwise than once (-want +got):\n%s", what, pcollection, diff)
	}
}

// stage: every input of every transform is there, once.
func (c *checker) stage(s *plan.Stage) {
	what := fmt.Sprintf("stage %d", s.Index)
	from := c.g.Producer(s.Input.PCollection)
	switch s.Input.Kind {
	case plan.Impulse:
		if from.Kind != graph.Impulse || len(s.Input.Exchanges) > 0 {
			c.Errorf("%s is no impulse", what)
		}
	case plan.Groups:
		if from.Kind != graph.Group || s.Input.Group.Transform != from.ID {
			c.Errorf("%s groups %s", what, s.Input.PCollection)
		}
		c.delivered(what, from.Mains[0], s.Input.Exchanges)
		c.wire(s.Input.Coder)
		if m := s.Input.Group.Merging; m != nil {
			c.complete(m.Descriptor)
			c.port(m.Descriptor, m.Source, urn.RunnerSource, m.Input)
			c.port(m.Descriptor, m.Sink, urn.RunnerSink, m.Output)
		}
	case plan.Elements:
		if from.Kind == graph.Impulse && len(s.Input.Exchanges) != 1 {
			c.Errorf("%s reads an impulse by %d exchanges", what, len(s.Input.Exchanges))
		}
		c.delivered(what, s.Input.PCollection, s.Input.Exchanges)
	}
	have := map[string]bool{s.Input.PCollection: true}
	side := map[[2]string]int{}
	for i, si := range s.SideInputs {
		side[[2]string{si.Transform, si.Tag}]++
		c.delivered(fmt.Sprintf("%s, side input %d", what, i), si.PCollection, si.Exchanges)
		if c.p.Pipeline.GetComponents().GetTransforms()[si.Transform].GetInputs()[si.Tag] != si.PCollection {
			c.Errorf("%s: side input %d is not the transform's", what, i)
		}
	}
	for _, id := range s.Transforms {
		n := c.g.Node(id)
		for _, pc := range n.Mains {
			if !have[pc] {
				c.Errorf("%s: %s has no input %s", what, id, pc)
			}
		}
		for _, sd := range n.Sides {
			if side[[2]string{id, sd.Tag}] != 1 {
				c.Errorf("%s: %s has side input %s %d times", what, id, sd.Tag, side[[2]string{id, sd.Tag}])
			}
		}
		for _, pc := range n.Outputs {
			have[pc] = true
		}
	}
	for _, out := range s.Outputs {
		if !have[out.PCollection] {
			c.Errorf("%s has no output %s", what, out.PCollection)
		}
		if len(out.Exchanges) == 0 {
			c.Errorf("%s: nobody reads output %s", what, out.PCollection)
		}
		if s.Environment == "" && out.Coder != s.Input.Coder {
			c.Errorf("%s: the runner cannot turn coder %s into %s", what, s.Input.Coder, out.Coder)
		}
	}
}

// complete: all that the descriptor refers to is there.
func (c *checker) complete(d *fnpb.ProcessBundleDescriptor) {
	what := "descriptor " + d.GetId()
	coder := func(id string) {
		if d.GetCoders()[id] == nil {
			c.Errorf("%s: coder %q is missing", what, id)
		}
	}
	for id, t := range d.GetTransforms() {
		for _, pcs := range []map[string]string{t.GetInputs(), t.GetOutputs()} {
			for _, pc := range pcs {
				if d.GetPcollections()[pc] == nil {
					c.Errorf("%s: %s refers to PCollection %q", what, id, pc)
				}
			}
		}
		if len(t.GetSubtransforms()) > 0 {
			c.Errorf("%s: %s is a composite", what, id)
		}
		if env := t.GetEnvironmentId(); env != "" && d.GetEnvironments()[env] == nil {
			c.Errorf("%s: environment %q is missing", what, env)
		}
		if n := c.g.Node(id); n != nil && n.ParDo.GetRestrictionCoderId() != "" {
			coder(n.ParDo.GetRestrictionCoderId())
		}
	}
	for _, pc := range d.GetPcollections() {
		coder(pc.GetCoderId())
		ws := d.GetWindowingStrategies()[pc.GetWindowingStrategyId()]
		if ws == nil {
			c.Errorf("%s: windowing strategy %q is missing", what, pc.GetWindowingStrategyId())
		}
		coder(ws.GetWindowCoderId())
	}
	for _, cd := range d.GetCoders() {
		for _, comp := range cd.GetComponentCoderIds() {
			coder(comp)
		}
	}
}

// descriptor: the ends are where the stage says.
func (c *checker) descriptor(s *plan.Stage, d *fnpb.ProcessBundleDescriptor) {
	what := "descriptor " + d.GetId()
	c.complete(d)
	if want := len(s.Transforms) + 1 + len(s.Outputs); len(d.GetTransforms()) != want {
		c.Errorf("%s has %d transforms, want %d", what, len(d.GetTransforms()), want)
	}
	c.port(d, s.Input.Source, urn.RunnerSource, s.Input.Coder)
	for _, out := range s.Outputs {
		c.port(d, out.Sink, urn.RunnerSink, out.Coder)
	}
	for _, si := range s.SideInputs {
		if got, want := d.GetPcollections()[si.PCollection].GetCoderId(), c.p.Coders()[si.Coder].GetComponentCoderIds()[0]; got != want {
			c.Errorf("%s: side input %s has coder %q, want %q", what, si.PCollection, got, want)
		}
	}
}

func (c *checker) port(d *fnpb.ProcessBundleDescriptor, id, portURN, coder string) {
	t := d.GetTransforms()[id]
	var port fnpb.RemoteGrpcPort
	if err := proto.Unmarshal(t.GetSpec().GetPayload(), &port); err != nil {
		c.Errorf("%s: %v", id, err)
	}
	if t.GetSpec().GetUrn() != portURN || port.GetCoderId() != coder || d.GetCoders()[coder] == nil {
		c.Errorf("%s is no %s of coder %s: %v", id, portURN, coder, t)
	}
}

// descriptorText writes a descriptor out, payloads apart.
func descriptorText(d *fnpb.ProcessBundleDescriptor) string {
	var b strings.Builder
	fmt.Fprintf(&b, "id %s\n", d.GetId())
	for _, id := range slices.Sorted(maps.Keys(d.GetTransforms())) {
		t := d.GetTransforms()[id]
		fmt.Fprintf(&b, "transform %s: %s%s%s %s\n", id, t.GetSpec().GetUrn(), mapText(t.GetInputs()), mapText(t.GetOutputs()), t.GetEnvironmentId())
	}
	for _, id := range slices.Sorted(maps.Keys(d.GetPcollections())) {
		pc := d.GetPcollections()[id]
		fmt.Fprintf(&b, "pcollection %s: coder %s, windowing %s\n", id, pc.GetCoderId(), pc.GetWindowingStrategyId())
	}
	for _, id := range slices.Sorted(maps.Keys(d.GetCoders())) {
		cd := d.GetCoders()[id]
		fmt.Fprintf(&b, "coder %s: %s %v\n", id, cd.GetSpec().GetUrn(), cd.GetComponentCoderIds())
	}
	fmt.Fprintf(&b, "windowing strategies %v\n", slices.Sorted(maps.Keys(d.GetWindowingStrategies())))
	fmt.Fprintf(&b, "environments %v\n", slices.Sorted(maps.Keys(d.GetEnvironments())))
	return b.String()
}

func mapText(m map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, k+"="+m[k])
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
