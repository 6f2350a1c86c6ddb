package failure

import (
	"regexp"
	"strings"
)

// pythonHeader begins a traceback, as traceback.format_exc of the standard library writes it.
const pythonHeader = "Traceback (most recent call last):"

const (
	pythonCause   = "The above exception was the direct cause of the following exception:"
	pythonContext = "During handling of the above exception, another exception occurred:"
)

var (
	// pythonStep is what the SDK's DoFnRunner adds to an exception's message when it raises it again. A KeyError shows
	// its message quoted, so the quotes in it may be escaped.
	pythonStep = regexp.MustCompile(` ?\[while running \\?'(.*?)\\?'\]`)
	// pythonSDK are the files of the SDK, wherever it is installed; apache_beam/examples is as good as the user's code.
	// The picklers and gRPC are called by it alone.
	pythonSDK = regexp.MustCompile(`(^|[/\\])(apache_beam[/\\](runners|transforms|coders|internal|io|utils|metrics|` +
		`typehints|options|portability|tools|ml|dataframe|yaml|testing|pipeline\.py|pvalue\.py)|dill[/\\]|cloudpickle[/\\]|grpc[/\\])`)
	// pythonThread are the standard library's own frames at the outer end of a thread, or of a future's result.
	pythonThread = regexp.MustCompile(`(^|[/\\])(threading\.py|concurrent[/\\]futures[/\\]\w+\.py)$`)
	pythonFile   = regexp.MustCompile(`^  File "([^"]*)"`)
	pythonCaret  = regexp.MustCompile(`^[ |]*[~^]+$`)
)

// pythonError is one exception of a chain with its traceback.
type pythonError struct {
	frames []frame
	// text is the exception as Python prints it: type, message, which may have several lines, and notes.
	text []string
	// link leads to the next exception of the chain; "" in the last.
	link string
}

// parsePython reads a chain of exceptions. The SDK raises a user's exception again with the step's name in its
// message, or as a RuntimeError where the type refuses that; the traceback of the original comes before.
func parsePython(lines []string) Report {
	r := Report{Language: "python"}
	chain := pythonChain(lines)
	for i, e := range chain {
		text := strings.Join(e.text, "\n")
		found := pythonStep.FindAllStringSubmatch(text, -1)
		if found == nil {
			continue
		}
		r.Transform = found[len(found)-1][1]
		if i > 0 && chain[i-1].link == pythonContext {
			chain = chain[:i]
		} else {
			chain[i].text = strings.Split(pythonStep.ReplaceAllString(text, ""), "\n")
			chain = chain[:i+1]
		}
		break
	}
	if r.Trace = pythonTrace(chain); len(r.Trace) > maxTrace {
		// The carets only point into the line above them.
		for i := range chain {
			chain[i].text = remove(chain[i].text, pythonCaret)
		}
		r.Trace = remove(pythonTrace(chain), pythonCaret)
	}
	r.Summary, _ = message(chain[len(chain)-1].text)
	return r
}

// pythonTrace is the chain as Python prints it, but for the last exception where the summary says all of it.
func pythonTrace(chain []pythonError) []string {
	var trace []string
	for i, e := range chain {
		if len(e.frames) > 0 {
			trace = append(trace, pythonHeader)
			trace = append(trace, fold(e.frames, "  ", true)...)
		}
		if i < len(chain)-1 {
			trace = append(trace, fit(e.text, maxMessage)...)
			trace = append(trace, "", e.link, "")
		} else if len(e.text) > 1 {
			// What the rest has left is the last message's.
			trace = append(trace, fit(e.text, max(maxMessage, maxTrace-len(trace)))...)
		}
	}
	return trace
}

// pythonChain cuts the text into its exceptions; there is at least one. A traceback inside a message (of a
// subprocess, say) is not preceded by one of the two links, so it stays in the message.
func pythonChain(lines []string) []pythonError {
	var chain []pythonError
	start := -1
	for i, line := range lines {
		if start < 0 {
			if strings.HasSuffix(line, pythonHeader) {
				start = i + 1
			}
			continue
		}
		if i < 2 || !pythonBegins(line) {
			continue
		}
		link := strings.TrimSpace(strings.TrimLeft(lines[i-2], " |"))
		if lines[i-1] == "" && (link == pythonCause || link == pythonContext) {
			chain = append(chain, pythonBlock(lines[start:i-2], link))
			start = i + 1
		}
	}
	return append(chain, pythonBlock(lines[max(start, 0):], ""))
}

func pythonBegins(line string) bool {
	return line == pythonHeader || line == "  + Exception Group "+pythonHeader
}

// pythonBlock reads what follows the header: frames, then the exception.
func pythonBlock(lines []string, link string) pythonError {
	e := pythonError{link: link}
	i := 0
	for ; i < len(lines); i++ {
		line := ungroup(lines[i])
		if file := pythonFile.FindStringSubmatch(line); file != nil {
			e.frames = append(e.frames, frame{lines: []string{line}, sdk: pythonSDK.MatchString(file[1])})
		} else if len(e.frames) > 0 && pythonSource(line) {
			f := &e.frames[len(e.frames)-1]
			f.lines = append(f.lines, line)
		} else {
			break
		}
	}
	for _, line := range lines[i:] {
		e.text = append(e.text, ungroup(line))
	}
	e.text = trimBlank(e.text)
	pythonOuter(e.frames)
	return e
}

// pythonOuter gives the SDK the threads that it runs its work on.
func pythonOuter(frames []frame) {
	sdk := false
	for i, f := range frames {
		file := pythonFile.FindStringSubmatch(f.lines[0])
		switch {
		case f.sdk:
			sdk = true
		case pythonThread.MatchString(file[1]):
			frames[i].sdk = sdk
		default:
			return
		}
	}
}

// pythonSource says whether a line belongs to the frame above it.
func pythonSource(line string) bool {
	return strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "  [Previous line repeated")
}

// ungroup takes the margin off a line of an exception group's own traceback; what is in the group keeps its own.
func ungroup(line string) string {
	if rest, ok := strings.CutPrefix(line, "  | "); ok {
		return rest
	}
	return line
}

func remove(lines []string, what *regexp.Regexp) []string {
	var out []string
	for _, line := range lines {
		if !what.MatchString(line) {
			out = append(out, line)
		}
	}
	return out
}
