package flink

import (
	"encoding/json"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestExplain runs the scenarios of what a person reads of Flink's exceptions.
func TestExplain(t *testing.T) {
	datadriven.RunTest(t, "testdata/failures", func(t *testing.T, d *datadriven.TestData) string {
		e := exception{Trace: d.Input}
		d.MaybeScanArgs(t, "task", &e.Task)
		d.MaybeScanArgs(t, "endpoint", &e.Endpoint)
		switch d.Cmd {
		case "explain":
			return explain(e) + "\n"
		case "complaint":
			b, err := json.Marshal(map[string][]string{"errors": {"Internal server error.", d.Input}})
			if err != nil {
				t.Fatal(err)
			}
			return complaint(b) + "\n"
		}
		t.Fatalf("%s: unknown command", d.Cmd)
		return ""
	})
}
