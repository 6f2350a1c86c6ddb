package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

var endpoint = regexp.MustCompile(`\b(?:localhost|127\.0\.0\.1):[0-9]+\b`)

// Server is a running `trestle serve`.
type Server struct {
	// Endpoint is the host:port where it listens, Data its data folder, Log the file with what it logs.
	Endpoint, Data, Log string

	cmd *exec.Cmd
	// What it was started with.
	trestle, dir string
	env, flags   []string
	// ended is closed when the process has ended, with how in err.
	ended chan struct{}
	err   error
}

// Serve starts a job server on a free port, with its data and its log (log/serve.log) below dir, and waits until it
// says where it listens. ctx's end asks the server to end.
func Serve(ctx context.Context, trestle, dir string, flags ...string) (*Server, error) {
	return ServeIn(ctx, nil, trestle, dir, flags...)
}

// ServeIn is Serve with variables added to the server's environment.
func ServeIn(ctx context.Context, env []string, trestle, dir string, flags ...string) (*Server, error) {
	log := filepath.Join(dir, "log", "serve.log")
	if err := ignoreMissing(os.Remove(log)); err != nil {
		return nil, err
	}
	return serve(ctx, trestle, dir, "127.0.0.1:0", env, flags)
}

// Again starts a server that has ended once more, at the same address and with the same data; its log goes on.
func (s *Server) Again(ctx context.Context) (*Server, error) {
	return serve(ctx, s.trestle, s.dir, s.Endpoint, s.env, s.flags)
}

func serve(ctx context.Context, trestle, dir, listen string, env, flags []string) (*Server, error) {
	s := &Server{
		Data:    filepath.Join(dir, "data"),
		Log:     filepath.Join(dir, "log", "serve.log"),
		trestle: trestle, dir: dir, env: env, flags: flags,
		ended: make(chan struct{}),
	}
	argv := append([]string{trestle, "serve", "--listen", listen, "--data", s.Data}, flags...)
	file, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// An *os.File is the child's own: then Wait waits for the process, and not for whoever else has the pipe's end.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s.cmd = command(ctx, argv, env)
	s.cmd.Stdout, s.cmd.Stderr = in, file
	err = s.cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()

	found := make(chan string, 1)
	go func() {
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if at := endpoint.FindString(lines.Text()); at != "" {
				select {
				case found <- at:
				default: // the first one is the endpoint; the option lines repeat it
				}
			}
		}
	}()
	select {
	case s.Endpoint = <-found:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("%s ended before it listened: %w\n%s", strings.Join(argv, " "), s.err, Tail(s.Log))
	case <-time.After(Patience):
		return nil, errors.Join(fmt.Errorf("%s named no endpoint on its standard output within %v", strings.Join(argv, " "), Patience), s.Stop())
	}
}

// PID is the server's process id, or was when it has ended.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Ended is closed when the server has ended, in whatever way.
func (s *Server) Ended() <-chan struct{} { return s.ended }

// Kill ends the server by SIGKILL, which it cannot know of; it is an error when it had ended before.
func (s *Server) Kill() error {
	select {
	case <-s.ended:
		return fmt.Errorf("the server ended before it was killed (%v)\n%s", s.cmd.ProcessState, Tail(s.Log))
	default:
	}
	if err := s.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill the server: %w", err)
	}
	<-s.ended
	return nil
}

// Stop asks the server to end; it is an error when it does not, or says that it failed, or had ended before.
func (s *Server) Stop() error {
	select {
	case <-s.ended:
		return fmt.Errorf("the server ended before it was asked to (%v)\n%s", s.cmd.ProcessState, Tail(s.Log))
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the server: %w", err)
	}
	select {
	case <-s.ended:
		if s.err != nil {
			return fmt.Errorf("the server ended: %w\n%s", s.err, Tail(s.Log))
		}
		return nil
	case <-time.After(Patience):
		err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
		return errors.Join(fmt.Errorf("the server ran on for %v after SIGTERM and was killed\n%s", Patience, Tail(s.Log)), err)
	}
}

// Dump ends the server by SIGQUIT, on which Go's runtime writes the stack of every goroutine to the log, and returns
// those stacks. It is for what a server that has nothing to do still holds.
func (s *Server) Dump() ([]string, error) {
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		return nil, fmt.Errorf("dump the server's stacks: %w", err)
	}
	select {
	case <-s.ended:
	case <-time.After(Patience):
		err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		<-s.ended
		return nil, errors.Join(fmt.Errorf("the server ran on for %v after SIGQUIT and was killed\n%s", Patience, Tail(s.Log)), err)
	}
	text, err := os.ReadFile(s.Log)
	if err != nil {
		return nil, err
	}
	var stacks []string
	for _, part := range strings.Split(string(text), "\n\n") {
		if strings.HasPrefix(part, "goroutine ") {
			stacks = append(stacks, part)
		}
	}
	return stacks, nil
}
