package plan_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"trestle/internal/plan"
	"trestle/internal/plan/explain"
	"trestle/internal/plan/plantest"
)

// TestScenarios builds the pipelines of testdata/scenarios, written as package plantest reads them, and compares what
// explain says about the plan.
//
//	plan [apart] [unlifted] [streams] [streaming]     the plan, or why there is none
//	dot, json                   the same in other forms
//	descriptor stage=N          what the harness of a stage is told to run
//	merging stage=N             what a harness is told to run to merge the windows of a stage's grouping
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			p, err := plantest.Parse(d.Input)
			if err != nil {
				d.Fatalf(t, "%v", err)
			}
			before := proto.Clone(p)
			var o plan.Options
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "apart":
					o.DisableFusion = true
				case "unlifted":
					o.DisableLifting = true
				case "streams":
					o.Streams = true
				case "streaming":
					o.Streaming = true
				}
			}
			built, err := plan.Build(p, o)
			if diff := cmp.Diff(before, proto.Message(p), protocmp.Transform()); diff != "" {
				t.Errorf("Build changed its input:\n%s", diff)
			}
			if err != nil {
				var refused *plan.RefusedError
				if !errors.As(err, &refused) {
					t.Errorf("%v is no RefusedError", err)
				}
				return err.Error() + "\n"
			}
			check(t, built)
			switch d.Cmd {
			case "plan":
				var b strings.Builder
				if err := explain.Text(&b, built); err != nil {
					t.Error(err)
				}
				return b.String()
			case "dot", "json":
				write := map[string]func(io.Writer, *plan.Plan) error{"dot": explain.DOT, "json": explain.JSON}[d.Cmd]
				var b strings.Builder
				if err := write(&b, built); err != nil {
					t.Error(err)
				}
				return b.String()
			case "merging":
				var stage int
				d.ScanArgs(t, "stage", &stage)
				m := built.Stages[stage].Input.Group.Merging
				if m == nil {
					return "none\n"
				}
				return fmt.Sprintf("in %s by %s and %s\n%s", m.Environment, m.Source, m.Sink, descriptorText(m.Descriptor))
			case "descriptor":
				var stage int
				d.ScanArgs(t, "stage", &stage)
				return descriptorText(built.Stages[stage].Descriptor)
			}
			d.Fatalf(t, "no command %q", d.Cmd)
			return ""
		})
	})
}
