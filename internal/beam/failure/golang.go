package failure

import (
	"regexp"
	"slices"
	"strings"
)

// goCause is between an error of the Go SDK and what it wraps, on a line of its own.
const goCause = "\tcaused by:"

var (
	// goMarker are lines that only the Go SDK's harness writes.
	goMarker = regexp.MustCompile(`^((.*: )?while executing \w+ for Plan\[|(.*: )?DoFn\[UID:|\tcaused by:$|Full error:$)|` +
		`^process bundle failed for instruction |(^| )goroutine \d+ \[running\]:$`)
	goPlan  = regexp.MustCompile(`while executing \w+ for Plan\[`)
	goDoFn  = regexp.MustCompile(`^(?:.*: )?DoFn\[UID:[^,\]]*, PID:([^,\]]*), Name: ?(.*)\] failed:$`)
	goUnit  = regexp.MustCompile(`^\d+: \w+\[([^\]]+)\]`)
	goStack = regexp.MustCompile(`^(.*?) ?goroutine \d+ \[running\]:$`)
	goFile  = regexp.MustCompile(`^\t(.*?)( \+0x[0-9a-f]+)?$`)
	// goSDK is the SDK's library, and how it calls a function by reflection and prints a stack.
	goSDK = regexp.MustCompile(`^(created by )?(github\.com/apache/beam/sdks/v2/go/pkg/beam[./(]|reflect\.|runtime/debug\.)`)
)

// parseGo reads an error of the Go SDK: a chain of errors joined by goCause, of which the first ones say what the
// harness was doing, with the whole bundle's plan. A panic's stack is in the text of the last.
func parseGo(lines []string) Report {
	r := Report{Language: "go"}
	errs, units := goErrors(lines)
	if len(errs) == 0 {
		r.Summary, r.Trace = message(lines)
		return r
	}
	for i, e := range errs {
		if m := goDoFn.FindStringSubmatch(e[0]); m != nil {
			if r.Transform = m[1]; r.Transform == "" {
				r.Transform = m[2]
			}
			if e = trimBlank(e[1:]); len(e) == 0 {
				e = []string{m[2] + " failed"}
			}
			// What is around the error of a DoFn is the SDK's.
			errs = append([][]string{e}, errs[i+1:]...)
			break
		}
	}
	for i, e := range errs {
		text, frames := goPanic(e)
		if frames != nil && r.Transform == "" {
			r.Transform = goFailed(frames, units)
		}
		summary, whole := message(text)
		if i == 0 {
			r.Summary = summary
		} else {
			r.Trace = append(r.Trace, "caused by: "+summary)
		}
		r.Trace = append(r.Trace, fit(whole, maxMessage)...)
		r.Trace = append(r.Trace, fold(frames, "", false)...)
	}
	return r
}

// goErrors are the errors of the chain without the harness's own, and the names of the functions in the bundle's plan.
func goErrors(lines []string) (errs [][]string, units []string) {
	if full := slices.Index(lines, "Full error:"); full >= 0 {
		// Before it is the message of an error that the chain has too.
		lines = lines[full+1:]
	}
	for len(lines) > 0 {
		end := slices.Index(lines, goCause)
		e := lines
		if end < 0 {
			lines = nil
		} else {
			e, lines = lines[:end], lines[end+1:]
		}
		e = trimBlank(e)
		if len(e) == 0 {
			continue
		}
		if goPlan.MatchString(e[0]) {
			for _, line := range e[1:] {
				if m := goUnit.FindStringSubmatch(line); m != nil {
					units = append(units, m[1])
				}
			}
			continue
		}
		errs = append(errs, e)
	}
	return errs, units
}

// goPanic splits the text of a caught panic from its stack. frames is nil when there is no stack.
func goPanic(lines []string) (text []string, frames []frame) {
	start := slices.IndexFunc(lines, goStack.MatchString)
	if start < 0 {
		return lines, nil
	}
	text = append(slices.Clone(lines[:start]), goStack.FindStringSubmatch(lines[start])[1])
	stack := lines[start+1:]
	own := false
	for i := 0; i < len(stack); i++ {
		call := stack[i]
		f := frame{sdk: goSDK.MatchString(call), lines: []string{goCall(call)}}
		if i+1 < len(stack) {
			if m := goFile.FindStringSubmatch(stack[i+1]); m != nil {
				f.lines = append(f.lines, "\t"+m[1])
				i++
			}
		}
		if strings.HasPrefix(call, "panic(") && !own {
			// What came before is how the panic was caught. A later panic( is one that was overtaken by this.
			frames = frames[:0]
			continue
		}
		if len(frames) == 0 && strings.HasPrefix(call, "runtime.") {
			// How the runtime came to panic: runtime.goPanicIndex, runtime.sigpanic.
			continue
		}
		if strings.TrimSpace(call) != "" {
			frames = append(frames, f)
			own = own || !f.sdk
		}
	}
	return text, frames
}

// goCall is a frame's function without the addresses of its arguments.
func goCall(call string) string {
	if strings.HasPrefix(call, "created by ") || !strings.HasSuffix(call, ")") {
		return call
	}
	depth := 0
	for i := len(call) - 1; i >= 0; i-- {
		switch call[i] {
		case ')':
			depth++
		case '(':
			if depth--; depth == 0 {
				return call[:i] + "(...)"
			}
		}
	}
	return call
}

// goFailed is the function of the bundle's plan that the SDK had called when it panicked, or "". The plan names a
// method's receiver by its type.
func goFailed(frames []frame, units []string) string {
	last := ""
	for _, f := range frames {
		if f.sdk && last != "" {
			break
		}
		if !f.sdk {
			last = f.lines[0]
		}
	}
	last = strings.NewReplacer("(*", "", ").", ".").Replace(strings.TrimSuffix(last, "(...)"))
	if slices.Contains(units, last) {
		return last
	}
	if dot := strings.LastIndexByte(last, '.'); dot > 0 && slices.Contains(units, last[:dot]) {
		return last[:dot]
	}
	return ""
}
