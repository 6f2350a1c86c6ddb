package example

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = "Ge1:3 The LORD's sons' sheep; the LORD's two_fold.\n\nThe end\n"

func TestCountFollowsEachExample(t *testing.T) {
	for _, test := range []struct {
		language string
		words    func(string) []string
		want     Counts
	}{
		{"python", Matching(PythonWord), Counts{
			"Ge1": 1, "3": 1, "The": 2, "LORD's": 2, "sons'": 1, "sheep": 1, "the": 1, "two_fold": 1, "end": 1}},
		{"go", Matching(GoWord), Counts{
			"Ge": 1, "The": 2, "LORD's": 2, "sons": 1, "sheep": 1, "the": 1, "two": 1, "fold": 1, "end": 1}},
		{"java", Matching(JavaWord), Counts{
			"Ge": 1, "The": 2, "LORD": 2, "s": 2, "sons": 1, "sheep": 1, "the": 1, "two": 1, "fold": 1, "end": 1}},
	} {
		t.Run(test.language, func(t *testing.T) {
			got, err := Count(strings.NewReader(sample), test.words)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
		})
	}
}

// What the summary's last check rests on: cut into JavaWord, the definitions agree.
func TestByLettersMakesDefinitionsAgree(t *testing.T) {
	want, err := Count(strings.NewReader(sample), Matching(JavaWord))
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []func(string) []string{Matching(PythonWord), Matching(GoWord)} {
		counts, err := Count(strings.NewReader(sample), words)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, counts.ByLetters()); diff != "" {
			t.Errorf("by letters (-want +got):\n%s", diff)
		}
	}
}

func TestReadOutput(t *testing.T) {
	write := func(t *testing.T, files map[string]string) string {
		dir := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return filepath.Join(dir, "out")
	}
	t.Run("all shards", func(t *testing.T) {
		got, err := ReadOutput(write(t, map[string]string{"out-00000-of-00002": "a: 1\n", "out-00001-of-00002": "b: 2\n"}))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Counts{"a": 1, "b": 2}, got); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
	})
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no file":    {nil, "the pipeline wrote no file"},
		"word twice": {map[string]string{"out-0": "a: 1\n", "out-1": "a: 1\n"}, `"a" is counted a second time`},
		"no count":   {map[string]string{"out": "a: 1\nb\n"}, `line 2 is "b", not "word: count"`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ReadOutput(write(t, test.files)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestDifference(t *testing.T) {
	if got := Difference(Counts{"a": 1}, Counts{"a": 1}); got != "" {
		t.Errorf("equal counts differ: %s", got)
	}
	got := Difference(Counts{"a": 1, "c": 4}, Counts{"a": 2, "b": 3})
	for _, want := range []string{"3 of 2 words", `"a" counted 1 times, not 2`, `"b" counted 0 times, not 3`, `"c" counted 4 times, not 0`} {
		if !strings.Contains(got, want) {
			t.Errorf("difference is %q, want %q in it", got, want)
		}
	}
}
