package metric

import (
	"fmt"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
)

// TestScenarios runs the scripts in testdata. The command add adds infos, one a line, to the file's set and shows
// the errors and the set; new empties the set before.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		var s Set
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				s = Set{}
			case "add":
			default:
				d.Fatalf(t, "unknown command")
			}
			var infos []*pipepb.MonitoringInfo
			for line := range strings.Lines(d.Input) {
				infos = append(infos, info(t, line))
			}
			var out strings.Builder
			if err := s.Add(infos); err != nil {
				// The proto library writes a non-breaking blank in some builds, so that nobody relies on its words.
				fmt.Fprintln(&out, "error:", strings.ReplaceAll(err.Error(), "\u00a0", " "))
			}
			snapshot := s.Snapshot()
			for _, m := range snapshot {
				fmt.Fprintln(&out, text(t, m))
			}
			if len(snapshot) != s.Len() {
				t.Errorf("Len() = %d, the snapshot has %d", s.Len(), len(snapshot))
			}
			// What a snapshot says is what the set was: another set made of it says the same.
			var again Set
			if err := again.Add(snapshot); err != nil {
				t.Error(err)
			}
			if d := cmp.Diff(snapshot, again.Snapshot(), protocmp.Transform()); d != "" {
				t.Errorf("a set made of the snapshot differs (-snapshot +again):\n%s", d)
			}
			return out.String()
		})
	})
}
