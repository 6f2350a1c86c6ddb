package plantest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"trestle/internal/beam/trigger/triggertest"
	"trestle/internal/beam/urn"
)

// Parse reads a pipeline. The error names the line.
func Parse(text string) (*pipepb.Pipeline, error) {
	ps := &parser{p: &pipepb.Pipeline{Components: &pipepb.Components{
		Transforms:          map[string]*pipepb.PTransform{},
		Pcollections:        map[string]*pipepb.PCollection{},
		WindowingStrategies: map[string]*pipepb.WindowingStrategy{},
		Coders:              map[string]*pipepb.Coder{},
		Environments:        map[string]*pipepb.Environment{},
	}}}
	ps.c = ps.p.Components
	for _, line := range []string{"env sdk", "window global"} {
		if err := ps.line(line); err != nil {
			return nil, err
		}
	}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if err := ps.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", i+1, line, err)
		}
	}
	return ps.p, nil
}

type parser struct {
	p *pipepb.Pipeline
	c *pipepb.Components
	// open are the composites around the line.
	open []*pipepb.PTransform
}

func (ps *parser) line(line string) error {
	if line == "}" {
		if len(ps.open) == 0 {
			return fmt.Errorf("no composite is open")
		}
		ps.open = ps.open[:len(ps.open)-1]
		return nil
	}
	kind, rest, _ := strings.Cut(line, " ")
	fields := strings.Fields(rest)
	switch {
	case len(fields) == 0:
		return fmt.Errorf("nothing is named")
	case kind == "env":
		return ps.environment(fields)
	case kind == "window":
		return ps.window(fields)
	case kind == "coder":
		if len(fields) < 2 {
			return fmt.Errorf("a coder needs a name and a URN")
		}
		ps.c.Coders[fields[0]] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: fields[1]}, ComponentCoderIds: fields[2:]}
		return nil
	case kind == "require":
		ps.p.Requirements = append(ps.p.Requirements, fields...)
		return nil
	case kind == "contain":
		if len(fields) != 2 || ps.c.Transforms[fields[0]] == nil {
			return fmt.Errorf("contain needs a composite and a transform")
		}
		parent := ps.c.Transforms[fields[0]]
		parent.Subtransforms = append(parent.Subtransforms, fields[1])
		return nil
	case kind == "unroot":
		ps.p.RootTransformIds = slices.DeleteFunc(ps.p.RootTransformIds, func(id string) bool { return id == fields[0] })
		return nil
	case kind == "drop":
		if len(fields) != 2 {
			return fmt.Errorf("drop needs a kind and a name")
		}
		return ps.drop(fields[0], fields[1])
	}
	return ps.transform(kind, rest)
}

func (ps *parser) drop(kind, id string) error {
	switch kind {
	case "transform":
		delete(ps.c.Transforms, id)
	case "pcollection":
		delete(ps.c.Pcollections, id)
	case "coder":
		delete(ps.c.Coders, id)
	case "window":
		delete(ps.c.WindowingStrategies, id)
	case "env":
		delete(ps.c.Environments, id)
	default:
		return fmt.Errorf("no kind %q", kind)
	}
	return nil
}

func (ps *parser) environment(fields []string) error {
	// The payload sets environments apart that are the same otherwise; one with a hint is set apart by the hint.
	env := &pipepb.Environment{Urn: urn.EnvExternal, Payload: []byte(fields[0])}
	for _, f := range fields[1:] {
		switch key, value, _ := strings.Cut(f, "="); key {
		case "cap":
			env.Capabilities = append(env.Capabilities, value)
		case "hint":
			if env.ResourceHints == nil {
				env.ResourceHints = map[string][]byte{}
			}
			name, hint, ok := strings.Cut(value, ":")
			if !ok {
				name, hint = "min_ram_bytes", value
			}
			env.ResourceHints["beam:resources:"+name+":v1"] = []byte(hint)
		case "like":
			env = proto.Clone(ps.c.Environments[value]).(*pipepb.Environment)
		default:
			return fmt.Errorf("no option %q", key)
		}
	}
	ps.c.Environments[fields[0]] = env
	return nil
}

// windowFn is a window function of Beam's own; its message always marshals.
func windowFn(urn string, payload proto.Message) *pipepb.FunctionSpec {
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(payload)
	return &pipepb.FunctionSpec{Urn: urn, Payload: b}
}

func ms(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Millisecond) }

func (ps *parser) window(fields []string) error {
	ws := &pipepb.WindowingStrategy{
		WindowFn:    &pipepb.FunctionSpec{Urn: urn.WindowFnGlobal},
		MergeStatus: pipepb.MergeStatus_NON_MERGING,
		OutputTime:  pipepb.OutputTime_END_OF_WINDOW,
		Trigger:     &pipepb.Trigger{Trigger: &pipepb.Trigger_Default_{Default: &pipepb.Trigger_Default{}}},
	}
	coder := "global_window"
	for _, f := range fields[1:] {
		switch key, value, _ := strings.Cut(f, "="); key {
		case "fn":
			coder = "interval_window"
			switch value {
			case "fixed":
				ws.WindowFn = windowFn(urn.WindowFnFixed, &pipepb.FixedWindowsPayload{Size: ms(10)})
			case "sliding":
				ws.WindowFn = windowFn(urn.WindowFnSliding, &pipepb.SlidingWindowsPayload{Size: ms(10), Period: ms(5)})
			case "sessions":
				ws.WindowFn, ws.MergeStatus = windowFn(urn.WindowFnSessions, &pipepb.SessionWindowsPayload{GapSize: ms(10)}), pipepb.MergeStatus_NEEDS_MERGE
			default:
				ws.WindowFn.Urn, ws.MergeStatus = value, pipepb.MergeStatus_UNSPECIFIED
			}
		case "merge":
			ws.MergeStatus = map[string]pipepb.MergeStatus_Enum{
				"needs": pipepb.MergeStatus_NEEDS_MERGE, "done": pipepb.MergeStatus_ALREADY_MERGED, "none": pipepb.MergeStatus_NON_MERGING,
			}[value]
		case "trigger":
			t, err := trigger(value)
			if err != nil {
				return err
			}
			ws.Trigger = t
		case "coder":
			coder = value
		case "lateness":
			if _, err := fmt.Sscan(value, &ws.AllowedLateness); err != nil {
				return err
			}
		case "closing":
			ws.ClosingBehavior = pipepb.ClosingBehavior_EMIT_ALWAYS
		case "ontime":
			ws.OnTimeBehavior = pipepb.OnTimeBehavior_FIRE_ALWAYS
		case "mode":
			ws.AccumulationMode = pipepb.AccumulationMode_Enum(pipepb.AccumulationMode_Enum_value[strings.ToUpper(value)])
		case "time":
			ws.OutputTime = map[string]pipepb.OutputTime_Enum{
				"earliest": pipepb.OutputTime_EARLIEST_IN_PANE, "latest": pipepb.OutputTime_LATEST_IN_PANE,
			}[value]
		case "env":
			ws.EnvironmentId = value
		default:
			return fmt.Errorf("no option %q", key)
		}
	}
	id, err := ps.coder(coder)
	if err != nil {
		return err
	}
	ws.WindowCoderId = id
	ps.c.WindowingStrategies[fields[0]] = ws
	return nil
}

func trigger(text string) (*pipepb.Trigger, error) {
	name, inner, _ := strings.Cut(strings.TrimSuffix(text, ")"), "(")
	switch name {
	case "default":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Default_{Default: &pipepb.Trigger_Default{}}}, nil
	case "never":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Never_{Never: &pipepb.Trigger_Never{}}}, nil
	case "always":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Always_{Always: &pipepb.Trigger_Always{}}}, nil
	case "count":
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_ElementCount_{ElementCount: &pipepb.Trigger_ElementCount{ElementCount: 3}}}, nil
	case "delay":
		millis, err := int64(5000), error(nil)
		if inner != "" {
			millis, err = strconv.ParseInt(inner, 10, 64)
		}
		wait := &pipepb.TimestampTransform{TimestampTransform: &pipepb.TimestampTransform_Delay_{Delay: &pipepb.TimestampTransform_Delay{DelayMillis: millis}}}
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterProcessingTime_{AfterProcessingTime: &pipepb.Trigger_AfterProcessingTime{
			TimestampTransforms: []*pipepb.TimestampTransform{wait},
		}}}, err
	case "end", "end_early", "end_late":
		t := &pipepb.Trigger_AfterEndOfWindow{}
		count, _ := trigger("count")
		if name == "end_early" {
			t.EarlyFirings = count
		}
		if name == "end_late" {
			t.LateFirings = count
		}
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_AfterEndOfWindow_{AfterEndOfWindow: t}}, nil
	case "repeat":
		sub, err := trigger(inner)
		return &pipepb.Trigger{Trigger: &pipepb.Trigger_Repeat_{Repeat: &pipepb.Trigger_Repeat{Subtrigger: sub}}}, err
	}
	return triggertest.Parse(text)
}

// coders are the names by which texts call Beam's coders.
var coders = map[string]string{
	"bytes": urn.CoderBytes, "string": urn.CoderStringUTF8, "kv": urn.CoderKV, "bool": urn.CoderBool, "varint": urn.CoderVarInt,
	"double": urn.CoderDouble, "iterable": urn.CoderIterable, "interval_window": urn.CoderIntervalWindow,
	"lp": urn.CoderLengthPrefix, "global_window": urn.CoderGlobalWindow, "custom_window": urn.CoderCustomWindow,
	"row": urn.CoderRow, "nullable": urn.CoderNullable, "sharded_key": urn.CoderShardedKey,
}

// coder adds a coder and returns its id, which is its text.
func (ps *parser) coder(text string) (string, error) {
	if ps.c.Coders[text] != nil {
		return text, nil
	}
	name, args, composite := strings.Cut(text, "(")
	c := &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: name}}
	if known := coders[name]; known != "" {
		c.Spec.Urn = known
	}
	if composite {
		if !strings.HasSuffix(args, ")") {
			return "", fmt.Errorf("coder %q is not closed", text)
		}
		for _, arg := range split(strings.TrimSuffix(args, ")")) {
			id, err := ps.coder(arg)
			if err != nil {
				return "", err
			}
			c.ComponentCoderIds = append(c.ComponentCoderIds, id)
		}
	}
	ps.c.Coders[text] = c
	return text, nil
}

// split cuts a list at the commas that are in no parentheses.
func split(list string) []string {
	var parts []string
	depth, start := 0, 0
	for i, r := range list {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			parts = append(parts, strings.TrimSpace(list[start:i]))
			start = i + 1
		}
	}
	if last := strings.TrimSpace(list[start:]); last != "" {
		parts = append(parts, last)
	}
	return parts
}
