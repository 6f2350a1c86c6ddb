package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// classes are the reasons for which a test may be listed, each with what its failure then says. So a listed test that
// begins to fail in another way is found out.
var classes = map[string]*regexp.Regexp{
	// What this version refuses before the job runs, in the words of the refusal.
	"trigger":         regexp.MustCompile(`its trigger \(`),
	"unbounded":       regexp.MustCompile(`it is an unbounded source|groups an unbounded collection|is unbounded, which`),
	"TestStream":      regexp.MustCompile(`it is a TestStream`),
	"merging windows": regexp.MustCompile(`it groups merging windows`),
	"window coder":    regexp.MustCompile(`whose end this version of Trestle cannot read`),
	"streaming":       regexp.MustCompile(`on Flink, this version of Trestle runs bounded pipelines only`),
	// What is refused so, and the test does not say: it expects some failure.
	"unsaid": nil,
	// What runs and fails.
	"bug": nil,
	// What the SDK, its client or its harness does or leaves undone, and the runner does right; the reason has the proof.
	"SDK": nil,
}

// recognized are the classes whose words a failure has.
func recognized(why string) (names []string) {
	for name, says := range classes {
		if says != nil && says.MatchString(why) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// listed is a test that does not pass yet.
type listed struct {
	test string
	// classes are keys of the table above; reason is the line's whole text.
	classes []string
	reason  string
}

// readListed reads a list: on each line a test, two blanks or more, and the reason, which begins with its classes,
// separated by commas, and a colon. Blank lines and those that begin with # are for people. No file is an empty list.
func readListed(path string) (map[string]listed, error) {
	lines, err := readLines(path)
	if err != nil {
		return nil, err
	}
	list := map[string]listed{}
	var errs []error
	for _, line := range lines {
		test, reason, ok := strings.Cut(line, "  ")
		reason = strings.TrimSpace(reason)
		names, text, said := strings.Cut(reason, ":")
		if !ok || !said || strings.TrimSpace(text) == "" {
			errs = append(errs, fmt.Errorf("%s: %q is not a test, two blanks, and \"class: reason\"", path, line))
			continue
		}
		l := listed{test: test, reason: reason}
		for name := range strings.SplitSeq(names, ",") {
			name = strings.TrimSpace(name)
			if _, known := classes[name]; !known {
				errs = append(errs, fmt.Errorf("%s: %s: no class of reasons is called %q", path, test, name))
			}
			l.classes = append(l.classes, name)
		}
		if _, twice := list[test]; twice {
			errs = append(errs, fmt.Errorf("%s: %s is listed twice", path, test))
		}
		list[test] = l
	}
	return list, errors.Join(errs...)
}

// record writes a list of what has failed, for a person to go through.
func record(path string, results []result) error {
	var b strings.Builder
	for _, r := range results {
		if r.outcome != failed {
			continue
		}
		names := recognized(r.why)
		if len(names) == 0 {
			names = []string{"bug"}
		}
		fmt.Fprintf(&b, "%s  %s: %s\n", r.test, strings.Join(names, ", "), excerpt(r.why))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// readLeftOut reads the tests of a suite that are not run, with the same form of line but for the class.
func readLeftOut(path string) (names []string, err error) {
	lines, err := readLines(path)
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		name, reason, _ := strings.Cut(line, "  ")
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s: %q is not a test, two blanks, and a reason", path, line)
		}
		names = append(names, name)
	}
	return names, nil
}

func readLines(path string) (lines []string, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, scanner.Err()
}

// violation is a test that did other than its list says.
type violation struct {
	test, what string
	// why is the text of its failure, if it failed.
	why string
}

// compare holds results against a list. Of a part of a suite, what is listed and did not run is no matter.
func compare(results []result, list map[string]listed, part bool) []violation {
	var found []violation
	ran := map[string]bool{}
	for _, r := range results {
		ran[r.test] = true
		l, isListed := list[r.test]
		switch {
		case r.outcome == failed && !isListed:
			found = append(found, violation{r.test, "fails and is not listed", r.why})
		case r.outcome == failed:
			for _, class := range l.classes {
				if says := classes[class]; says != nil && !says.MatchString(r.why) {
					found = append(found, violation{r.test, fmt.Sprintf("is listed for %q but fails in another way", class), r.why})
				}
			}
		case isListed && r.outcome == passed:
			found = append(found, violation{test: r.test, what: "passes: take it off the list"})
		case isListed:
			found = append(found, violation{test: r.test, what: "is skipped by the suite: take it off the list"})
		}
	}
	for test := range list {
		if !part && !ran[test] {
			found = append(found, violation{test: test, what: "is listed and is not in the suite"})
		}
	}
	slices.SortStableFunc(found, func(a, b violation) int { return strings.Compare(a.test, b.test) })
	return found
}
