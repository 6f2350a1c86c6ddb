package boot

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Python runs workers of the Python SDK.
type Python struct {
	// Interpreter is the Python that has apache_beam. Empty: $VIRTUAL_ENV's, or else python3 from the PATH.
	Interpreter string
}

const pythonWorker = "apache_beam.runners.worker.sdk_worker_main"

// interpreter is what probe.py tells of a Python.
type interpreter struct {
	// Path runs it.
	Path string `json:"-"`
	// Beam says whether apache_beam can be imported, BeamVersion which.
	Beam        bool   `json:"beam"`
	BeamVersion string `json:"beam_version"`
	// Version is "3.11", Tag the tag of wheels for it, "cp311".
	Version string `json:"version"`
	Tag     string `json:"tag"`
	// Pip and Setuptools say whether these can be imported.
	Pip        bool `json:"pip"`
	Setuptools bool `json:"setuptools"`
	// Sites are the folders with installed packages.
	Sites []string `json:"sites"`
	// Purelib is where packages are installed.
	Purelib string `json:"purelib"`
}

//go:embed probe.py
var probe string

// find finds the interpreter.
func (p Python) find(ctx context.Context) (*interpreter, error) {
	path, why := p.Interpreter, "--python"
	if path == "" {
		if venv := os.Getenv("VIRTUAL_ENV"); venv != "" {
			path, why = filepath.Join(venv, "bin", "python"), "$VIRTUAL_ENV"
		} else {
			path, why = "python3", "the PATH"
		}
	}
	return inspect(ctx, path, why)
}

// inspect asks a Python about itself; why says who named it.
func inspect(ctx context.Context, path, why string) (*interpreter, error) {
	found, err := exec.LookPath(path)
	if err != nil {
		return nil, fmt.Errorf("no Python at %s (from %s): %w: name one with --python", path, why, err)
	}
	cmd := exec.CommandContext(ctx, found, "-c", probe)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = childAttr()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask Python %s (from %s) about itself: %w: %s", found, why, err, strings.TrimSpace(stderr.String()))
	}
	py := &interpreter{Path: found}
	if err := json.Unmarshal(out, py); err != nil {
		return nil, fmt.Errorf("ask Python %s (from %s) about itself: %w", found, why, err)
	}
	return py, nil
}

func (py *interpreter) missingBeam() error {
	return fmt.Errorf("python %s has no module apache_beam: install the Beam version that the pipeline was submitted with there (pip install apache-beam==…), or name another Python with --python", py.Path)
}

// venv is the virtual environment of the job's own, when there is one.
func (j *job) venv() string { return filepath.Join(j.Dir, "venv") }

func (p Python) install(ctx context.Context, j *job) error {
	py, err := p.find(ctx)
	if err != nil {
		return err
	}
	steps, err := installation(j, py)
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		if !py.Beam {
			return py.missingBeam()
		}
		return nil
	}
	if !py.Pip {
		return fmt.Errorf("the pipeline brings Python packages to install, and Python %s has no pip: install it there", py.Path)
	}
	inner, err := makeVenv(ctx, j, py)
	if err != nil {
		return err
	}
	return runSteps(ctx, j, inner, steps)
}

// command is the SDK's worker program. Its folder is j.Dir: it looks for staged/ there, which has the main session.
func (p Python) command(ctx context.Context, j *job) (*command, error) {
	env := j.environment()
	var py *interpreter
	var err error
	if _, statErr := os.Stat(j.venv()); statErr == nil {
		if py, err = inspect(ctx, venvPython(j), "the job's virtual environment"); err != nil {
			return nil, err
		}
		env = append(env, "VIRTUAL_ENV="+j.venv(), "PATH="+filepath.Join(j.venv(), "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	} else if py, err = p.find(ctx); err != nil {
		return nil, err
	}
	if !py.Beam {
		return nil, py.missingBeam()
	}
	j.Log.Info("python", "path", py.Path, "version", py.Version, "apache_beam", py.BeamVersion)
	for name, value := range map[string]string{
		"PYTHONUNBUFFERED":   "1", // a worker that is killed has said what it printed
		"PYTHONFAULTHANDLER": "1", // a crash in native code has a Python stack
	} {
		if _, set := os.LookupEnv(name); !set {
			env = append(env, name+"="+value)
		}
	}
	return &command{path: py.Path, args: []string{"-m", pythonWorker}, env: env}, nil
}

func venvPython(j *job) string { return filepath.Join(j.venv(), "bin", "python") }

// makeVenv makes a virtual environment that sees all that py sees. The venv module's own option for that looks through
// to the system's Python, and py may be a virtual environment itself: so its folders are named in a .pth file. Pip is
// among what it sees.
func makeVenv(ctx context.Context, j *job, py *interpreter) (*interpreter, error) {
	if err := os.RemoveAll(j.venv()); err != nil { // of a worker that was killed half-way
		return nil, fmt.Errorf("remove half a virtual environment: %w", err)
	}
	if err := j.execute(ctx, nil, py.Path, "-m", "venv", "--without-pip", "--system-site-packages", j.venv()); err != nil {
		return nil, fmt.Errorf("make a virtual environment for the job with %s: %w", py.Path, err)
	}
	inner, err := inspect(ctx, venvPython(j), "the job's virtual environment")
	if err != nil {
		return nil, err
	}
	var pth strings.Builder
	for _, site := range py.Sites {
		quoted, err := json.Marshal(site) // as good as Python's own quotes
		if err != nil {
			return nil, fmt.Errorf("name the folder %q in a .pth file: %w", site, err)
		}
		fmt.Fprintf(&pth, "import site; site.addsitedir(%s)\n", quoted)
	}
	name := filepath.Join(inner.Purelib, "trestle-base.pth")
	if err := os.WriteFile(name, []byte(pth.String()), 0o600); err != nil {
		return nil, fmt.Errorf("let the job's virtual environment see %s's packages: %w", py.Path, err)
	}
	return inner, nil
}

// execute runs a program of the installation with its output on our stderr.
func (j *job) execute(ctx context.Context, env []string, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = j.Stderr, j.Stderr
	cmd.SysProcAttr = childAttr()
	stop := j.beat("still running: " + filepath.Base(path) + " " + strings.Join(args, " "))
	defer stop()
	if err := cmd.Run(); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return nil
}
