package failure

import (
	"regexp"
	"slices"
	"strings"
)

var (
	// scriptFrame is a line of V8's Error.stack.
	scriptFrame = regexp.MustCompile(`^\s+at .*(:\d+:\d+\)?|\(<anonymous>\)|\(native\)|<anonymous>)$`)
	// scriptSDK are the SDK's package and Node's own files.
	scriptSDK = regexp.MustCompile(`[/\\]node_modules[/\\](apache-beam|@grpc|protobufjs)[/\\]|[( ]node:|[( ]internal/`)
)

// parseTypeScript reads an error with the stack that V8 writes. The SDK reports most errors without a stack: their
// text is that of any unknown error.
func parseTypeScript(lines []string) Report {
	r := Report{Language: "typescript"}
	first := slices.IndexFunc(lines, scriptFrame.MatchString)
	text := trimBlank(lines[:max(first, 0)])
	// "Error handling instruction: " is followed by the error, then by its stack, which begins with the error again.
	if len(text) > 0 {
		if rest, ok := strings.CutPrefix(text[0], "Error handling instruction: "); ok {
			text = append([]string{rest}, text[1:]...)
			if half := len(text) / 2; len(text)%2 == 0 && slices.Equal(text[:half], text[half:]) {
				text = text[:half]
			}
		}
	}
	var whole []string
	r.Summary, whole = message(text)
	r.Trace = fit(whole, maxMessage)
	var frames []frame
	for _, line := range lines[max(first, 0):] {
		if scriptFrame.MatchString(line) {
			frames = append(frames, frame{lines: []string{line}, sdk: scriptSDK.MatchString(line)})
		}
	}
	r.Trace = append(r.Trace, fold(frames, "    ", false)...)
	return r
}
