package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long a server may take to start, and a process to end after it was asked to.
const patience = 30 * time.Second

// server is a running job server.
type server struct {
	cmd      *exec.Cmd
	ended    chan error
	log      string
	endpoint string
	// up is how long it took until it took connections.
	up time.Duration
}

// inGroup makes a command a process group of its own, which ctx's end kills.
func (f *flags) inGroup(ctx context.Context, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = patience
	// Beam's clients leave files behind, and start the first python of the PATH, as in an activated virtual environment.
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(f.dir, "tmp"), "PATH="+f.path())
	return cmd
}

// path is the PATH with the Python SDK's interpreter before all others.
func (f *flags) path() string { return filepath.Dir(f.interpreter()) + ":" + os.Getenv("PATH") }

// argv is the command line of the server that a peer needs; empty for one that needs none. One that does not say where it
// listens is told: endpoint. flinkURL is where Flink is, if it is to be used.
func (f *flags) argv(c benchCase, peer, flinkURL string) (argv []string, endpoint string, err error) {
	switch peer {
	case trestle, trestleProcess:
		argv = []string{f.trestle, "serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(f.dir, "data")}
		if c.memory != "" {
			argv = append(argv, "--memory", c.memory)
		}
		if flinkURL != "" {
			argv = append(argv, "--engine", "flink", "--flink", flinkURL)
		}
		return argv, "", nil
	case prism:
		port, err := freePort()
		return []string{f.prism, "-job_port=" + port, "-serve_http=false", "-log_level=warn"}, "127.0.0.1:" + port, err
	case beamFlink:
		return f.beamServer(flinkURL)
	default:
		return nil, "", nil
	}
}

// serve starts the server that a peer needs, and waits until it takes connections; nil for a peer that needs none.
func (f *flags) serve(ctx context.Context, c benchCase, peer, log, flinkURL string) (*server, error) {
	argv, endpoint, err := f.argv(c, peer, flinkURL)
	if len(argv) == 0 || err != nil {
		return nil, err
	}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: f.inGroup(ctx, argv), ended: make(chan error, 1), log: log}
	s.cmd.Stdout, s.cmd.Stderr = in, file
	start := time.Now()
	err = s.cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", strings.Join(argv, " "), err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	first := make(chan string, 1)
	go func() {
		defer out.Close()
		lines := bufio.NewScanner(out)
		if lines.Scan() {
			first <- strings.TrimSpace(lines.Text())
		}
		for lines.Scan() { // so that the server never waits for a reader
		}
	}()
	if endpoint != "" {
		s.endpoint = endpoint
		err = s.dial(ctx)
	} else {
		select {
		case s.endpoint = <-first:
		case err = <-s.ended:
			s.ended <- err
			err = fmt.Errorf("it ended: %w", errors.Join(err, errors.New("without a word on standard output")))
		case <-time.After(patience):
			err = fmt.Errorf("it named no endpoint within %v", patience)
		}
	}
	s.up = time.Since(start)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (its log is %s)", strings.Join(argv, " "), errors.Join(err, s.stop()), log)
	}
	return s, nil
}

// dial asks again and again until the server takes a connection.
func (s *server) dial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", s.endpoint)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("no connection within %v: %w", patience, err)
		}
	}
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// stop ends the server, and all that it started.
func (s *server) stop() error {
	asked := s.cmd.Process.Signal(syscall.SIGTERM)
	if asked != nil && !errors.Is(asked, os.ErrProcessDone) {
		return asked
	}
	select {
	case err := <-s.ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) && (exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM || exit.ExitCode() == 128+int(syscall.SIGTERM)) {
			return nil // Prism does not catch the signal, and a JVM says that it came
		}
		return err
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("it ran on for %v after SIGTERM and was killed", patience),
			syscall.Kill(-s.pid(), syscall.SIGKILL), <-s.ended)
	}
}

// freePort is a port that nobody listened on a moment ago: some servers cannot be asked which one they took.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return strconv.Itoa(port), l.Close()
}
