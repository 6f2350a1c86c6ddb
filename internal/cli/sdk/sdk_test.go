package sdk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	self, err := os.Executable() // a program built by Go
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "pipeline")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"python":                   "python",
		"/opt/venv/bin/python3.11": "python",
		"./wordcount.py":           "python",
		"uv":                       "python",
		"java":                     "java",
		"node":                     "typescript",
		"npx":                      "typescript",
		"go":                       "go",
		self:                       "go",
		script:                     "",
		"no-such-program":          "",
	} {
		kind, err := Detect([]string{command})
		if kind.Name != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", command, kind.Name, err)
		}
		if err != nil && !strings.Contains(err.Error(), "--sdk") {
			t.Errorf("%s: the error does not say what to do: %v", command, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, kind := range Kinds {
		line := kind.Line("host:1")
		if !strings.Contains(line, "host:1") || !strings.Contains(line, "LOOPBACK") || strings.Contains(line, "%s") {
			t.Errorf("%s: %s", kind.Name, line)
		}
		if found, err := ByName(kind.Name); err != nil || found.Name != kind.Name {
			t.Errorf("%s: %v, %v", kind.Name, found, err)
		}
	}
	python, err := ByName("python")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(python.Options("host:1"), " "); got != python.Line("host:1") {
		t.Errorf("options %s", got)
	}
}
