// Package containers gives tests a real container engine and an image whose worker does what a test wants.
//
// The scripts beside it start an engine and make images of the SDKs' harnesses: see engine.sh, images.sh and with.sh.
package containers

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Image is the name under which Import puts the worker's image into the engine.
const Image = "trestle-test/worker:latest"

// Part is the variable of the environment that says what the worker does; see worker/main.go.
const Part = "TRESTLE_TEST_PART"

// ErrNone says that the machine has no docker command line, and that tests are to be skipped. In CI, which installs one,
// there is no such error.
var ErrNone = errors.New("no docker command line on this machine")

// Shared is the engine of all tests of a package, with the worker's image. The zero Shared is started by the first test
// that needs it; TestMain stops it.
type Shared struct {
	once sync.Once
	stop func() error
	err  error
}

// Need returns when the engine is there; ErrNone says that the test is to be skipped.
func (s *Shared) Need() error {
	s.once.Do(func() { s.err = s.start() })
	return s.err
}

func (s *Shared) start() error {
	dir, err := os.MkdirTemp("", "trestle-engine-")
	if err != nil {
		return err
	}
	stop, err := Engine(dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.stop = func() error { return errors.Join(stop(), os.RemoveAll(dir)) }
	return Import(dir)
}

// Stop ends the engine if it was started.
func (s *Shared) Stop() error {
	if s.stop == nil {
		return nil
	}
	return s.stop()
}

// Engine finds an engine for a test: the one of the environment as it is, if it answers, and otherwise one of its own
// with everything below dir. DOCKER_HOST is set for it. stop ends what was started.
func Engine(dir string) (stop func() error, err error) {
	if _, err := exec.LookPath("docker"); err != nil {
		if os.Getenv("CI") == "" {
			return nil, ErrNone
		}
		return nil, fmt.Errorf("in CI, containers are tested: %w", err)
	}
	if exec.Command("docker", "version").Run() == nil {
		return func() error { return nil }, nil
	}
	return Start(dir)
}

// Start starts an engine of the test's own with everything below dir, sets DOCKER_HOST for it, and returns what ends and
// removes it.
func Start(dir string) (stop func() error, err error) {
	setting, err := script("up", dir)
	if err != nil {
		return nil, err
	}
	name, value, _ := strings.Cut(strings.TrimSpace(setting), "=")
	if err := os.Setenv(name, value); err != nil {
		return nil, err
	}
	return func() error {
		_, err := script("rm", dir)
		return err
	}, nil
}

// Down ends the engine that Start has started with dir, and keeps what it stored; Up starts it again.
func Down(dir string) error {
	_, err := script("down", dir)
	return err
}

// Up starts the engine again that Down has ended.
func Up(dir string) error {
	_, err := script("up", dir)
	return err
}

// script runs engine.sh.
func script(args ...string) (string, error) {
	path, err := source("test", "containers", "engine.sh")
	if err != nil {
		return "", err
	}
	return run(exec.Command(path, args...))
}

// source is a file of the module.
func source(elements ...string) (string, error) {
	root, err := run(exec.Command("go", "list", "-m", "-f", "{{.Dir}}"))
	if err != nil {
		return "", err
	}
	return filepath.Join(append([]string{strings.TrimSpace(root)}, elements...)...), nil
}

// Docker runs the docker command line and returns what it printed.
func Docker(args ...string) (string, error) { return run(exec.Command("docker", args...)) }

func run(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Worker builds the worker's program, static, below dir.
func Worker(dir string) (string, error) {
	from, err := source("test", "containers", "worker")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "worker")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", path, from)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	_, err = run(cmd)
	return path, err
}

// Import builds the worker, with files of its own below dir, and imports an image of nothing but it.
func Import(dir string) error {
	path, err := Worker(dir)
	if err != nil {
		return err
	}
	layer, err := Layer(path, "imported")
	if err != nil {
		return err
	}
	cmd := exec.Command("docker", "import", "--change", `ENTRYPOINT ["/worker"]`, "-", Image)
	cmd.Stdin = bytes.NewReader(layer)
	_, err = run(cmd)
	return err
}

// Layer is a file system, as a tar file, that holds the worker's program and a name, by which no two are the same: engines
// do not fetch what they have.
func Layer(worker, name string) ([]byte, error) {
	program, err := os.Open(worker)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	info, err := program.Stat()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "worker", Mode: 0o755, Size: info.Size()}); err != nil {
		return nil, err
	}
	if _, err := io.Copy(w, program); err != nil {
		return nil, err
	}
	if err := w.WriteHeader(&tar.Header{Name: "name", Mode: 0o644, Size: int64(len(name))}); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, name); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}
