package lint

import (
	"bytes"
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// vague are names that say nothing of what a package is about, so that it grows without end.
var vague = []string{"util", "utils", "common", "manager", "managers", "types", "helper", "helpers", "misc", "shared", "base"}

func packagesAreAboutSomething(s source) (f findings) {
	for _, element := range strings.Split(s.dir, "/") {
		if slices.Contains(vague, element) {
			f.add("%s: a package called %q is about nothing: name it for what it does", s.path, element)
		}
	}
	return f
}

func TestPackagesAreDocumented(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			documented[s.dir] = documented[s.dir] || s.file.Doc != nil
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment: say in doc.go, or in the file named like the package, what it is for and what it is not", dir)
		}
	}
}

// long is the number of lines past which a file holds more than one idea.
const long = 600

// mayBeLong are the longer files, each with the reason.
var mayBeLong = map[string]string{}

// unfinished is put together so that this file does not match.
var unfinished = regexp.MustCompile(`//.*\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)

func filesAreShortAndFinished(s source) (f findings) {
	if n := bytes.Count(s.text, []byte("\n")); n > long && mayBeLong[s.path] == "" && !ast.IsGenerated(s.file) {
		f.add("%s has %d lines, more than %d: split it by idea, or give the reason in mayBeLong", s.path, n, long)
	}
	for i, line := range bytes.Split(s.text, []byte("\n")) {
		if unfinished.Match(line) {
			f.add("%s:%d: %s: do it, or say in an issue what does not work yet", s.path, i+1, bytes.TrimSpace(line))
		}
	}
	return f
}

// elsewhere is what holds on one machine only: absolute paths of a developer's home or workplace, and the addresses of
// package registries, which each machine sets for itself.
var elsewhere = regexp.MustCompile(`(?:^|[\s"'=(:,` + "`" + `])/(?:wo` + `rk|ro` + `ot|ho` + `me)/|` +
	`(?:proxy\.gol` + `ang\.org|registry\.npm` + `js\.org|repo1?\.ma` + `ven\.(?:org|apache\.org)|py` + `pi\.org/simple|files\.python` + `hosted\.org|deb\.deb` + `ian\.org)`)

func TestFilesHoldAnywhere(t *testing.T) {
	walk(t, func(path string) {
		text := read(t, path)
		if bytes.IndexByte(text, 0) >= 0 {
			return // not a text
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if found := elsewhere.Find(line); found != nil {
				t.Errorf("%s:%d has %q: a path or registry of one machine; take it from a flag, the environment or the tool's own settings", path, i+1, found)
			}
		}
	})
}
