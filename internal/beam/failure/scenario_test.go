package failure

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScenarios runs the samples in testdata: what the SDKs' harnesses really reported, with the paths of the machine
// replaced, and what a user reads of it.
//
//	parse   an instruction's error: the report's language and transform, and its text
func TestScenarios(t *testing.T) {
	names := func(id string) string {
		if id == "e3" {
			return "Orders/main.parse"
		}
		return ""
	}
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "parse" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			r := Parse(d.Input)
			text := r.Text(names)
			check(t, d.Input, r, text)
			return fmt.Sprintf("language %q, transform %q, lines %d\n%s\n", r.Language, r.Transform, strings.Count(text, "\n")+1, text)
		})
	})
}
