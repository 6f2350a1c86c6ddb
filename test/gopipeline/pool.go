package gopipeline

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"
)

// Environment is where a pipeline's user code runs: a URN and what Beam's --environment_config says of it.
type Environment struct{ urn, config string }

// Process is an environment whose harnesses are processes that `trestle boot go` starts from the staged worker binary. A
// script for that is written into dir.
func Process(dir string) (Environment, error) {
	self, err := os.Executable()
	if err != nil {
		return Environment{}, err
	}
	path := filepath.Join(dir, "boot")
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' boot go \"$@\"\n", self)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil { //nolint:gosec // it is to be executed
		return Environment{}, err
	}
	return Environment{"beam:env:process:v1", fmt.Sprintf(`{"command": %q}`, path)}, nil
}

// Pool is a process of its own with a worker pool in it, as LOOPBACK has it in the client's process. So nothing that the
// SDK's harnesses leave behind is taken for the server's.
type Pool struct {
	cmd      *exec.Cmd
	stdin    io.Closer
	endpoint string
}

// poolRole is this binary's first argument when it is to be a pool.
const poolRole = "pool"

// StartPool starts a pool of this binary's workers.
func StartPool() (*Pool, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &Pool{cmd: exec.Command(self, poolRole)}
	p.cmd.Stderr = os.Stderr
	// In a build with the race detector the SDK's harness has races of its own, which it would end with.
	p.cmd.Env = append(os.Environ(), "GORACE=exitcode=0")
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker pool: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read the worker pool's endpoint: %w", err), p.Close())
	}
	p.endpoint = strings.TrimSpace(line)
	return p, nil
}

// Environment is that of the pool's workers.
func (p *Pool) Environment() Environment { return Environment{externalURN, p.endpoint} }

const externalURN = "beam:env:external:v1"

// PID is the pool's process.
func (p *Pool) PID() int { return p.cmd.Process.Pid }

// Close ends the pool and waits for it.
func (p *Pool) Close() error { return errors.Join(p.stdin.Close(), p.cmd.Wait()) }

// servePool serves a pool until standard input ends, as it does when whoever started the process is gone.
func servePool() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	workers, err := extworker.StartLoopback(ctx, 0)
	if err != nil {
		return err
	}
	fmt.Println(workers.EnvironmentConfig(ctx))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err // the workers end with the process
}
