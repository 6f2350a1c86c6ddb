package harness

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"trestle/internal/harness/process"
)

const (
	// shown is how many of the last lines an error's text has. All of them are in Exit.Output.
	shown = 20
	// logged is the same for what was logged as errors.
	logged = 6
)

// StartError is why a harness never connected.
type StartError struct {
	// Environment is the id of the harness's environment.
	Environment string
	// Began is when the start that failed had begun.
	Began time.Time
	Err   error
}

func (e *StartError) Error() string {
	if exit := (*Exit)(nil); errors.As(e.Err, &exit) { // which says it all by itself
		return e.Err.Error()
	}
	return fmt.Sprintf("start a worker of environment %q: %v", e.Environment, e.Err)
}

func (e *StartError) Unwrap() error { return e.Err }

// Exit is the error of a harness whose process or container has ended while it was needed.
type Exit struct {
	// Worker is the harness's id, Environment the environment's.
	Worker, Environment string
	// Container is which one ended, with its image, engine and host; empty for a process.
	Container string
	// Code is the exit code; -1 when a signal ended the process.
	Code int
	// Signal ended the process; 0 when it exited by itself.
	Signal syscall.Signal
	// Connected says whether the harness had connected before.
	Connected bool
	// OOMKilled says that the kernel killed the container, or a process in it, at its limit of memory; MemoryLimit is
	// that limit in bytes as far as it was configured, else 0.
	OOMKilled   bool
	MemoryLimit int64
	// Reason is the container engine's, if it gave one.
	Reason string
	// Output is what it wrote last, oldest first, and Errors what it last logged as errors through the Fn API.
	Output, Errors []string
}

// Error is fewer than 30 lines: how the process ended, what that often means, and its last words.
func (e *Exit) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "harness %s of environment %q ended", e.Worker, e.Environment)
	if !e.Connected {
		b.WriteString(" before it connected")
	}
	if e.Container != "" {
		b.WriteString(": " + e.Container)
	}
	fmt.Fprintf(&b, ": %v", process.Status{Code: e.Code, Signal: e.Signal})
	b.WriteString(e.hint())
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	b.WriteString(lastLines(e.Output))
	if said := e.unsaid(); len(said) > 0 {
		b.WriteString("; it last logged:\n    " + strings.Join(said, "\n    "))
	}
	return b.String()
}

// unsaid is what was logged last and is not among the last lines: boot programs do both.
func (e *Exit) unsaid() []string {
	said := slices.DeleteFunc(slices.Clone(e.Errors), func(line string) bool {
		return slices.ContainsFunc(e.Output, func(written string) bool { return strings.Contains(written, line) })
	})
	return said[max(0, len(said)-logged):]
}

// BySignal tells whether a signal ended the harness: as a rule somebody else's doing, so that another start may fare
// better.
func (e *Exit) BySignal() bool { return e.signal() != 0 || e.OOMKilled }

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
	case e.OOMKilled && e.MemoryLimit > 0:
		return fmt.Sprintf(" (out of memory: the kernel killed it, or a process in it, at its limit of %s; --container-memory sets it)", humanize.IBytes(uint64(e.MemoryLimit)))
	case e.OOMKilled:
		return " (out of memory: the kernel killed it, or a process in it)"
	case signal == syscall.SIGKILL && e.Container != "" && e.MemoryLimit > 0:
		return fmt.Sprintf(" (signal 9: killed from outside, or by the kernel at its memory limit of %s)", humanize.IBytes(uint64(e.MemoryLimit)))
	case signal == syscall.SIGKILL && e.Container != "":
		return " (signal 9: killed from outside, or by the kernel, out of memory)"
	case signal == syscall.SIGKILL:
		return " (killed from outside: often the kernel, out of memory)"
	case signal == syscall.SIGSEGV, signal == syscall.SIGBUS, signal == syscall.SIGABRT:
		return " (a crash in native code)"
	case signal != 0 && e.Signal == 0:
		return fmt.Sprintf(" (signal %d: %v)", int(signal), signal)
	case slices.ContainsFunc(e.Output, process.OutOfMemory):
		return " (out of memory: it was refused more than it has)"
	case e.Code == 127:
		return " (by convention: a command was not found)"
	case e.Code == 126:
		return " (by convention: a command could not be executed)"
	default:
		return ""
	}
}
