//go:build linux

package boot

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// TestCommands runs the scenarios of what boot runs for each SDK. A scenario's lines are the staged files: a name, then
// role=, package=, or text= for what is in it; a jar's text is the name of an entry.
func TestCommands(t *testing.T) {
	datadriven.Walk(t, "testdata/commands", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, describe)
	})
}

func describe(t *testing.T, d *datadriven.TestData) string {
	dir := t.TempDir()
	fold := func(s string) string { return strings.ReplaceAll(s, dir, "DIR") }
	here := func(url string) *pipepb.ApiServiceDescriptor { return &pipepb.ApiServiceDescriptor{Url: url} }
	info := &fnpb.ProvisionInfo{
		StatusEndpoint: here("status:4"), RunnerCapabilities: []string{"a", "b"},
		Metadata: map[string]string{"job_id": "j", "job_name": "J"},
	}
	var options, python, classpath string
	var setuptools, beam = true, true
	d.MaybeScanArgs(t, "options", &options)
	d.MaybeScanArgs(t, "python", &python)
	d.MaybeScanArgs(t, "classpath", &classpath)
	d.MaybeScanArgs(t, "setuptools", &setuptools)
	d.MaybeScanArgs(t, "beam", &beam)
	if options != "" {
		info.PipelineOptions = &structpb.Struct{}
		if err := protojson.Unmarshal([]byte(options), info.PipelineOptions); err != nil {
			t.Fatal(err)
		}
	}
	j := &job{
		Config: Config{ID: "w1", Provision: "prov:1", Logging: "log:2", Control: "control:3", Dir: dir, Log: slog.New(slog.DiscardHandler)},
		info:   info, options: filepath.Join(dir, "options.json"),
	}
	for _, line := range strings.Split(d.Input, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			j.files = append(j.files, stage(t, j, line))
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv("JAVA_HOME", "")
	t.Setenv("VIRTUAL_ENV", "")
	t.Setenv("PYTHONUNBUFFERED", "")
	t.Setenv("PYTHONFAULTHANDLER", "")
	fake, err := json.Marshal(interpreter{Beam: beam, BeamVersion: "2.77.0", Version: "3.11", Tag: "cp311", Pip: true, Setuptools: setuptools})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"java": "", "python3": "echo '" + string(fake) + "'"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	var sdk SDK
	switch d.Cmd {
	case "go":
		sdk = Go{}
	case "java":
		java := Java{}
		d.MaybeScanArgs(t, "heap", &java.Heap)
		if d.HasArg("arg") {
			d.ScanArgs(t, "arg", &java.Arguments)
		}
		if classpath != "" {
			java.Classpath = []string{filepath.Join(dir, classpath)}
		}
		sdk = java
	case "python":
		sdk = Python{Interpreter: python}
	case "pip":
		steps, err := installation(j, &interpreter{Tag: "cp311", Setuptools: setuptools})
		if err != nil {
			return fold("error: " + err.Error())
		}
		var b strings.Builder
		for _, s := range steps {
			fmt.Fprintf(&b, "%s (optional: %v)\n    pip install %s\n", s.what, s.optional, fold(strings.Join(s.args, " ")))
		}
		return b.String()
	default:
		t.Fatalf("no command %q", d.Cmd)
	}
	if _, isPython := sdk.(Python); !isPython { // Python's installation runs pip
		if err := sdk.install(context.Background(), j); err != nil {
			return fold("error: " + err.Error())
		}
	}
	c, err := sdk.command(context.Background(), j)
	if err != nil {
		return fold("error: " + err.Error())
	}
	var b strings.Builder
	fmt.Fprintln(&b, c.path)
	for _, a := range c.args {
		fmt.Fprintln(&b, "   ", a)
	}
	slices.Sort(c.env)
	for _, e := range c.env {
		fmt.Fprintln(&b, e)
	}
	if d.Cmd == "java" {
		b.WriteString(classPath(t, c.args[len(c.args)-1]))
	}
	return fold(b.String())
}

// stage makes a staged file as a scenario's line says.
func stage(t *testing.T, j *job, line string) file {
	words := strings.Fields(line)
	var f file
	text := ""
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "role":
			f.Role = "beam:artifact:role:" + value + ":v1"
		case "package":
			f.Package = value
		case "text":
			text = value
		}
	}
	if f.Package != "" {
		return f
	}
	f.Name = strings.ReplaceAll(words[0], "%20", " ")
	f.Path = filepath.Join(j.staged(), f.Name)
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(f.Name, ".jar") && text != "junk" {
		writeJar(t, f.Path, text)
	} else if err := os.WriteFile(f.Path, []byte(strings.ReplaceAll(text, ",", "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func writeJar(t *testing.T, path, entry string) {
	t.Helper()
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	jar := zip.NewWriter(out)
	for name, text := range map[string]string{manifestName: "Manifest-Version: 1.0\r\n", entry: ""} {
		if entry == "agent" {
			text += "Premain-Class: x.Y\r\n"
		}
		w, err := jar.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := jar.Close(); err != nil {
		t.Fatal(err)
	}
}

// classPath reads the class path back from a pathing jar's manifest, its lines joined again.
func classPath(t *testing.T, path string) string {
	t.Helper()
	jar, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer jar.Close()
	raw, err := jar.Open(manifestName)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var b strings.Builder
	buf := make([]byte, 64<<10)
	n, _ := raw.Read(buf)
	for _, line := range strings.Split(string(buf[:n]), "\r\n") {
		if len(line) > 72 {
			t.Errorf("a line of %d bytes in the manifest", len(line))
		}
		if rest, ok := strings.CutPrefix(line, " "); ok {
			b.WriteString(rest)
		} else if line != "" {
			b.WriteString("\n" + line)
		}
	}
	var kept []string
	for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
		if opens, ok := strings.CutPrefix(line, "Add-Opens: "); ok {
			line = fmt.Sprintf("Add-Opens: %d packages", len(strings.Fields(opens)))
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n") + "\n"
}
