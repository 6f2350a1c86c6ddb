package failure

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// frame is one call in a stack trace.
type frame struct {
	// lines are what is shown.
	lines []string
	// sdk says that the call is the SDK's or the harness's own.
	sdk bool
}

// kept is how many of the SDK's frames are shown when a trace has no others.
const kept = 3

// repeated is how often a frame must come again for that to be a number. Python folds its own after three.
const repeated = 3

// fold is the trace with the SDK's frames in one line for each run of them, and repeated frames once. indent is what
// frames begin with. If the SDK's frames are all there are, the innermost are kept: they are the last if innerLast.
func fold(frames []frame, indent string, innerLast bool) []string {
	shown := make([]bool, len(frames))
	own := false
	for i, f := range frames {
		shown[i] = !f.sdk
		own = own || !f.sdk
	}
	for i := 0; !own && i < len(frames) && i < kept; i++ {
		if innerLast {
			shown[len(frames)-1-i] = true
		} else {
			shown[i] = true
		}
	}
	var out []string
	for i := 0; i < len(frames); {
		j := i + 1
		if !shown[i] {
			for j < len(frames) && !shown[j] {
				j++
			}
			out = append(out, indent+"… "+plural(j-i, "frame")+" of the Beam SDK")
			i = j
			continue
		}
		out = append(out, frames[i].lines...)
		for j < len(frames) && shown[j] && slices.Equal(frames[i].lines, frames[j].lines) {
			j++
		}
		if more := j - i - 1; more >= repeated {
			out = append(out, fmt.Sprintf("%s… %d times more", indent, more))
			i = j
			continue
		}
		i++
	}
	return out
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// fit cuts lines in their middle to at most limit, and each line to maxWidth. A third of them is the beginning.
func fit(lines []string, limit int) []string {
	if len(lines) > limit {
		head := limit / 3
		tail := limit - head - 1
		cut := append([]string(nil), lines[:head]...)
		cut = append(cut, fmt.Sprintf("… %d lines left out …", len(lines)-head-tail))
		lines = append(cut, lines[len(lines)-tail:]...)
	}
	var out []string
	for _, line := range lines {
		out = append(out, clip(line, maxWidth))
	}
	return out
}

// clip cuts s in its middle to at most limit runes.
func clip(s string, limit int) string {
	if len(s) <= limit || utf8.RuneCountInString(s) <= limit {
		return s
	}
	runes := []rune(s)
	tail := limit / 4
	return string(runes[:limit-tail-1]) + "…" + string(runes[len(runes)-tail:])
}

// clean is the text as UTF-8 (it goes into protos and onto terminals), of a bounded size, and without control
// characters but tab and newline.
func clean(text string) string {
	if len(text) > maxText {
		head, tail := text[:maxText/2], text[len(text)-maxText/2:]
		text = fmt.Sprintf("%s\n… %d bytes left out …\n%s", head, len(text)-maxText, tail)
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, text)
}

// oneLine is for fields of a Report that somebody else made.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// trimBlank is lines without blank ones at either end.
func trimBlank(lines []string) []string {
	for len(lines) > 0 && strings.TrimSpace(lines[0]) == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
