package failure

import (
	"regexp"
	"slices"
	"strings"
)

var (
	// javaFrame is a line of Throwable.printStackTrace: a tab for each level, and where the call is.
	javaFrame = regexp.MustCompile(`^\t+at (.+\(.*\).*)$`)
	javaMore  = regexp.MustCompile(`^\t+\.\.\. \d+ (more|common frames omitted)$`)
	javaChild = regexp.MustCompile(`^(\t*)(Caused by: |Suppressed: )(.*)$`)
	// javaSDK are Beam's own classes and the invokers that it generates for each DoFn; org.apache.beam.examples is as
	// good as the user's code. A frame may begin with its loader and module: "app//", "java.base@17/".
	javaSDK = regexp.MustCompile(`^([^\s(]*/)?(org\.apache\.beam\.(sdk|fn|runners|model|vendor|repackaged|it)\.|[^\s(]*\$DoFnInvoker[.$])`)
	// javaTest are test classes, Beam's own among them: to their author they are the user's code.
	javaTest = regexp.MustCompile(`\w(Test|Tests|IT)\.java:\d+\)`)
	// javaThread are the JDK's own frames at the outer end of every thread.
	javaThread = regexp.MustCompile(`^([^\s(]*/)?(java\.util\.concurrent\.|java\.lang\.(Thread|reflect)\b|jdk\.internal\.reflect\.|sun\.reflect\.)`)
	// javaWrapper are exceptions that only carry another one from the user's code to the harness.
	javaWrapper = regexp.MustCompile(`^(org\.apache\.beam\.sdk\.util\.UserCodeException|java\.util\.concurrent\.(ExecutionException|CompletionException)|` +
		`java\.lang\.reflect\.(InvocationTargetException|UndeclaredThrowableException)|\S*\.UncheckedExecutionException)\b`)
)

// maxChain is how many throwables are looked at; even deep layers of wrapping are a dozen.
const maxChain = 64

// javaError is one throwable of a stack trace.
type javaError struct {
	// indent is its level's tabs, label how it is related to the one that it belongs to.
	indent, label string
	text          []string
	frames        []frame
}

// parseJava reads a stack trace as Throwable.printStackTrace writes it.
func parseJava(lines []string) Report {
	r := Report{Language: "java"}
	errs := unwrapJava(javaErrors(lines))
	var whole []string
	r.Summary, whole = message(errs[0].text)
	r.Trace = fit(whole, maxMessage)
	for i, e := range errs {
		if i > 0 && len(e.text) > 0 {
			text := fit(e.text, maxMessage)
			r.Trace = append(r.Trace, e.indent+e.label+text[0])
			r.Trace = append(r.Trace, text[1:]...)
		}
		r.Trace = append(r.Trace, fold(e.frames, e.indent+"\t", false)...)
	}
	return r
}

// javaErrors are the throwables in the order of the text; there is at least one.
//
// Of a chain beyond reason both ends are kept, so that the work stays in proportion to the text.
func javaErrors(lines []string) []javaError {
	errs := []javaError{{}}
	for _, line := range lines {
		e := &errs[len(errs)-1]
		if m := javaFrame.FindStringSubmatch(line); m != nil {
			e.frames = append(e.frames, frame{lines: []string{line}, sdk: javaSDK.MatchString(m[1]) && !javaTest.MatchString(m[1])})
		} else if javaMore.MatchString(line) {
			continue
		} else if m := javaChild.FindStringSubmatch(line); m != nil {
			errs = append(errs, javaError{indent: m[1], label: m[2], text: []string{m[3]}})
		} else if len(e.frames) == 0 {
			e.text = append(e.text, line)
		}
		// Else it is a line after a trace, which belongs to nothing.
	}
	if len(errs) > maxChain {
		errs = slices.Delete(errs, maxChain/2, len(errs)-maxChain/2)
	}
	for i := range errs {
		errs[i].text = trimBlank(errs[i].text)
		javaOuter(errs[i].frames)
	}
	if len(errs) > 1 && len(errs[0].text) == 0 && len(errs[0].frames) == 0 {
		// The text began with a cause.
		errs = errs[1:]
		errs[0].indent, errs[0].label = "", ""
	}
	return errs
}

// javaOuter gives the SDK the thread that a harness runs on: it is in every trace, and says nothing.
func javaOuter(frames []frame) {
	sdk := slices.ContainsFunc(frames, func(f frame) bool { return f.sdk })
	for i := len(frames) - 1; sdk && i >= 0; i-- {
		name := strings.TrimPrefix(strings.TrimLeft(frames[i].lines[0], "\t"), "at ")
		if !frames[i].sdk && !javaThread.MatchString(name) {
			return
		}
		frames[i].sdk = true
	}
}

// unwrapJava drops the outer throwables that are not the user's: those that only carry their cause, and those that
// the SDK threw around a cause that has frames of its own.
func unwrapJava(errs []javaError) []javaError {
	for {
		cause := slices.IndexFunc(errs[1:], func(e javaError) bool { return e.indent == "" && e.label == "Caused by: " }) + 1
		if cause == 0 {
			return errs
		}
		first := strings.Join(errs[0].text, "\n")
		if !javaWrapper.MatchString(first) && (javaOwn(errs[:1]) || !javaOwn(errs[cause:])) {
			return errs
		}
		if outer := errs[0]; javaOwn(errs[:1]) && !javaOwn(errs[cause:]) {
			// The cause's frames stop where the wrapper's begin, and only those lead to the user's code.
			errs[cause].frames = append(errs[cause].frames, outer.frames...)
		}
		errs = errs[cause:]
	}
}

// javaOwn says whether one of the throwables has a frame that is not the SDK's.
func javaOwn(errs []javaError) bool {
	return slices.ContainsFunc(errs, func(e javaError) bool {
		return slices.ContainsFunc(e.frames, func(f frame) bool { return !f.sdk })
	})
}
