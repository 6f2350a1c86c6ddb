// Package explain shows a plan to people (Text, DOT) and to programs (JSON).
package explain

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"trestle/internal/plan"
)

// Text writes the plan's stages and cuts for a person to read. The error is that of w.
func Text(w io.Writer, p *plan.Plan) error {
	b := bufio.NewWriter(w)
	view := View(p)
	if len(view.Stages) == 0 {
		fmt.Fprintln(b, "no stages: the pipeline does nothing")
	}
	for _, s := range view.Stages {
		where := "runner"
		if s.Environment != "" {
			where = "environment " + s.Environment
			if len(s.Hints) > 0 {
				where += ", which wishes for " + strings.Join(s.Hints, ", ")
			}
		}
		fmt.Fprintf(b, "stage %d: %s [%s]\n", s.Index, s.Name, where)
		fmt.Fprintf(b, "  in   %s\n", inputText(s.Input))
		for _, si := range s.SideInputs {
			fmt.Fprintf(b, "  side %s of %s: %s as %s%s, coder %s\n", si.Tag, si.Transform, si.PCollection, si.Access, fromText(si.From), si.Coder)
		}
		for _, t := range s.Transforms {
			fmt.Fprintf(b, "  run  %s (%s)\n", t.Name, t.Kind)
		}
		for _, o := range s.Outputs {
			fmt.Fprintf(b, "  out  %s%s, coder %s\n", o.PCollection, toText(o.To), o.Coder)
		}
	}
	if len(view.Cuts) > 0 {
		fmt.Fprintln(b, "cuts:")
	}
	for _, c := range view.Cuts {
		fmt.Fprintf(b, "  %s: %s → %s: %s\n", c.PCollection, c.From, c.To, c.Reason)
	}
	return b.Flush()
}

func inputText(in Input) string {
	var b strings.Builder
	switch in.Kind {
	case "impulse":
		fmt.Fprintf(&b, "impulse %s", in.PCollection)
	case "groups":
		fmt.Fprintf(&b, "groups %s by %s", in.PCollection, in.GroupByKey)
	default:
		fmt.Fprintf(&b, "%s %s", in.Kind, in.PCollection)
	}
	b.WriteString(fromText(in.From))
	if in.Merging != "" {
		fmt.Fprintf(&b, ", windows merged by %s", in.Merging)
	}
	if in.Splittable {
		b.WriteString(", splittable")
	}
	if in.Stable {
		b.WriteString(", kept until a snapshot has it")
	}
	fmt.Fprintf(&b, ", coder %s", in.Coder)
	return b.String()
}

func fromText(from []Exchange) string {
	var parts []string
	for _, x := range from {
		parts = append(parts, fmt.Sprintf("%d (%s)", x.Stage, x.Kind))
	}
	if len(parts) == 0 {
		return ""
	}
	return " from " + strings.Join(parts, ", ")
}

func toText(to []Exchange) string {
	var parts []string
	for _, x := range to {
		parts = append(parts, fmt.Sprintf("%d (%s)", x.Stage, x.Kind))
	}
	return " to " + strings.Join(parts, ", ")
}
