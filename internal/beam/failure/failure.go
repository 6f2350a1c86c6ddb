// Package failure turns the error that an SDK harness reports for an instruction (InstructionResponse.error in
// beam_fn_api.proto) into what a user should read: the user's own exception and stack trace first, with the name of
// the transform, and without the dozens of frames of the SDK and its harness.
//
// The text of that error is no protocol: each SDK writes what its language prints, so each has a reader here, and a
// text that none of them knows is shown as it is, cut to a bounded size. Package failure is pure.
package failure

import (
	"fmt"
	"strings"
)

const (
	// maxText is what Parse looks at. A longer text is cut in its middle: what failed is at its ends.
	maxText = 256 << 10
	// maxLines bounds Report.Text, and with it what a person has to scroll through.
	maxLines = 25
	// maxTrace leaves room for the summary and the transform.
	maxTrace = maxLines - 2
	// maxMessage bounds each exception's own lines in a trace, when it has several.
	maxMessage = 8
	// maxSummary and maxWidth are in runes. A summary may quote an element; a line of a trace is code.
	maxSummary = 500
	maxWidth   = 240
)

// Report is a failure as a user should read it.
type Report struct {
	// Transform names the transform that failed, as the SDK does: the Python SDK by its unique name, the Go SDK by
	// its id in the pipeline, or in a panic by the function's name. It is "" where the SDK does not say, as in Java
	// and TypeScript.
	Transform string
	// Stage is the name of the stage, if the caller knows it: Text has it where there is no Transform. Parse leaves it empty.
	Stage string
	// Summary is the exception in one line: "ValueError: boom".
	Summary string
	// Trace is the stack trace in the language's own order and look: frames of the user's code and of what it called
	// with their source lines where the SDK gives them, the exceptions that led to this one, and a message of several
	// lines whole. Frames of the SDK are one line, "… 14 frames of the Beam SDK"; if there are no others, the
	// innermost few are kept. A trace is at most 23 lines; a longer one is cut in its middle.
	Trace []string
	// Language is "python", "java", "go" or "typescript", or "" when the text is not known.
	Language string
}

// Parse reads the error of an instruction. It takes any text, and its Report is small whatever the text's size.
func Parse(text string) Report {
	lines := strings.Split(clean(text), "\n")
	var r Report
	switch language(lines) {
	case "python":
		r = parsePython(lines)
	case "java":
		r = parseJava(lines)
	case "go":
		r = parseGo(lines)
	case "typescript":
		r = parseTypeScript(lines)
	default:
		if r.Summary, r.Trace = message(lines); len(r.Trace) > 0 {
			r.Trace = r.Trace[1:]
		}
	}
	if r.Summary == "" {
		r.Summary = "the SDK harness reported an error without a text"
	}
	r.Summary = clip(r.Summary, maxSummary)
	r.Trace = fit(r.Trace, maxTrace)
	return r
}

// Text is the report for a person: the exception, the transform and the trace, in at most 25 lines. names translates
// a transform's id to its unique name; it answers "" for what is no id. It may be nil.
func (r Report) Text(names func(transformID string) string) string {
	var b strings.Builder
	b.WriteString(oneLine(clip(r.Summary, maxSummary)))
	trace := r.Trace
	if r.Transform == "" && len(trace) > 0 && trace[0] == r.Summary {
		trace = trace[1:]
	}
	if r.Transform != "" {
		name := r.Transform
		if names != nil {
			if known := names(r.Transform); known != "" {
				name = known
			}
		}
		fmt.Fprintf(&b, "\nin transform \"%s\"", oneLine(clip(name, maxSummary)))
	} else if r.Stage != "" {
		fmt.Fprintf(&b, "\nin stage \"%s\"", oneLine(clip(r.Stage, maxSummary)))
	}
	for _, line := range fit(trace, maxTrace) {
		b.WriteByte('\n')
		b.WriteString(oneLine(line))
	}
	return b.String()
}

// language tells whose text this is by the first line that only one language writes.
func language(lines []string) string {
	for _, line := range lines {
		switch {
		case strings.HasSuffix(line, pythonHeader):
			return "python"
		case goMarker.MatchString(line):
			return "go"
		case scriptFrame.MatchString(line):
			return "typescript"
		case javaFrame.MatchString(line):
			return "java"
		}
	}
	return ""
}

// message is the summary of an exception's own text: its first line. If there are more, whole is all of them, for the
// trace: a message that is torn apart cannot be read.
func message(text []string) (summary string, whole []string) {
	text = trimBlank(text)
	if len(text) == 0 {
		return "", nil
	}
	summary = strings.TrimSpace(text[0])
	if len(text) == 1 {
		return summary, nil
	}
	// "ValueError:" alone says little: the message begins on the next line.
	if next := trimBlank(text[1:]); strings.HasSuffix(summary, ":") && !strings.Contains(summary, " ") {
		summary += " " + strings.TrimSpace(next[0])
	}
	return summary, text
}
