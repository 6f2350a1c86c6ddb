package coder

import (
	"fmt"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"
)

// TestScenarios runs the scripts in testdata.
//
//	skip      first line a coder, then encodings, one a line: how many bytes of how many are the first element
//	header    first line a windowed-value coder, then records: what is in the header
//	cut       the same for records of KVs: the key and the value
//	compile   id=…; coders, one a line: what is wrong with them
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "compile" {
				var id string
				d.ScanArgs(t, "id", &id)
				c, err := Compile(coderLines(d.Input), id)
				if err != nil {
					return err.Error() + "\n"
				}
				return fmt.Sprintf("%s, fixed size %d, %d steps\n", c.URN(), c.fixed, len(c.prog))
			}
			first, rest, _ := strings.Cut(d.Input, "\n")
			var out strings.Builder
			coders := map[string]*pipepb.Coder{}
			id := parse(coders, first)
			for line := range strings.Lines(rest) {
				b, err := unescape(strings.TrimSuffix(line, "\n"))
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				text, err := run(d.Cmd, coders, id, b)
				if err != nil {
					text = err.Error()
				}
				fmt.Fprintln(&out, text)
			}
			return out.String()
		})
	})
}

func run(cmd string, coders map[string]*pipepb.Coder, id string, b []byte) (string, error) {
	if cmd == "skip" {
		c, err := Compile(coders, id)
		if err != nil {
			return "", err
		}
		n, err := c.Skip(b)
		return fmt.Sprintf("%d of %d", n, len(b)), err
	}
	w, err := CompileWindowed(coders, id)
	if err != nil {
		return "", err
	}
	if cmd == "cut" {
		var r KV
		if err := w.CutKV(b, &r); err != nil {
			return "", err
		}
		return fmt.Sprintf("key %q value %q, %d of %d", r.Key(b), r.Value(b), r.Size, len(b)), nil
	}
	h, size, err := w.Record(b)
	if err != nil {
		return "", err
	}
	pane, _, err := Pane(h.Pane(b))
	return fmt.Sprintf("at %d in %d windows %q, pane %+v, element %q, %d of %d",
		h.Timestamp, h.Count, h.Windows(b), pane, b[h.Size:size], size, len(b)), err
}
