package process

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// tailLines are kept: a Python traceback with its chained causes fits.
	tailLines = 50
	// tailWidth bounds a kept line, in bytes; more is noise in an error's text.
	tailWidth = 500
	// lineWidth bounds a line that is passed on, in bytes; a longer one is passed on in parts.
	lineWidth = 16 << 10
)

// Tail keeps the last lines that it was given. The zero Tail is empty; its methods may be called concurrently.
type Tail struct {
	mu   sync.Mutex
	ring []string
	next int
}

// Add adds a line, cut to a bounded length.
func (t *Tail) Add(line string) {
	if len(line) > tailWidth {
		cut := tailWidth
		for cut > 0 && !utf8.RuneStart(line[cut]) {
			cut--
		}
		line = line[:cut] + " …"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) < tailLines {
		t.ring = append(t.ring, line)
		return
	}
	t.ring[t.next] = line
	t.next = (t.next + 1) % tailLines
}

// Lines are the last lines, at most some 50, oldest first.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(append([]string(nil), t.ring[t.next:]...), t.ring[:t.next]...)
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
