package process

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A command is a file, a name in the PATH, or a line of words; what is wrong with it is said at once.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"boot": 0o700, "my boot": 0o700, "text": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		payload *pipepb.ProcessPayload
		path    string
		args    []string
		errs    []string
	}{
		{payload: &pipepb.ProcessPayload{Command: filepath.Join(dir, "boot")}, path: "boot"},
		{payload: &pipepb.ProcessPayload{Command: filepath.Join(dir, "my boot")}, path: "my boot"},
		{payload: &pipepb.ProcessPayload{Command: "boot"}, path: "boot"},
		{payload: &pipepb.ProcessPayload{Command: `boot --a 'b c' "d\"e" f\ g ''`}, path: "boot", args: []string{"--a", "b c", `d"e`, "f g", ""}},
		{payload: &pipepb.ProcessPayload{Command: "trestle boot python"}, path: exe, args: []string{"boot", "python"}},
		{payload: &pipepb.ProcessPayload{Command: "boot", Os: "LINUX", Arch: "x86_64"}, path: "boot"},
		{payload: &pipepb.ProcessPayload{}, errs: []string{"names no command"}},
		{payload: &pipepb.ProcessPayload{Command: " "}, errs: []string{"names no command"}},
		{payload: &pipepb.ProcessPayload{Command: "boot 'x"}, errs: []string{"a quote is not closed"}},
		{payload: &pipepb.ProcessPayload{Command: "nothing-like-it"}, errs: []string{`"nothing-like-it"`, "is not on this host"}},
		{payload: &pipepb.ProcessPayload{Command: "/no/where/boot"}, errs: []string{`"/no/where/boot"`, "is not on this host"}},
		{payload: &pipepb.ProcessPayload{Command: filepath.Join(dir, "text")}, errs: []string{"text", "not an executable file"}},
		{payload: &pipepb.ProcessPayload{Command: dir}, errs: []string{"not an executable file"}},
		{payload: &pipepb.ProcessPayload{Command: "gone", Os: "plan9", Arch: "vax"}, errs: []string{`"plan9"`, `"vax"`, `"gone"`}},
	} {
		path, args, err := Command(c.payload)
		if len(c.errs) > 0 {
			if err == nil {
				t.Errorf("%v: no error, want %q", c.payload, c.errs)
				continue
			}
			for _, want := range c.errs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: error %q lacks %q", c.payload, err, want)
				}
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.payload, err)
			continue
		}
		if !filepath.IsAbs(c.path) {
			c.path = filepath.Join(dir, c.path)
		}
		if path != c.path {
			t.Errorf("%v: path %q, want %q", c.payload, path, c.path)
		}
		if diff := cmp.Diff(c.args, args); diff != "" && len(c.args)+len(args) > 0 {
			t.Errorf("%v: %s", c.payload, diff)
		}
	}
}

// Words that are quoted come back as they were.
func TestSplitQuoted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "words")
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		got, err := split(strings.Join(quoted, " "))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(words, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Any command line of a client's gives words or an error.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a b", `a "b c`, `\`, "''", "a\\ b\t'c'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words, err := split(line)
		if err == nil && len(words) == 0 {
			t.Fatal("neither words nor an error")
		}
	})
}
