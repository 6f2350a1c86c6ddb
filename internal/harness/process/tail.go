package process

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// tailLines are kept: a Python traceback with its chained causes fits.
	tailLines = 50
	// tailErrors are those of them that are shown whatever was written after them.
	tailErrors = 12
	// tailWidth bounds a kept line, in bytes; more is noise in an error's text.
	tailWidth = 500
	// lineWidth bounds a line that is passed on, in bytes; a longer one is passed on in parts.
	lineWidth = 16 << 10
)

// Tail keeps the last lines that it was given. The zero Tail is empty; its methods may be called concurrently.
type Tail struct {
	mu    sync.Mutex
	added int
	lines []tailLine // the last ones, oldest first
	errs  []tailLine // the last ones of those that were written as errors
	crash crash      // the last one of those
}

type tailLine struct {
	n    int // of the lines added
	text string
}

// Add adds a line, cut to a bounded length.
func (t *Tail) Add(line string) { t.add(line, false) }

func (t *Tail) add(line string, isError bool) {
	if len(line) > tailWidth {
		cut := tailWidth
		for cut > 0 && !utf8.RuneStart(line[cut]) {
			cut--
		}
		line = line[:cut] + " …"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.added++
	keep := func(lines []tailLine, most int) []tailLine {
		if len(lines) == most {
			copy(lines, lines[1:])
			lines = lines[:most-1]
		}
		return append(lines, tailLine{t.added, line})
	}
	t.lines = keep(t.lines, tailLines)
	if isError {
		t.errs = keep(t.errs, tailErrors)
		t.crash.add(line, t.added)
	}
}

// Lines are the last lines, at most some 50, as they came, oldest first. Which of two streams' lines came first is not
// sure, and a program that fails often writes why to stderr and then all that it had kept back to stdout: so when the last
// errors are not among what came last, they are put at the end; and so is the beginning of a crash with many stacks.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := t.lines
	if late := max(0, len(lines)-tailErrors); len(t.errs) > 0 && t.errs[0].n < lines[late].n {
		lines = slices.DeleteFunc(slices.Clone(lines), func(l tailLine) bool { return l.n >= t.errs[0].n && slices.Contains(t.errs, l) })
		lines = append(lines[max(0, len(lines)+len(t.errs)-tailLines):], t.errs...)
	}
	var crash []string
	if len(t.crash.lines) > 0 && t.crash.n < lines[max(0, len(lines)-crashShown)].n {
		crash = t.crash.lines
		lines = lines[max(0, len(lines)+len(crash)-tailLines):]
	}
	text := make([]string, len(lines), len(lines)+len(crash))
	for i, l := range lines {
		text[i] = l.text
	}
	return append(text, crash...)
}

// lines calls each for every line of r, without its end and without invalid UTF-8, until r ends. Memory is bounded
// whatever r holds.
func lines(r io.Reader, each func(string)) error {
	br := bufio.NewReaderSize(r, lineWidth)
	for {
		b, err := br.ReadSlice('\n')
		if text := strings.TrimRight(string(b), "\r\n"); len(b) > 0 {
			each(strings.ToValidUTF8(text, "\uFFFD"))
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}
