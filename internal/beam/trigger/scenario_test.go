package trigger

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
)

// script is a trigger with the windows that a scenario has of one key.
type script struct {
	m       *Machine
	windows map[string]*scripted
	now     At
}

type scripted struct {
	end   int64
	state State
}

// step takes up one line:
//
//	n elements [in WINDOW]
//	watermark T
//	clock T
//	merge WINDOW… into WINDOW end=T
//
// asks the trigger of the window, or of all in the order of their names, and fires it if it is ready.
func (s *script) step(t *testing.T, line string) string {
	words := strings.Fields(line)
	number := func(text string) int64 {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return n
	}
	var names []string
	switch {
	case len(words) > 1 && words[1] == "elements":
		name := "w"
		if len(words) > 3 {
			name = words[3]
		}
		w := s.windows[name]
		if w == nil {
			t.Fatalf("%q: no such window", line)
		}
		s.m.Elements(&w.state, number(words[0]), s.at(w))
		names = []string{name}
	case words[0] == "watermark":
		s.now.Watermark = number(words[1])
	case words[0] == "clock":
		s.now.Processing = number(words[1])
	case words[0] == "merge":
		into := &scripted{end: number(strings.TrimPrefix(words[len(words)-1], "end="))}
		name := words[len(words)-2]
		var from []*State
		for _, n := range words[1 : len(words)-3] {
			from = append(from, &s.windows[n].state)
			defer delete(s.windows, n)
		}
		into.state = s.m.Merge(from, s.at(into))
		s.windows[name] = into
		names = []string{name}
		for _, n := range words[1 : len(words)-3] {
			if n == name {
				t.Fatalf("%q: scenarios give the result a new name", line)
			}
		}
	default:
		t.Fatalf("no step %q", line)
	}
	if names == nil {
		for name := range s.windows {
			names = append(names, name)
		}
	}
	var said []string
	for _, name := range sorted(names) {
		text := s.ask(t, s.windows[name])
		if len(s.windows) > 1 {
			text = name + " " + text
		}
		said = append(said, text)
	}
	return strings.Join(said, "; ")
}

func (s *script) at(w *scripted) At {
	at := s.now
	at.End = w.end
	return at
}

// ask fires the trigger if it is ready, and says what it wants then.
func (s *script) ask(t *testing.T, w *scripted) string {
	text := "waits"
	if s.m.Ready(&w.state, s.at(w)) {
		text = "fires"
		s.m.Fire(&w.state, s.at(w))
		if s.m.Finished(&w.state) {
			text += ", is finished"
		}
	} else if s.m.Finished(&w.state) {
		text = "is finished"
	}
	event, processing := s.m.Wake(&w.state, s.at(w))
	if event != Forever {
		text += fmt.Sprintf(", wake at watermark %d", event)
	}
	if processing != Forever {
		text += fmt.Sprintf(", wake at clock %d", processing)
	}
	again, err := s.m.DecodeState(s.m.AppendState(nil, &w.state))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := s.m.AppendState(nil, &again), s.m.AppendState(nil, &w.state); !cmp.Equal(a, b) {
		t.Fatalf("a state changes when it is encoded: %x, %x", a, b)
	}
	w.state = again
	return text
}

func sorted(names []string) []string {
	for i := range names {
		for j := i; j > 0 && names[j] < names[j-1]; j-- {
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	return names
}

// TestScenarios runs the scripts in testdata.
//
//	compile  a trigger; what it is, or all that is wrong with it
//	trigger  [merging] [windows=a,b] [ends=9,19]: a trigger, and windows that nothing has arrived in (w, which ends at 9)
//	run      steps; what the trigger does at each
//	state    the states, in hexadecimal
//	decode   lines of states in hexadecimal; what is wrong with them
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/scenarios", func(t *testing.T, path string) {
		var s *script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			switch d.Cmd {
			case "compile", "trigger":
				proto, err := triggertest.Parse(d.Input)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				m, err := Compile(proto, d.HasArg("merging"))
				if err != nil {
					return err.Error() + "\n"
				}
				if m.String() != d.Input && d.Input != "" {
					t.Errorf("%s is printed as %s", d.Input, m)
				}
				if d.Cmd == "compile" {
					return fmt.Sprintf("%s, finished by the clock: %v\n", m, m.FinishedByClock())
				}
				s = &script{m: m, windows: map[string]*scripted{}, now: At{Watermark: coder.MinTimestamp}}
				names, ends := "w", "9"
				d.MaybeScanArgs(t, "windows", &names)
				d.MaybeScanArgs(t, "ends", &ends)
				for i, end := range strings.Split(ends, "+") {
					n, err := strconv.ParseInt(end, 10, 64)
					if err != nil {
						d.Fatalf(t, "%v", err)
					}
					s.windows[strings.Split(names, "+")[i]] = &scripted{end: n}
				}
				return "ok\n"
			case "run":
				for line := range strings.Lines(d.Input) {
					line = strings.TrimSpace(line)
					fmt.Fprintf(&out, "%s: %s\n", line, s.step(t, line))
				}
			case "state":
				var names []string
				for name := range s.windows {
					names = append(names, name)
				}
				for _, name := range sorted(names) {
					fmt.Fprintf(&out, "%s: %x\n", name, s.m.AppendState(nil, &s.windows[name].state))
				}
			case "decode":
				for line := range strings.Lines(d.Input) {
					var b []byte
					if line = strings.TrimSpace(line); line != "nothing" {
						if _, err := fmt.Sscanf(line, "%x", &b); err != nil {
							d.Fatalf(t, "%q: %v", line, err)
						}
					}
					state, err := s.m.DecodeState(b)
					if err == nil {
						fmt.Fprintf(&out, "%s: fine, %x\n", line, s.m.AppendState(nil, &state))
					} else {
						fmt.Fprintf(&out, "%s: %v\n", line, err)
					}
				}
			default:
				d.Fatalf(t, "no command %q", d.Cmd)
			}
			return out.String()
		})
	})
}
