package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// outcome is how a test ended.
type outcome string

const (
	passed  outcome = "pass"
	failed  outcome = "fail" // or took too long
	skipped outcome = "skip" // by the suite itself, whatever the runner
)

// result is what became of one test.
type result struct {
	test    string
	outcome outcome
	// why is the whole text of a failure, with the SDK's stack trace; of a skipped test, the reason.
	why  string
	took time.Duration
}

// suite is one of Beam's test suites.
type suite struct {
	name string
	// title names the suite for a reader of docs/validates.md, with the SDK's version.
	title string
	modes []mode
	// run runs the suite, or a part of it, and returns a result for each of its tests. An error is of the set-up, or of
	// the suite itself: a test that fails is none.
	run func(ctx context.Context, j job) ([]result, error)
}

// mode is a way to run a suite's tests.
type mode struct {
	// name is "" for a suite that has one mode.
	name string
	// what is different in it, for a reader of docs/validates.md.
	what string
	// quick says whether it is in the quick part.
	quick bool
	// streaming says whether all of its pipelines are to run as streams.
	streaming bool
}

// job is one run of a suite in a mode.
type job struct {
	mode     mode
	endpoint string
	// environment is where the harnesses run: LOOPBACK or PROCESS.
	environment string
	// dir is for logs and reports; it exists, and is the job's own.
	dir string
	// leftOut are the tests that are not run; see listed/*-left-out.txt.
	leftOut []string
	// quick asks for a part only, if the suite has parts.
	quick bool
	// only, when it is not "", are the tests to run, as a pattern of the suite's own.
	only string
	// timeout is how long one test may take.
	timeout time.Duration
	// bucket is for oomTest, and nil when it is not run.
	bucket *gcsBucket
}

// label names a suite in a mode; it is fit for a file.
func label(s suite, m mode) string {
	if m.name == "" {
		return s.name
	}
	return s.name + "-" + m.name
}

// suites are all of them, in the order in which they run. All paths are absolute: tests have working directories of
// their own.
func suites(at place) []suite {
	portable := python{at: at, portable: true}
	marked := python{at: at}
	return []suite{
		{name: "typescript", title: "TypeScript primitives", modes: []mode{{quick: true}}, run: typescript{at}.run},
		{name: "go", title: "Go integration and regression", modes: []mode{{quick: true}}, run: golang{at}.run},
		{name: "python-portable", title: "Python PortableRunnerTest", run: portable.run, modes: []mode{
			{name: "default", quick: true},
			{name: "streaming", what: "`--streaming --max_cache_memory_usage_mb=100`: harnesses keep what they have read", streaming: true},
			{name: "raw", what: "`pre_optimize=none`: the SDK sends the graph as it was written"},
		}},
		{name: "python-marked", title: "Python it_validatesrunner", run: marked.run, modes: []mode{
			{name: "default"},
			{name: "streaming", what: "`--streaming --max_cache_memory_usage_mb=100`: harnesses keep what they have read", streaming: true},
		}},
		{name: "java", title: "Java ValidatesRunner", run: java{at}.run, modes: []mode{
			{name: "default", quick: true},
			{name: "streaming", what: "`--streaming`", streaming: true},
		}},
	}
}

// place is where things are.
type place struct {
	// source is this folder: what the suites need of ours besides this program.
	source string
	// python is a virtual environment, golang a folder of test binaries, java one of jars, typescript one with node_modules.
	python, golang, java, typescript string
	// beam is the source folder of Beam's Go module: its tests look for files there.
	beam string
	// trestle is the program, gcs a server of Google Cloud Storage's API; without one, oomTest is not run.
	trestle, gcs string
}

func (at place) file(elements ...string) string {
	return filepath.Join(append([]string{at.source}, elements...)...)
}

// sorted orders results by test, and is an error when there is none or two are of one test.
func sorted(results []result) ([]result, error) {
	if len(results) == 0 {
		return nil, fmt.Errorf("the suite ran no test")
	}
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(a.test, b.test) })
	for i := 1; i < len(results); i++ {
		if results[i].test == results[i-1].test {
			return nil, fmt.Errorf("the suite has two results of %s", results[i].test)
		}
	}
	return results, nil
}

// telling are the lines of a failure that say what is wrong, the best first.
var telling = []*regexp.Regexp{
	regexp.MustCompile(`[^\n]*(?:cannot run|panic:|too long|longer than)[^\n]*`),
	regexp.MustCompile(`[^\n]*(?:Error|Exception|Expected|FAIL)[^\n]*`),
	regexp.MustCompile(`[^\n]+`),
}

// excerpt is of a failure's text the line that says most, for a terminal.
func excerpt(text string) (line string) {
	for _, pattern := range telling {
		if line = strings.TrimSpace(pattern.FindString(text)); line != "" {
			break
		}
	}
	const most = 300
	if len(line) > most {
		line = line[:most] + " …"
	}
	return line
}
