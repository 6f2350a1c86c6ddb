package grouping

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
)

// transcript is one of Beam's trigger transcripts (sdks/python/apache_beam/testing/data/trigger_transcripts.yaml): what a
// grouping of one key puts out, event by event.
type transcript struct {
	Name              string
	Error             string // it is wrong, and is to be found to be
	WindowFn          string `json:"window_fn"`
	TriggerFn         string `json:"trigger_fn"`
	TimestampCombiner string `json:"timestamp_combiner"`
	AllowedLateness   int64  `json:"allowed_lateness"`
	AccumulationMode  string `json:"accumulation_mode"`
	Transcript        []map[string]json.RawMessage
}

// expected is a pane as a transcript has it; what is nil may be anything.
type expected struct {
	Window           []int64
	Values           []int64
	Timestamp, Index *int64
	NonSpeculative   *int64 `json:"nonspeculative_index"`
	Early, Late      *bool
	Final            *bool
}

// leftOut are transcripts, and events of them, that the model has no place for, by name, with the reason.
var leftOut = map[string]string{
	"timestamp_combiner_custom_timestamping_earliest OUTPUT_AT_EARLIEST_TRANSFORMED": "the model's OutputTime has no such value: only a runner in Python can call such a window function",
	"garbage_collection state": "state is looked at by no test of Beam's: [0, 9] could be absent only if the watermark had passed it, and it does not move",
}

// TestTranscripts runs the transcripts of the Python SDK that is set up. Their unit of time is the finest; ours is the
// millisecond.
func TestTranscripts(t *testing.T) {
	python := os.Getenv("TRESTLE_TEST_PYTHON")
	if python == "" {
		t.Skip("TRESTLE_TEST_PYTHON names no Python with Beam's SDK; make unit sets one up")
	}
	cmd := exec.Command(python, "-c", `
import importlib.util, json, os, yaml
sdk = importlib.util.find_spec("apache_beam").origin
path = os.path.join(os.path.dirname(sdk), "testing", "data", "trigger_transcripts.yaml")
with open(path) as f:
  print(json.dumps(list(yaml.safe_load_all(f))))`)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("read the transcripts: %v", err)
	}
	var all []transcript
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 15 {
		t.Errorf("%d transcripts", len(all))
	}
	unused := map[string]bool{}
	for name := range leftOut {
		unused[name] = true
	}
	for _, tr := range all {
		t.Run(tr.Name, func(t *testing.T) {
			name := tr.Name + " " + tr.TimestampCombiner
			if reason := leftOut[name]; reason != "" {
				delete(unused, name)
				t.Skip(reason)
			}
			err := tr.run(t, unused)
			switch {
			case tr.Error == "" && err != nil:
				t.Error(err)
			case tr.Error != "" && (err == nil || !strings.Contains(err.Error(), strings.ToLower(tr.Error))):
				t.Errorf("it is found to be wrong with %v, and should be with %q", err, tr.Error)
			}
		})
	}
	for name := range unused {
		t.Errorf("%s is left out, and there is no such transcript", name)
	}
}

var argument = regexp.MustCompile(`^(\w+)\((\d+)\)$`)

func (tr transcript) strategy(t *testing.T) (windowing, *pipepb.WindowingStrategy) {
	// What every pipeline of the Python SDK has (Windowing.to_runner_api).
	ws := &pipepb.WindowingStrategy{
		AllowedLateness: tr.AllowedLateness,
		ClosingBehavior: pipepb.ClosingBehavior_EMIT_ALWAYS,
		OnTimeBehavior:  pipepb.OnTimeBehavior_FIRE_ALWAYS,
	}
	w := windowing{kind: "global"}
	if m := argument.FindStringSubmatch(tr.WindowFn); m != nil {
		w.size, _ = strconv.ParseInt(m[2], 10, 64)
		w.period = w.size
		switch m[1] {
		case "FixedWindows", "CustomTimestampingFixedWindowsWindowFn": // whose timestamps are not asked for
			w.kind = "fixed"
		case "Sessions":
			w.kind = "sessions"
		default:
			t.Fatalf("window function %s", tr.WindowFn)
		}
	} else if tr.WindowFn != "" {
		t.Fatalf("window function %q", tr.WindowFn)
	}
	text := strings.NewReplacer("AfterWatermark", "AfterEndOfWindow", "AfterCount", "ElementCount", "Repeatedly", "Repeat").Replace(tr.TriggerFn)
	proto, err := triggertest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	ws.Trigger = proto
	switch tr.AccumulationMode {
	case "", "accumulating":
		ws.AccumulationMode = pipepb.AccumulationMode_ACCUMULATING
	case "discarding":
		ws.AccumulationMode = pipepb.AccumulationMode_DISCARDING
	default:
		t.Fatalf("accumulation mode %q", tr.AccumulationMode)
	}
	switch tr.TimestampCombiner {
	case "", "OUTPUT_AT_EOW":
		ws.OutputTime = pipepb.OutputTime_END_OF_WINDOW
	case "OUTPUT_AT_EARLIEST":
		ws.OutputTime = pipepb.OutputTime_EARLIEST_IN_PANE
	case "OUTPUT_AT_LATEST":
		ws.OutputTime = pipepb.OutputTime_LATEST_IN_PANE
	default:
		t.Fatalf("timestamp combiner %q", tr.TimestampCombiner)
	}
	return w, ws
}

// run returns how what comes out differs from the transcript.
func (tr transcript) run(t *testing.T, unused map[string]bool) error {
	w, ws := tr.strategy(t)
	h, err := newHost(t, w, ws)
	if err != nil {
		t.Fatal(err)
	}
	decode := func(from json.RawMessage, into any) {
		if err := json.Unmarshal(from, into); err != nil {
			t.Fatalf("%s: %v", from, err)
		}
	}
	for _, event := range tr.Transcript {
		for what, arguments := range event {
			if what != "expect" && len(h.panes) > 0 {
				return fmt.Errorf("unexpected output: %v", h.panes)
			}
			switch what {
			case "input":
				var timestamps []int64
				decode(arguments, &timestamps)
				var items []item
				for _, at := range timestamps {
					items = append(items, item{fmt.Sprint(at), at})
				}
				h.elements(items...)
			case "watermark":
				var at int64
				decode(arguments, &at)
				h.watermark(at)
			case "expect":
				var panes []expected
				decode(arguments, &panes)
				for _, e := range panes {
					i := slices.IndexFunc(h.panes, func(p pane) bool { return e.is(h, p) })
					if i < 0 {
						return fmt.Errorf("unmatched output: %s is not among %v", arguments, h.panes)
					}
					h.panes = slices.Delete(h.panes, i, i+1)
				}
			case "state":
				name := tr.Name + " " + what
				if leftOut[name] == "" {
					t.Errorf("state is not looked at")
				}
				delete(unused, name)
			default:
				t.Fatalf("event %s", what)
			}
		}
	}
	if len(h.panes) > 0 {
		return fmt.Errorf("unexpected output: %v", h.panes)
	}
	return nil
}

// is tells whether the pane is the expected one.
func (e expected) is(h *host, p pane) bool {
	var start, end int64
	if h.windowing.kind != "global" {
		fmt.Sscanf(p.window, "[%d,%d)", &start, &end)
	}
	var values []int64
	for _, v := range p.values {
		n, _ := strconv.ParseInt(v, 10, 64)
		values = append(values, n)
	}
	slices.Sort(values)
	flag := func(want *bool, is bool) bool { return want == nil || *want == is }
	equal := func(want *int64, is int64) bool { return want == nil || *want == is }
	return slices.Equal(e.Window, []int64{start, end - 1}) && (e.Values == nil || slices.Equal(e.Values, values)) &&
		equal(e.Timestamp, p.timestamp) && equal(e.Index, p.info.Index) && equal(e.NonSpeculative, p.info.NonSpeculative) &&
		flag(e.Early, p.info.Timing == coder.Early) && flag(e.Late, p.info.Timing == coder.Late) && flag(e.Final, p.info.Last)
}
