package harness

import (
	"fmt"
	"strings"
	"syscall"

	"trestle/internal/harness/process"
)

// shown is how many of the last lines an error's text has. All of them are in Exit.Output.
const shown = 20

// Exit is the error of a harness whose process has ended while it was needed.
type Exit struct {
	// Worker is the harness's id, Environment the environment's.
	Worker, Environment string
	// Code is the exit code; -1 when a signal ended the process.
	Code int
	// Signal ended the process; 0 when it exited by itself.
	Signal syscall.Signal
	// Connected says whether the harness had connected before.
	Connected bool
	// Output is what it wrote last, oldest first.
	Output []string
}

// Error is fewer than 30 lines: how the process ended, what that often means, and its last words.
func (e *Exit) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "harness %s of environment %q ended", e.Worker, e.Environment)
	if !e.Connected {
		b.WriteString(" before it connected")
	}
	fmt.Fprintf(&b, ": %v", process.Status{Code: e.Code, Signal: e.Signal})
	b.WriteString(e.hint())
	b.WriteString(lastLines(e.Output))
	return b.String()
}

// BySignal tells whether a signal ended the harness: as a rule somebody else's doing, so that another start may fare
// better.
func (e *Exit) BySignal() bool { return e.signal() != 0 }

// signal is what ended the harness, or 0. By the shells' convention, which boot programs keep, code 128+n stands for
// signal n.
func (e *Exit) signal() syscall.Signal {
	if e.Signal == 0 && e.Code > 128 && e.Code < 128+65 {
		return syscall.Signal(e.Code - 128)
	}
	return e.Signal
}

// hint says what an ending often means.
func (e *Exit) hint() string {
	switch signal := e.signal(); {
	case signal == syscall.SIGKILL:
		return " (killed from outside: often the kernel, out of memory)"
	case signal == syscall.SIGSEGV, signal == syscall.SIGBUS, signal == syscall.SIGABRT:
		return " (a crash in native code)"
	case signal != 0 && e.Signal == 0:
		return fmt.Sprintf(" (signal %d: %v)", int(signal), signal)
	case e.Code == 127:
		return " (by convention: a command was not found)"
	case e.Code == 126:
		return " (by convention: a command could not be executed)"
	default:
		return ""
	}
}
