package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Tests of one class stay together, and the shards are of about one size.
func TestShardsByClass(t *testing.T) {
	var tests []javaTest
	for _, name := range []string{"p.A.a", "p.B.a", "p.A.b", "p.C.a", "p.A.c", "p.B.b"} {
		tests = append(tests, javaTest{name: name})
	}
	want := [][]string{{"p.A.a", "p.A.b", "p.A.c"}, {"p.B.a", "p.B.b", "p.C.a"}}
	if diff := cmp.Diff(want, shardsByClass(tests, 2)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestLeftOutJavaTests(t *testing.T) {
	test := javaTest{name: "org.apache.beam.sdk.transforms.ParDoTest$StateTests.testX", categories: []string{"UsesMapState"}}
	for entry, want := range map[string]bool{
		"transforms.ParDoTest$StateTests.testX": true, "@UsesMapState": true,
		"transforms.ParDoTest$StateTests": false, "@UsesState": false,
	} {
		if got := test.is(entry); got != want {
			t.Errorf("%s: got %v, want %v", entry, got, want)
		}
	}
}

// A failure has its message and its stack; a test whose tear-down fails too is one test.
func TestReadJUnit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "junit.xml")
	err := os.WriteFile(path, []byte(`<testsuites><testsuite>
		<testcase classname="apache_beam.x_test.XTest" name="test_a" time="1.5"/>
		<testcase classname="apache_beam.x_test.XTest" name="test_b" time="0"><failure message="short">long</failure></testcase>
		<testcase classname="apache_beam.x_test.XTest" name="test_b" time="0"><error message="in tear-down">too</error></testcase>
		<testcase classname="apache_beam.x_test.XTest" name="test_c" time="0"><skipped message="why">x</skipped></testcase>
	</testsuite></testsuites>`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readJUnit(path, false)
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{test: "x_test.XTest.test_a", outcome: passed, took: 1.5e9},
		{test: "x_test.XTest.test_b", outcome: failed, why: "short\nlong\nin tear-down\ntoo\n"},
		{test: "x_test.XTest.test_c", outcome: skipped, why: "why"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Of a failure's text the terminal shows the line that says what is wrong.
func TestExcerpt(t *testing.T) {
	for text, want := range map[string]string{
		"=== RUN TestX\n  a.go:1: rpc error: the pipeline cannot run: X: its DoFn keeps state\nFAIL": "a.go:1: rpc error: the pipeline cannot run: X: its DoFn keeps state",
		"\n\nAssertionError: 7 is not 6\n  at x":                                                     "AssertionError: 7 is not 6",
		"\n\nnothing to go by\n":                                                                     "nothing to go by",
		"":                                                                                           "",
	} {
		if got := excerpt(text); got != want {
			t.Errorf("excerpt(%q) = %q, want %q", text, got, want)
		}
	}
}
