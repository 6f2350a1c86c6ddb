package flink

import (
	"regexp"
	"strings"
)

// ours begins what the adapter's own exceptions say, in a stack trace of Java's.
var ours = regexp.MustCompile(`(?m)^(?:Caused by: )?trestle\.flink\.(?:TaskFailed|JobFailed): `)

// signed is the line with which such a text ends. Its stage is left out: it names transforms that have nothing to do with the
// failure, and the text names the one that has.
var signed = regexp.MustCompile(`(?m)^\[trestle: (?:stage .*, )?(task \d+ of \d+, host .*)\]$`)

// explain is a failure for the person who submitted the pipeline: the worker's own text where it has one, which has user
// code's stack first, and otherwise the last cause of Flink's stack trace.
func explain(e exception) string {
	if begin := ours.FindStringIndex(e.Trace); begin != nil {
		text := e.Trace[begin[1]:]
		if end := signed.FindStringSubmatchIndex(text); end != nil {
			where := text[end[2]:end[3]]
			return strings.TrimRight(text[:end[0]], "\n") + "\n(" + where + ")"
		}
		return strings.TrimRight(text, "\n")
	}
	text := rootCause(e.Trace)
	if e.Task != "" {
		text = e.Task + ": " + text
	}
	if e.Endpoint != "" {
		text += " (TaskManager at " + e.Endpoint + ")"
	}
	for _, h := range hints {
		if strings.Contains(text, h.says) {
			text += "\n" + h.do
		}
	}
	return text
}

// hints are what to do about failures of Flink's own that its words do not tell.
var hints = []struct{ says, do string }{
	{"Insufficient number of network buffers", "Each exchange of a bounded job takes 512 buffers, 16 MiB, on each task that feeds it: set taskmanager.network.sort-shuffle.min-buffers: 64 in Flink's configuration, or give it more memory for its network (taskmanager.memory.network.max), and restart the TaskManagers."},
	{"Could not acquire the minimum required resources", "No slot was free in time: start more TaskManagers, or wait for other jobs to end."},
	{"Metaspace", "Each job brings classes of its own: set taskmanager.memory.jvm-metaspace.size: 512m in Flink's configuration."},
}

// rootCause is the last cause in a stack trace of Java's, without frames: its name's last part and what it says.
func rootCause(trace string) string {
	last, rest := "", []string(nil)
	for line := range strings.Lines(trace) {
		line = strings.TrimRight(line, "\r\n")
		text, caused := strings.CutPrefix(strings.TrimSpace(line), "Caused by: ")
		switch {
		case caused || last == "":
			last, rest = text, nil
		case strings.HasPrefix(strings.TrimSpace(line), "at "), strings.HasPrefix(strings.TrimSpace(line), "... "),
			strings.HasPrefix(strings.TrimSpace(line), "Suppressed: "), strings.HasPrefix(line, "End of exception on server side>"):
		default:
			rest = append(rest, line)
		}
	}
	if len(rest) > causeLines {
		rest = rest[:causeLines]
	}
	last = qualified.ReplaceAllString(last, "")
	return strings.TrimSpace(strings.Join(append([]string{last}, rest...), "\n"))
}

// causeLines is how many lines more a cause may have.
const causeLines = 10

// qualified is the package in front of an exception's name.
var qualified = regexp.MustCompile(`^(?:[a-z_0-9]+\.)+`)

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if len(line) > 300 {
		line = line[:300] + "…"
	}
	return line
}
