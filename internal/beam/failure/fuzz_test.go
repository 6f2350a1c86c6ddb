package failure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// check holds what is true of every report.
func check(t *testing.T, input string, r Report, text string) {
	t.Helper()
	if r.Summary == "" || strings.ContainsAny(r.Summary, "\n") {
		t.Fatalf("the summary is not one line: %q", r.Summary)
	}
	if n := strings.Count(text, "\n") + 1; n > 25 {
		t.Fatalf("%d lines:\n%s", n, text)
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(line); n > maxSummary+len(`in transform ""`)+1 {
			t.Fatalf("a line of %d runes: %s", n, line)
		}
	}
	if !utf8.ValidString(text) {
		t.Fatalf("not UTF-8: %q", text)
	}
	if strings.TrimSpace(input) != "" && strings.TrimSpace(text) == "" {
		t.Fatalf("nothing is left of %q", input)
	}
}

// FuzzParse: any text makes a report of bounded size, and the same one each time.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		samples, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for i, sample := range strings.Split(string(samples), "\nparse\n") {
			if i > 0 {
				input, _, _ := strings.Cut(sample, "\n----\n")
				f.Add(input)
			}
		}
	}
	for _, seed := range []string{"", "\n\n", "boom", "\xff\xfe\x00\x1b[31m",
		"Traceback (most recent call last):", "Traceback (most recent call last):\n\nDuring handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n",
		"\tat a(b)", "Caused by: \n\tat a(b)\nCaused by: x", "\tcaused by:", "\tcaused by:\n\tcaused by:\nDoFn[UID:1, PID:, Name: ] failed:",
		"panic: x goroutine 1 [running]:", "panic: x goroutine 1 [running]:\npanic(\n\n\t", "    at <anonymous>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		r := Parse(input)
		text := r.Text(nil)
		check(t, input, r, text)
		if again := Parse(input).Text(func(string) string { return "" }); again != text {
			t.Fatalf("two reports of one text:\n%s\n%s", text, again)
		}
	})
}
