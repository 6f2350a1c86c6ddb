package process

import "strings"

const (
	// crashFrames are kept of a crash: the runtime's own are left out, so that the program's are among them.
	crashFrames = 12
	// crashShown is how far from the end a crash may begin and still be seen by who looks at the last lines.
	crashShown = 20
)

// crash is how a Go program says that it crashed: what went wrong and, of the goroutine that ran, its frames, one a line. After it
// come the stacks of all others, hundreds of lines that tell nobody anything.
type crash struct {
	n     int // of its first line, among those added
	lines []string
	// in says which part comes: the goroutine that runs, its frames, or nothing any more.
	in crashPart
	// frame is the call whose position comes next.
	frame string
}

type crashPart int

const (
	noCrash crashPart = iota
	crashBegun
	crashRunning
)

// add takes the next line that was written, as the n-th.
func (c *crash) add(line string, n int) {
	switch {
	case strings.HasPrefix(line, "fatal error: "), strings.HasPrefix(line, "panic: "):
		*c = crash{n: n, lines: []string{line}, in: crashBegun}
	case c.in == noCrash:
	case c.in == crashBegun:
		switch {
		case strings.HasPrefix(line, "[signal "):
			c.lines = append(c.lines, line)
		case strings.HasPrefix(line, "goroutine ") && strings.Contains(line, "[running"):
			id, _, _ := strings.Cut(strings.TrimPrefix(line, "goroutine "), " ")
			c.lines, c.in = append(c.lines, "goroutine "+id+":"), crashRunning
		}
	case strings.TrimSpace(line) == "", len(c.lines) > crashFrames+1, strings.HasPrefix(line, "created by "):
		c.in = noCrash
	case strings.HasPrefix(line, "\t"):
		position, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if c.frame != "" && !strings.HasPrefix(c.frame, "runtime.") {
			c.lines = append(c.lines, "  "+c.frame+" "+position)
		}
		c.frame = ""
	default:
		c.frame = line
	}
}

// OutOfMemory says whether a program wrote, as Go's runtime does before it ends it, that it was refused memory.
func OutOfMemory(line string) bool {
	return strings.HasPrefix(line, "fatal error: ") && (strings.Contains(line, "out of memory") || strings.Contains(line, "cannot allocate memory"))
}
