// Package process runs commands for the drivers below test/: each in a process group of its own, with its output in a
// log, ended with its context; a trestle server among them.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Patience is how long a process may take to end after it was asked to.
const Patience = time.Minute

// Run is a command to be run to its end.
type Run struct {
	// Argv is the command and its arguments; Env adds to our environment; Dir is where it runs, by default where we do.
	Argv, Env []string
	Dir       string
	// Log is the file that gets all output; an earlier one is replaced. Stdout, when it is not nil, gets what goes to
	// standard output, too.
	Log    string
	Stdout io.Writer
}

// Do runs the command and waits for its end. When ctx ends first, the command's whole process group is asked to end
// (SIGTERM), and killed when it has not after Patience. An error has the end of the log in it.
func (r Run) Do(ctx context.Context) (err error) {
	file, err := os.Create(r.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	cmd := command(ctx, r.Argv, r.Env)
	cmd.Dir = r.Dir
	cmd.Stdout, cmd.Stderr = file, file
	if r.Stdout != nil {
		cmd.Stdout = io.MultiWriter(file, r.Stdout)
	}
	err = cmd.Run()
	if cmd.Process != nil && ctx.Err() != nil {
		// The group's leader has ended; what it started may not have.
		err = errors.Join(err, ignoreGone(syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)))
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, Tail(r.Log))
	}
	return nil
}

// command is a process in a group of its own, which ctx's end asks to end, and after Patience ends.
func command(ctx context.Context, argv, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = Patience
	return cmd
}

func ignoreGone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Tail is the end of a log, for a person; of a log that cannot be read, why.
func Tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	const shown = 30
	lines = lines[max(0, len(lines)-shown):]
	return fmt.Sprintf("    %s\n    (the whole log is %s)", strings.Join(lines, "\n    "), path)
}
