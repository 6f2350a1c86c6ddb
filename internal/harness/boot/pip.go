package boot

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// What Python's SDK calls the files that it stages (apache_beam/runners/portability/stager.py).
const (
	requirementsFile = "requirements.txt"
	extraPackages    = "extra_packages.txt"
	workflowFile     = "workflow.tar.gz"
	sdkSource        = "dataflow_python_sdk.tar"

	roleRequirements = "beam:artifact:role:pip_requirements_file:v1"
)

// step is one call of pip.
type step struct {
	// what it installs, for a person.
	what string
	// args follow "pip install".
	args []string
	// optional steps may fail: a later one does the same in another way.
	optional bool
}

// installation is what pip has to do for a job, in order: the SDK when the job brings its own; requirement files, first
// from what was staged alone, then with the index for what is missing; extra packages, replacing what is there; the
// user's own package; single packages. Empty when the job brings nothing to install.
func installation(j *job, py *interpreter) ([]step, error) {
	byName := map[string]file{}
	for _, f := range j.files {
		byName[f.Name] = f
	}
	isolation := []string{}
	if py.Setuptools && !experiment(j.info.GetPipelineOptions(), "pip_use_build_isolation") {
		// Building with what is installed needs no index, which may not be reachable.
		isolation = []string{"--no-build-isolation"}
	}
	pkg := func(what, path string, args ...string) step {
		return step{what: what, args: append(append(args, isolation...), path)}
	}
	var steps []step
	if f, ok := sdkFile(j.files, py); ok {
		steps = append(steps, pkg("the Beam SDK that the pipeline brings", f.Path))
	}
	for _, f := range j.files {
		if f.Name != requirementsFile && f.Role != roleRequirements {
			continue
		}
		find := []string{"-r", f.Path, "--find-links", j.staged()}
		steps = append(steps,
			step{what: f.Name + " from staged packages", args: append([]string{"--no-index", "--no-deps"}, find...), optional: true},
			step{what: f.Name, args: find})
	}
	if f, ok := byName[extraPackages]; ok {
		names, err := manifest(f.Path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			extra, ok := byName[name]
			if !ok {
				return nil, fmt.Errorf("%s names the package %q, which was not staged", extraPackages, name)
			}
			// Two calls: to replace what is there by this very package, and to install only what it needs and lacks.
			steps = append(steps,
				pkg("extra package "+name, extra.Path, "--upgrade", "--force-reinstall", "--no-deps"),
				pkg("what extra package "+name+" needs", extra.Path))
		}
	}
	if f, ok := byName[workflowFile]; ok {
		steps = append(steps, pkg("the pipeline's own package", f.Path))
	}
	for _, f := range j.files {
		if f.Package != "" {
			steps = append(steps, pkg("package "+f.Package, f.Package))
		}
	}
	return steps, nil
}

// sdkFile is the SDK that the job brings: a wheel for this Python, or the source.
func sdkFile(files []file, py *interpreter) (file, bool) {
	for _, f := range files {
		if strings.HasPrefix(f.Name, "apache_beam") && strings.HasSuffix(f.Name, ".whl") && strings.Contains(f.Name, py.Tag) {
			return f, true
		}
	}
	for _, f := range files {
		if f.Name == sdkSource {
			return f, true
		}
	}
	return file{}, false
}

// manifest reads the names of the extra packages, one a line.
func manifest(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the list of extra packages: %w", err)
	}
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" {
			names = append(names, name)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the list of extra packages: %w", err)
	}
	return names, nil
}

// runSteps runs pip in the job's virtual environment.
func runSteps(ctx context.Context, j *job, py *interpreter, steps []step) error {
	env := []string{"VIRTUAL_ENV=" + j.venv()}
	for _, s := range steps {
		j.Log.Info("install " + s.what)
		args := append([]string{"-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"}, s.args...)
		err := j.execute(ctx, env, py.Path, args...)
		switch {
		case err == nil:
		case s.optional && ctx.Err() == nil:
			j.Log.Info("not everything could be installed from staged packages: ask the package index")
		default:
			return fmt.Errorf("install %s: pip: %w (its output is above; %s)", s.what, err, filepath.Base(py.Path)+" "+strings.Join(args, " "))
		}
	}
	return nil
}
