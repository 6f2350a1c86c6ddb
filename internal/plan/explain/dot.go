package explain

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"trestle/internal/plan"
)

// DOT writes the plan as a graph in the language of Graphviz: a box for each stage with its transforms, an arrow for each
// exchange, dashed where it brings a side input. The error is that of w.
func DOT(w io.Writer, p *plan.Plan) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "digraph plan {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];")
	view := View(p)
	for _, s := range view.Stages {
		lines := []string{fmt.Sprintf("stage %d", s.Index)}
		if s.Environment != "" {
			lines[0] += " · " + s.Environment
		}
		switch s.Input.Kind {
		case "impulse":
			lines = append(lines, "impulse")
		case "groups":
			lines = append(lines, s.Input.GroupByKey+" (group_by_key)")
		}
		for _, t := range s.Transforms {
			lines = append(lines, fmt.Sprintf("%s (%s)", t.Name, t.Kind))
		}
		style := ""
		if s.Environment == "" {
			style = ", style=dotted"
		}
		fmt.Fprintf(b, "  s%d [label=%s%s];\n", s.Index, quote(strings.Join(lines, "\n")), style)
	}
	for _, s := range view.Stages {
		for _, x := range s.Input.From {
			fmt.Fprintf(b, "  s%d -> s%d [label=%s];\n", x.Stage, s.Index, quote(x.Kind+"\n"+s.Input.PCollection))
		}
		for _, si := range s.SideInputs {
			for _, x := range si.From {
				fmt.Fprintf(b, "  s%d -> s%d [style=dashed, label=%s];\n", x.Stage, s.Index, quote(si.Tag+" of "+si.Transform))
			}
		}
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

// quote writes a string as DOT has it: with left-justified lines, and only quotes and backslashes escaped.
func quote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\l`).Replace(s)
	return `"` + s + `\l"`
}
