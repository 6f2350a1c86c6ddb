package harness

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestExitText runs the scenarios of how an Exit reads.
func TestExitText(t *testing.T) {
	datadriven.RunTest(t, "testdata/exit", func(t *testing.T, d *datadriven.TestData) string {
		e := &Exit{Worker: "job-e0-w1", Environment: "python"}
		var signal, lines int
		d.MaybeScanArgs(t, "code", &e.Code)
		d.MaybeScanArgs(t, "connected", &e.Connected)
		d.MaybeScanArgs(t, "lines", &lines)
		if d.MaybeScanArgs(t, "signal", &signal); signal != 0 {
			e.Code, e.Signal = -1, syscall.Signal(signal)
		}
		for i := range lines {
			e.Output = append(e.Output, fmt.Sprintf("line %d", i+1))
		}
		if d.Input != "" {
			e.Output = strings.Split(strings.TrimSuffix(d.Input, "\n"), "\n")
		}
		text := e.Error()
		if n := strings.Count(text, "\n") + 1; n >= 30 {
			t.Errorf("%d lines", n)
		}
		return text
	})
}
