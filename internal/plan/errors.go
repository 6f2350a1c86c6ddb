package plan

import (
	"fmt"
	"strings"
)

// Problem is one thing about a pipeline that Trestle cannot run.
type Problem struct {
	// Transform is the unique name of the transform at fault, or its id where it has no name; "" when the fault is the
	// whole pipeline's.
	Transform string
	// Reason says what is wrong.
	Reason string
	// Hint says what the person can do; "" when there is nothing to add.
	Hint string
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Transform != "" {
		fmt.Fprintf(&b, "%s: ", p.Transform)
	}
	b.WriteString(p.Reason)
	if p.Hint != "" {
		fmt.Fprintf(&b, " (%s)", p.Hint)
	}
	return b.String()
}

// RefusedError is what Build returns for a pipeline that is malformed or that this version of Trestle cannot run. It has
// everything that was found, not only the first thing.
type RefusedError struct {
	Problems []Problem
}

// maxShown bounds the message, not the list: a thousand transforms with the same fault need no thousand lines.
const maxShown = 25

// Error is one line when there is one problem, and else a line for each.
func (e *RefusedError) Error() string {
	if len(e.Problems) == 1 {
		return "the pipeline cannot run: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the pipeline cannot run, for %d reasons:", len(e.Problems))
	for i, p := range e.Problems {
		if i == maxShown {
			fmt.Fprintf(&b, "\n  … and %d more", len(e.Problems)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s", p)
	}
	return b.String()
}
