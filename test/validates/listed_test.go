package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The lists that are checked in can be read, and each is of a suite.
func TestCheckedInLists(t *testing.T) {
	known := map[string]bool{}
	for _, s := range suites(place{}) {
		known[s.name+"-left-out.txt"] = true
		for _, m := range s.modes {
			known[label(s, m)+".txt"] = true
		}
	}
	err := filepath.WalkDir("listed", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil || entry.IsDir(): // one for each engine with lists of its own
			return err
		case !known[entry.Name()]:
			t.Errorf("%s is of no suite", path)
		case strings.HasSuffix(path, "-left-out.txt"):
			_, err = readLeftOut(path)
		default:
			_, err = readListed(path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEachClassHasAMeaning(t *testing.T) {
	for class := range classes {
		if meanings[class] == "" {
			t.Errorf("the report does not say what %q means", class)
		}
	}
}

func TestReadListed(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
	}{
		{"a reason and its classes", "# for people\n\npkg.TestA  trigger, TestStream: refused\n", ""},
		{"a name with blanks", "runs a map: with counters  SDK: it counts twice\n", ""},
		{"no reason", "TestA\n", "is not a test, two blanks"},
		{"no class", "TestA  it fails\n", "is not a test, two blanks"},
		{"a class without words", "TestA  state:\n", "is not a test, two blanks"},
		{"an unknown class", "TestA  stat: refused\n", `no class of reasons is called "stat"`},
		{"twice", "TestA  bug: x\nTestA  bug: y\n", "listed twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "list")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := readListed(path)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// Results are held against a list both ways, and a listed test must fail for its reason.
func TestCompare(t *testing.T) {
	list := map[string]listed{
		"refused":  {classes: []string{"trigger"}},
		"both":     {classes: []string{"trigger", "TestStream"}},
		"bug":      {classes: []string{"bug"}},
		"passes":   {classes: []string{"bug"}},
		"skipped":  {classes: []string{"bug"}},
		"gone":     {classes: []string{"bug"}},
		"crashing": {classes: []string{"trigger"}},
	}
	results := []result{
		{test: "fine", outcome: passed},
		{test: "idle", outcome: skipped},
		{test: "refused", outcome: failed, why: "X: its trigger (repeat), which …"},
		{test: "both", outcome: failed, why: "X: its trigger (repeat), which …"},
		{test: "bug", outcome: failed, why: "anything"},
		{test: "passes", outcome: passed},
		{test: "skipped", outcome: skipped},
		{test: "crashing", outcome: failed, why: "connection refused"},
		{test: "new", outcome: failed, why: "wrong"},
	}
	want := []violation{
		{"both", `is listed for "TestStream" but fails in another way`, "X: its trigger (repeat), which …"},
		{"crashing", `is listed for "trigger" but fails in another way`, "connection refused"},
		{"gone", "is listed and is not in the suite", ""},
		{"new", "fails and is not listed", "wrong"},
		{"passes", "passes: take it off the list", ""},
		{"skipped", "is skipped by the suite: take it off the list", ""},
	}
	opt := cmp.AllowUnexported(violation{})
	if diff := cmp.Diff(want, compare(results, list, false), opt); diff != "" {
		t.Errorf("the whole suite (-want +got):\n%s", diff)
	}
	part := append(want[:2:2], want[3:]...)
	if diff := cmp.Diff(part, compare(results, list, true), opt); diff != "" {
		t.Errorf("a part, of which what did not run is no matter (-want +got):\n%s", diff)
	}
}
