package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a process may take to end after it was asked to.
const patience = 30 * time.Second

// command is a process in a group of its own, which ctx's end asks to end, and after patience ends.
func command(ctx context.Context, argv, env []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = patience
	return cmd
}

// runLogged runs a command to its end with its output in a log file, and returns what went to standard output.
func runLogged(ctx context.Context, log string, argv, env []string) (stdout string, err error) {
	file, err := os.Create(log)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	cmd := command(ctx, argv, env)
	var kept bytes.Buffer
	cmd.Stdout = io.MultiWriter(file, &kept)
	cmd.Stderr = file
	err = cmd.Run()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, tail(log))
	}
	return kept.String(), nil
}

// tail is the end of a log, for a person.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	const shown = 30
	lines = lines[max(0, len(lines)-shown):]
	return fmt.Sprintf("    %s\n    (the whole log is %s)", strings.Join(lines, "\n    "), path)
}

var endpointRE = regexp.MustCompile(`\b(?:localhost|127\.0\.0\.1):[0-9]+\b`)

// server is a running `trestle serve`.
type server struct {
	cmd      *exec.Cmd
	ended    chan error
	log      string
	endpoint string
}

// serve starts a job server on a free port and waits until it says where it listens.
func serve(ctx context.Context, trestle, dir string) (*server, error) {
	data := filepath.Join(dir, "data")
	log := filepath.Join(dir, "log", "serve.log")
	argv := []string{trestle, "serve", "--listen", "127.0.0.1:0", "--data", data}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// An *os.File is the child's own: then Wait waits for the process, and not for whoever else has the pipe's end.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: command(ctx, argv, nil), ended: make(chan error, 1), log: log}
	s.cmd.Stdout, s.cmd.Stderr = in, file
	err = s.cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	go func() { s.ended <- s.cmd.Wait() }()

	found := make(chan string, 1)
	go func() {
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if endpoint := endpointRE.FindString(lines.Text()); endpoint != "" {
				select {
				case found <- endpoint:
				default: // the first one is the endpoint; the option lines repeat it
				}
			}
		}
	}()
	select {
	case s.endpoint = <-found:
		return s, nil
	case err := <-s.ended:
		return nil, fmt.Errorf("%s ended before it listened: %w\n%s", strings.Join(argv, " "), err, tail(log))
	case <-time.After(patience):
		return nil, errors.Join(fmt.Errorf("%s named no endpoint on its standard output within %v", strings.Join(argv, " "), patience), s.stop())
	}
}

// stop asks the server to end; it is an error when it does not, or says that it failed.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the server: %w", err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("the server ended: %w\n%s", err, tail(s.log))
		}
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("the server ran on for %v after SIGTERM and was killed\n%s", patience, tail(s.log)),
			syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL), <-s.ended)
	}
}

// adopt makes this process the parent of every orphan among its descendants, so that leftovers finds them.
func adopt() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// leftovers names, and ends, the processes that outlive those who started them. To be called when this process has no
// child of its own left.
func leftovers() ([]string, error) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(string(children)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil {
				return nil, err
			}
			if len(line) > 0 { // a zombie has no command line: it has ended
				found = append(found, fmt.Sprintf("%d: %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					return nil, err
				}
			}
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}
