package explain

import (
	"cmp"
	"encoding/json"
	"io"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/plan"
)

// Plan is a plan as JSON shows it. Fields are added to it in later versions, but none is renamed or taken away.
type Plan struct {
	Stages []Stage `json:"stages"`
	Cuts   []Cut   `json:"cuts"`
}

// Stage is a stage; its place in Plan.Stages is its index.
type Stage struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	// Environment is the environment's id; absent for a stage of the runner's own.
	Environment string `json:"environment,omitempty"`
	// Hints are the environment's resource hints, as people read them.
	Hints      []string    `json:"hints,omitempty"`
	Input      Input       `json:"input"`
	SideInputs []SideInput `json:"side_inputs"`
	Transforms []Transform `json:"transforms"`
	Outputs    []Output    `json:"outputs"`
}

// Transform is a fused transform.
type Transform struct {
	ID string `json:"id"`
	// Name is the unique name.
	Name string `json:"name"`
	URN  string `json:"urn"`
	// Kind is the URN without what is the same in all.
	Kind string `json:"kind"`
}

// Input is a stage's main input.
type Input struct {
	// Kind is impulse, elements, groups or played.
	Kind        string `json:"kind"`
	PCollection string `json:"pcollection"`
	// GroupByKey is the name of the transform that groups, for groups.
	GroupByKey string `json:"group_by_key,omitempty"`
	// Merging tells what merges the windows of groups, where they merge: "runner" for sessions, or the id of the
	// environment that is asked.
	Merging string `json:"merging,omitempty"`
	// Splittable tells that elements may be split while they are processed.
	Splittable bool `json:"splittable,omitempty"`
	// Stable tells that elements are processed once a snapshot has them.
	Stable bool `json:"stable,omitempty"`
	// Coder is the coder of the elements as the harness gets them, written out.
	Coder string     `json:"coder"`
	From  []Exchange `json:"from"`
}

// SideInput is a PCollection that a transform reads as a side input.
type SideInput struct {
	// Transform is the reading transform's name, Tag the side input's local name.
	Transform   string `json:"transform"`
	Tag         string `json:"tag"`
	PCollection string `json:"pcollection"`
	// Access is iterable or multimap.
	Access string     `json:"access"`
	Coder  string     `json:"coder"`
	From   []Exchange `json:"from"`
}

// Output is a PCollection that leaves a stage.
type Output struct {
	PCollection string     `json:"pcollection"`
	Coder       string     `json:"coder"`
	To          []Exchange `json:"to"`
}

// Exchange is one end of an exchange.
type Exchange struct {
	ID int `json:"id"`
	// Kind is forward, rebalance, keyed or broadcast.
	Kind string `json:"kind"`
	// Stage is the index of the stage at the other end.
	Stage int `json:"stage"`
}

// Cut is a PCollection that crosses between stages, and why.
type Cut struct {
	PCollection string `json:"pcollection"`
	// From and To are names of transforms.
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// JSON writes the plan as indented JSON, in the shape of [Plan]. The error is that of w.
func JSON(w io.Writer, p *plan.Plan) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(View(p))
}

// View is what is shown of a plan.
func View(p *plan.Plan) Plan {
	v := viewer{p: p, coders: map[string]string{}}
	out := Plan{Stages: []Stage{}, Cuts: []Cut{}}
	for _, s := range p.Stages {
		out.Stages = append(out.Stages, v.stage(s))
	}
	for _, c := range p.Cuts {
		out.Cuts = append(out.Cuts, Cut{PCollection: c.PCollection, From: v.name(c.From), To: v.name(c.To), Reason: c.Reason})
	}
	return out
}

type viewer struct {
	p      *plan.Plan
	coders map[string]string
}

func (v viewer) stage(s *plan.Stage) Stage {
	out := Stage{
		Index: s.Index, Name: s.Name, Environment: s.Environment,
		Hints:      plan.Hints(v.p.Pipeline.GetComponents().GetEnvironments()[s.Environment]),
		SideInputs: []SideInput{}, Transforms: []Transform{}, Outputs: []Output{},
	}
	out.Input = Input{
		Kind: inputKinds[s.Input.Kind], PCollection: s.Input.PCollection, Splittable: s.Input.Splittable, Stable: s.Input.Stable,
		Coder: v.coder(s.Input.Coder), From: v.from(s.Input.Exchanges),
	}
	if g := s.Input.Group; g != nil {
		out.Input.GroupByKey = v.name(g.Transform)
		switch {
		case g.Merging != nil:
			out.Input.Merging = g.Merging.Environment
		case g.Windowing.GetMergeStatus() == pipepb.MergeStatus_NEEDS_MERGE:
			out.Input.Merging = "runner"
		}
	}
	for _, si := range s.SideInputs {
		out.SideInputs = append(out.SideInputs, SideInput{
			Transform: v.name(si.Transform), Tag: si.Tag, PCollection: si.PCollection, Access: short(si.AccessPattern),
			Coder: v.coder(si.Coder), From: v.from(si.Exchanges),
		})
	}
	for _, id := range s.Transforms {
		name := v.p.Pipeline.GetComponents().GetTransforms()[id].GetSpec().GetUrn()
		out.Transforms = append(out.Transforms, Transform{ID: id, Name: v.name(id), URN: name, Kind: short(name)})
	}
	for _, o := range s.Outputs {
		to := []Exchange{}
		for _, x := range o.Exchanges {
			to = append(to, Exchange{ID: x, Kind: exchangeKinds[v.p.Exchanges[x].Kind], Stage: v.p.Exchanges[x].To})
		}
		out.Outputs = append(out.Outputs, Output{PCollection: o.PCollection, Coder: v.coder(o.Coder), To: to})
	}
	return out
}

func (v viewer) from(exchanges []int) []Exchange {
	from := []Exchange{}
	for _, x := range exchanges {
		from = append(from, Exchange{ID: x, Kind: exchangeKinds[v.p.Exchanges[x].Kind], Stage: v.p.Exchanges[x].From})
	}
	return from
}

func (v viewer) name(transform string) string {
	return cmp.Or(v.p.Pipeline.GetComponents().GetTransforms()[transform].GetUniqueName(), transform)
}

// maxCoder bounds the text of a coder: components that are shared are written out each time, so that a text can be far
// longer than the coder.
const maxCoder = 300

// coder writes a coder out: windowed_value(kv(bytes, length_prefix(my:coder)), global_window).
func (v viewer) coder(id string) string {
	if text, ok := v.coders[id]; ok {
		return text
	}
	c := v.p.Coders()[id]
	text := short(c.GetSpec().GetUrn())
	if len(c.GetComponentCoderIds()) > 0 {
		parts := make([]string, 0, len(c.GetComponentCoderIds()))
		for _, comp := range c.GetComponentCoderIds() {
			parts = append(parts, v.coder(comp))
		}
		text += "(" + strings.Join(parts, ", ") + ")"
	}
	if len(text) > maxCoder {
		text = text[:strings.LastIndexByte(text[:maxCoder], ' ')+1] + "…)"
	}
	v.coders[id] = text
	return text
}

// short is a URN without what is the same in all of its kind.
func short(name string) string {
	for _, prefix := range []string{"beam:transform:", "beam:coder:", "beam:side_input:"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return strings.TrimSuffix(rest, ":v1")
		}
	}
	return name
}

var inputKinds = map[plan.InputKind]string{
	plan.Impulse: "impulse", plan.Elements: "elements", plan.Groups: "groups",
	plan.Played: "played", plan.KeyedElements: "keyed",
}

var exchangeKinds = map[plan.ExchangeKind]string{
	plan.Forward: "forward", plan.Rebalance: "rebalance", plan.Keyed: "keyed", plan.Broadcast: "broadcast",
}
