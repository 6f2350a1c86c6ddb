// Package example knows Beam's own WordCount examples: how each SDK's is started, what it calls a word, and what it writes;
// and it counts words without Beam.
package example

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Counts tells how often each word occurs.
type Counts map[string]int

// Total is the number of words, repeated ones included.
func (c Counts) Total() int {
	n := 0
	for _, count := range c {
		n += count
	}
	return n
}

// Beam's examples do not agree on what a word is; these are their definitions, as regular expressions of their words.
// They are run here by Go's regexp over the plain file: nothing of Beam takes part.
var (
	// [\w']+, as Python means it for text: letters, digits and _ of any script.
	PythonWord = regexp.MustCompile(`[\p{L}\p{N}_']+`)
	GoWord     = regexp.MustCompile(`[a-zA-Z]+('[a-z])?`)
	// Java splits at [^\p{L}]+ and drops empty words, which leaves the runs of letters.
	JavaWord = regexp.MustCompile(`\p{L}+`)
	// TypeScript's example splits lower-cased lines at [^a-z]+ and keeps the empty words.
	typescriptGap = regexp.MustCompile(`[^a-z]+`)
)

// Count counts the words of a text, line by line as the pipelines do.
func Count(text io.Reader, words func(line string) []string) (Counts, error) {
	counts := Counts{}
	scanner := bufio.NewScanner(text)
	for scanner.Scan() {
		for _, word := range words(scanner.Text()) {
			counts[word]++
		}
	}
	return counts, scanner.Err()
}

// Matching makes the words of a line of what a regular expression matches in it.
func Matching(re *regexp.Regexp) func(string) []string {
	return func(line string) []string { return re.FindAllString(line, -1) }
}

// ByLetters cuts each word into its runs of letters and adds up what becomes equal: "LORD's" and "Ge1" count as "LORD"
// and "s", and as "Ge".
//
// Every example's words are pieces of the text that keep runs of ASCII letters whole (Go's takes at most the first
// letter after an apostrophe for its own, and no word of the text has two there), and none drops a letter. So outputs
// that differ by definition are equal in this form, exactly when each counted every letter of the text once.
func (c Counts) ByLetters() Counts {
	folded := Counts{}
	for word, n := range c {
		for _, run := range JavaWord.FindAllString(word, -1) {
			folded[run] += n
		}
	}
	return folded
}

// ReadOutput reads what a pipeline wrote: all files whose names begin with prefix, of lines "word: count". A word that
// comes twice is an error, whatever its counts: its groups were not one.
func ReadOutput(prefix string) (Counts, error) {
	files, err := filepath.Glob(prefix + "*")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the pipeline wrote no file %s*", prefix)
	}
	counts := Counts{}
	for _, file := range files {
		if err := counts.addFile(file); err != nil {
			return nil, fmt.Errorf("output %s: %w", file, err)
		}
	}
	return counts, nil
}

func (c Counts) addFile(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	for line := 1; scanner.Scan(); line++ {
		word, number, ok := strings.Cut(scanner.Text(), ": ")
		n, err := strconv.Atoi(number)
		if !ok || err != nil {
			return fmt.Errorf("line %d is %q, not \"word: count\"", line, scanner.Text())
		}
		if _, again := c[word]; again {
			return fmt.Errorf("line %d: %q is counted a second time", line, word)
		}
		c[word] = n
	}
	return scanner.Err()
}

// Difference says where two counts differ, the words that come first in the alphabet as examples; "" when they do not.
func Difference(got, want Counts) string {
	var words []string
	for word, n := range want {
		if got[word] != n {
			words = append(words, word)
		}
	}
	for word := range got {
		if _, known := want[word]; !known {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return ""
	}
	slices.SortFunc(words, cmp.Compare)
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d words differ:", len(words), len(want))
	const shown = 10
	for i, word := range words {
		if i == shown {
			fmt.Fprintf(&b, " … and %d more", len(words)-shown)
			break
		}
		fmt.Fprintf(&b, "\n    %q counted %d times, not %d", word, got[word], want[word])
	}
	return b.String()
}
