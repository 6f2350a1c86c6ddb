//go:build linux

package boot

import (
	"archive/zip"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trestle/internal/harness/process"
)

// wheel makes a wheel, which pip installs without building anything or asking an index.
func wheel(t *testing.T, name, version string, files map[string]string) []byte {
	t.Helper()
	info := name + "-" + version + ".dist-info/"
	all := map[string]string{
		info + "METADATA": fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version),
		info + "WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
	}
	var record strings.Builder
	for path, text := range files {
		all[path] = text
	}
	for path := range all {
		fmt.Fprintf(&record, "%s,,\n", path)
	}
	all[info+"RECORD"] = record.String()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for path, text := range all {
		f, err := w.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// python makes a virtual environment with a stand-in for apache_beam, whose worker shows what it sees.
func python(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import venv, pip").CombinedOutput(); err != nil {
		t.Skipf("no Python with venv and pip here: %v: %s", err, out)
	}
	dir := t.TempDir()
	if out, err := exec.Command("python3", "-m", "venv", "--without-pip", "--system-site-packages", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	site, err := filepath.Glob(filepath.Join(dir, "lib", "python*", "site-packages"))
	if err != nil || len(site) != 1 {
		t.Fatalf("site-packages: %v, %v", site, err)
	}
	// A Python in a virtual environment of its own sees pip by this; any other does anyhow.
	out, err := exec.Command("python3", "-c", "import os, pip; print(os.path.dirname(os.path.dirname(pip.__file__)))").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"pip.pth":                                string(out),
		"apache_beam/__init__.py":                "",
		"apache_beam/runners/__init__.py":        "",
		"apache_beam/runners/worker/__init__.py": "",
		"apache_beam/runners/worker/sdk_worker_main.py": `
import os, sys
for name in ('WORKER_ID', 'CONTROL_API_SERVICE_DESCRIPTOR', 'SEMI_PERSISTENT_DIRECTORY'):
  print(name, os.environ[name])
try:
  import mine
  print('mine', mine.VERSION)
except ImportError as e:
  print(e)
sys.exit(4)
`,
	} {
		path := filepath.Join(site[0], filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "bin", "python")
}

// Staged packages are installed in a folder of the job's own, once, beside what the Python has; a job that brings none
// runs in that Python.
func TestPythonInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("runs pip")
	}
	py := python(t)

	s := newJobServer(t)
	code, out := s.boot(t, "python", "w0", "TMPDIR="+t.TempDir(), "TRESTLE_TEST_PYTHON="+py).end()
	if code != 4 || !strings.Contains(out, "WORKER_ID w0") || !strings.Contains(out, "No module named 'mine'") || strings.Contains(out, "pip install") {
		t.Errorf("without packages: code %d\n%s", code, out)
	}

	s.add(t, "mine-1.2-py3-none-any.whl", "", wheel(t, "mine", "1.2", map[string]string{"mine.py": "VERSION = '1.2'\n"}))
	s.add(t, "extra_packages.txt", "", []byte("mine-1.2-py3-none-any.whl\n"))
	dir := t.TempDir()
	for i := range 2 {
		code, out := s.boot(t, "python", fmt.Sprint("w", i), process.DirVar+"="+dir, "TRESTLE_TEST_PYTHON="+py).end()
		if code != 4 || !strings.Contains(out, "mine 1.2") {
			t.Errorf("worker %d: code %d\n%s", i, code, out)
		}
		if installed := strings.Contains(out, "Successfully installed mine-1.2"); installed != (i == 0) {
			t.Errorf("worker %d: installed: %v\n%s", i, installed, out)
		}
	}
	if out, err := exec.Command(py, "-c", "import mine").CombinedOutput(); err == nil {
		t.Errorf("the user's own Python has the package now: %s", out)
	}
}

// An installation that fails ends boot with the installer's last lines, and leaves no mark that it was done.
func TestPythonInstallFails(t *testing.T) {
	if testing.Short() {
		t.Skip("runs pip")
	}
	py := python(t)
	s := newJobServer(t)
	s.add(t, "workflow.tar.gz", "", []byte("no archive"))
	dir := t.TempDir()
	code, out := s.boot(t, "python", "w0", process.DirVar+"="+dir, "TRESTLE_TEST_PYTHON="+py).end()
	if code != 1 || !strings.Contains(out, "ERROR") || !strings.Contains(out, "install the pipeline's own package: pip: exit status") {
		t.Errorf("code %d\n%s", code, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "ready.json")); err == nil {
		t.Error("it is noted as done")
	}
}

// A Python without the SDK is named, with what to do.
func TestPythonWithoutBeam(t *testing.T) {
	bare := t.TempDir()
	if out, err := exec.Command("python3", "-m", "venv", "--without-pip", bare).CombinedOutput(); err != nil {
		t.Skipf("no Python with venv here: %v: %s", err, out)
	}
	py := filepath.Join(bare, "bin", "python")
	code, out := newJobServer(t).boot(t, "python", "w0", "TMPDIR="+t.TempDir(), "TRESTLE_TEST_PYTHON="+py).end()
	if code != 1 || !strings.Contains(out, py+" has no module apache_beam") || !strings.Contains(out, "--python") {
		t.Errorf("code %d\n%s", code, out)
	}
}
