package grouping

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
)

// readStrategy reads a windowing strategy: window=… [lateness=MS] [mode=accumulating] [closing=always] [ontime=always]
// [output=earliest|latest], and the trigger as the command's input.
func readStrategy(t *testing.T, d *datadriven.TestData) (windowing, *pipepb.WindowingStrategy) {
	proto, err := triggertest.Parse(d.Input)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	ws := &pipepb.WindowingStrategy{Trigger: proto, OutputTime: pipepb.OutputTime_END_OF_WINDOW}
	var w, mode, closing, ontime, output string
	d.MaybeScanArgs(t, "window", &w)
	d.MaybeScanArgs(t, "lateness", &ws.AllowedLateness)
	d.MaybeScanArgs(t, "mode", &mode)
	d.MaybeScanArgs(t, "closing", &closing)
	d.MaybeScanArgs(t, "ontime", &ontime)
	d.MaybeScanArgs(t, "output", &output)
	ws.AccumulationMode = pipepb.AccumulationMode_Enum(pipepb.AccumulationMode_Enum_value[strings.ToUpper(mode)])
	if closing == "always" {
		ws.ClosingBehavior = pipepb.ClosingBehavior_EMIT_ALWAYS
	}
	if ontime == "always" {
		ws.OnTimeBehavior = pipepb.OnTimeBehavior_FIRE_ALWAYS
	}
	switch output {
	case "earliest":
		ws.OutputTime = pipepb.OutputTime_EARLIEST_IN_PANE
	case "latest":
		ws.OutputTime = pipepb.OutputTime_LATEST_IN_PANE
	}
	return parseWindowing(w), ws
}

func number(t *testing.T, text string) int64 {
	switch text {
	case "max":
		return coder.MaxTimestamp
	case "none":
		return None
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// step takes up one line:
//
//	NAME@TIMESTAMP …   elements, in one bundle
//	watermark T        the input's
//	clock T
//	others hold T      other keys hold the output watermark
//
// and returns what happened.
func (h *host) step(t *testing.T, line string) string {
	h.log.Reset()
	words := strings.Fields(line)
	was := h.now.Output
	switch words[0] {
	case "watermark":
		h.watermark(number(t, words[1]))
	case "clock":
		h.clock(number(t, words[1]))
	case "others":
		h.others = number(t, words[2])
		h.tell()
	default:
		var items []item
		for _, word := range words {
			name, at, ok := strings.Cut(word, "@")
			if !ok {
				t.Fatalf("no step %q", line)
			}
			items = append(items, item{name, number(t, at)})
		}
		h.elements(items...)
	}
	text := "> " + line + "\n"
	for said := range strings.Lines(h.log.String()) {
		text += "  " + said
	}
	if h.now.Output != was {
		text += fmt.Sprintf("  output watermark %d\n", h.now.Output)
	}
	return text
}

// TestScenarios runs the scripts in testdata.
//
//	strategy  see readStrategy; what is wrong with it
//	run       steps; what happens at each
//	state     the states in hexadecimal, with the bags
//	load      window=[FROM,TO) and a state in hexadecimal; what is wrong with it
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		var h *host
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			switch d.Cmd {
			case "strategy":
				w, ws := readStrategy(t, d)
				var err error
				if h, err = newHost(t, w, ws); err != nil {
					return err.Error() + "\n"
				}
				return "ok\n"
			case "run":
				for line := range strings.Lines(d.Input) {
					out.WriteString(h.step(t, strings.TrimSpace(line)))
				}
			case "state":
				for _, w := range slices.Sorted(maps.Keys(h.states)) {
					fmt.Fprintf(&out, "%s: %x\n", h.windowing.text([]byte(w)), h.states[w])
				}
				for _, b := range slices.Sorted(maps.Keys(h.bags)) {
					fmt.Fprintf(&out, "bag: %s\n", strings.Join(h.bags[b], " "))
				}
			case "load":
				for line := range strings.Lines(d.Input) {
					var b []byte
					line = strings.TrimSpace(line)
					if line != "nothing" {
						if _, err := fmt.Sscanf(line, "%x", &b); err != nil {
							d.Fatalf(t, "%v", err)
						}
					}
					k := h.m.NewKey()
					if err := k.Load(h.windowing.assign(0)[0], b); err != nil {
						fmt.Fprintf(&out, "%s: %v\n", line, err)
					} else {
						fmt.Fprintf(&out, "%s: fine\n", line)
					}
				}
			default:
				d.Fatalf(t, "no command %q", d.Cmd)
			}
			return out.String()
		})
	})
}
