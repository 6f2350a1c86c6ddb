package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// tell prints what became of a suite.
func tell(v verdict) {
	for _, found := range v.violations {
		fmt.Printf("    %s %s\n", found.test, found.what)
		if found.why != "" {
			fmt.Printf("        %s\n", excerpt(found.why))
		}
	}
	for _, id := range v.health.running {
		fmt.Printf("    job %s was still running, and was cancelled\n", id)
	}
	for _, name := range v.health.left {
		fmt.Printf("    the server left running/%s behind\n", name)
	}
	if v.err != nil {
		fmt.Printf("    %v\n", v.err)
	}
	state := "as listed"
	if !v.ok() {
		state = "FAILED"
	}
	n := count(v)
	fmt.Printf("validates: %s: %s: %d of %d pass, %.0f s; the server has %d MB, at most %d MB\n", label(v.suite, v.mode), state,
		n.pass, n.runnable, v.took.Seconds(), v.health.memory>>20, v.health.peak>>20)
	if v.kills+v.restarts > 0 {
		fmt.Printf("    %d harnesses were killed, jobs began again %d times\n", v.kills, v.restarts)
	}
}

// writeFailures writes the failures of a suite as lines for its list, with the classes that are recognized. What is left
// to a person is to find the reason of the others, and to say it.
func writeFailures(path string, results []result) error {
	var b bytes.Buffer
	for _, r := range results {
		if r.outcome == failed {
			fmt.Fprintf(&b, "%s  %s: %s\n", r.test, strings.Join(recognized(r.why), ", "), excerpt(r.why))
		}
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// numbers are a row of the table.
type numbers struct{ skipped, runnable, pass, fail, listed int }

func count(v verdict) (n numbers) {
	for _, r := range v.results {
		_, isListed := v.list[r.test]
		switch {
		case r.outcome == skipped:
			n.skipped++
			continue
		case r.outcome == passed:
			n.pass++
		case isListed:
			n.listed++
		default:
			n.fail++
		}
		n.runnable++
	}
	return n
}

var columns = []string{"suite", "mode", "runnable", "pass", "fail", "listed", "skipped by Beam", "seconds"}

func row(v verdict) []string {
	n := count(v)
	return []string{v.title, cmp.Or(v.mode.name, "–"), fmt.Sprint(n.runnable), fmt.Sprint(n.pass), fmt.Sprint(n.fail),
		fmt.Sprint(n.listed), fmt.Sprint(n.skipped), fmt.Sprintf("%.0f", v.took.Seconds())}
}

// table prints what became of all suites.
func table(w io.Writer, verdicts []verdict) {
	out := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(out, strings.Join(columns, "\t"))
	for _, v := range verdicts {
		fmt.Fprintln(out, strings.Join(row(v), "\t"))
	}
	out.Flush()
}

// meanings says, for a reader of the report, what the classes of reasons mean.
var meanings = map[string]string{
	"streaming":         "a streaming pipeline, which Flink does not run yet",
	"state":             "user state",
	"timers":            "timers",
	"trigger":           "a trigger other than the default",
	"unbounded":         "an unbounded source, or a grouping of what it reads",
	"TestStream":        "TestStream",
	"merging windows":   "merging windows",
	"window coder":      "windows of a coder that only the SDK knows",
	"window expiration": "a DoFn that is called when a window expires",
	"sorted input":      "input sorted by time",
	"unsaid":            "one of these, which the test swallows",
	"bug":               "a defect of Trestle",
	"SDK":               "what the SDK, its client or its harness does or leaves undone",
}

// writeReport writes docs/validates.md.
func writeReport(path, versions string, verdicts []verdict, servers *servers, at time.Time) error {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Beam's own suites against Trestle\n")
	p("`make validates` runs the suites by which Beam validates a runner against a running server, with LOOPBACK harnesses,")
	p("and writes this page. `test/validates/listed/` has every test that does not pass yet, with its reason; the run fails")
	p("when a test does other than the lists say.\n")
	p("Under kills and restarts: [validates-disturbed.md](validates-disturbed.md).\n")
	p("Last run: %s, with the SDKs %s.\n", at.UTC().Format(time.DateOnly), versions)
	rows := [][]string{columns}
	for _, v := range verdicts {
		rows = append(rows, row(v))
	}
	markdownTable(&b, rows)
	p("\n*runnable*: what the suite does not skip by itself and is not left out (below); *fail*: failed and not listed;")
	p("*listed*: failed, for the reason that is listed. Times depend on what else the machine does.\n")
	for _, v := range verdicts {
		if v.what != "" {
			p("- %s, %s: %s", v.title, v.mode.name, v.what)
		}
	}
	p("\nGo's %s has a server of Google Cloud Storage's API beside it, which gets the heap profiles of its workers: processes that",
		strings.TrimPrefix(oomTest, "primitives."))
	p("may have %d MiB, and die of it. `make validates-quick` leaves it out.", oomMemory>>10)
	p("\n## What does not pass yet\n")
	p("A test with several reasons is counted with each.\n")
	byClass := map[string]map[string]int{}
	for _, v := range verdicts {
		for _, l := range v.list {
			for _, class := range l.classes {
				if byClass[class] == nil {
					byClass[class] = map[string]int{}
				}
				byClass[class][label(v.suite, v.mode)]++
			}
		}
	}
	rows = [][]string{{"reason", "tests"}}
	for _, class := range slices.Sorted(maps.Keys(byClass)) {
		var where []string
		for _, name := range slices.Sorted(maps.Keys(byClass[class])) {
			where = append(where, fmt.Sprintf("%s %d", name, byClass[class][name]))
		}
		rows = append(rows, []string{meanings[class], strings.Join(where, ", ")})
	}
	markdownTable(&b, rows)
	p("\n## What is left out\n")
	p("`listed/*-left-out.txt` says why, test by test: no runner can pass them in this set-up; or they are no tests of a runner.\n")
	told := map[string]bool{}
	for _, v := range verdicts {
		if !told[v.suite.name] && len(v.leftOut) > 0 {
			p("- %s: %s", v.title, strings.Join(v.leftOut, ", "))
		}
		told[v.suite.name] = true
	}
	p("\n## The server\n")
	p("All suites run one after another against one server, or against a new one after one that died: %d in this run. At the", servers.started)
	p("end the server had %d goroutines. *jobs running* are those that had not ended after the suite (and were cancelled);", servers.goroutines)
	p("*files left* are of jobs that had.\n")
	rows = [][]string{{"after", "resident MB", "most so far, MB", "jobs running", "files left"}}
	for _, v := range verdicts {
		h := v.health
		rows = append(rows, []string{label(v.suite, v.mode), fmt.Sprint(h.memory >> 20), fmt.Sprint(h.peak >> 20), fmt.Sprint(len(h.running)), fmt.Sprint(len(h.left))})
	}
	markdownTable(&b, rows)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func markdownTable(b *bytes.Buffer, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(b, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
}
