package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatOfProcessWithOddName(t *testing.T) {
	got, err := parseStat("42 (a) (b c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 700 25 20 0 9 0 1 2 3\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (cpu{own: 2, children: 7.25}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := parseStat("42 (a) S 1"); err == nil {
		t.Error("a stat file that breaks off was taken")
	}
}

func TestThisProcessIsMeasured(t *testing.T) {
	if _, err := cpuOf(os.Getpid()); err != nil {
		t.Error(err)
	}
	if mb, err := memory(os.Getpid(), "VmHWM"); err != nil || mb < 1 {
		t.Errorf("peak of %v MB (%v)", mb, err)
	}
	if seconds, err := busy(); err != nil || seconds <= 0 {
		t.Errorf("the machine worked for %v s (%v)", seconds, err)
	}
}

func TestCasesOfASmallSizeAreTheFullOnesInLittle(t *testing.T) {
	small, err := casesOf("small", false)
	if err != nil {
		t.Fatal(err)
	}
	full, err := casesOf("full", false)
	if err != nil {
		t.Fatal(err)
	}
	if len(small) != len(full) {
		t.Fatalf("%d small cases, %d full ones", len(small), len(full))
	}
	for i := range full {
		if small[i].name != full[i].name || small[i].records > full[i].records || full[i].records > 0 && small[i].records == 0 {
			t.Errorf("small %+v, full %+v", small[i], full[i])
		}
	}
	if _, err := casesOf("huge", false); err == nil {
		t.Error("a size that is none was taken")
	}
}

func TestResultsAreWrittenReadAndSummedUp(t *testing.T) {
	runs := []result{
		{Case: "gbk", Peer: trestle, Round: 0, Records: 1e6, RunSeconds: 2, ServerCPU: 0.5, ClientCPU: 1.5, ServerPeakMB: 100},
		{Case: "gbk", Peer: prism, Round: 0, Records: 1e6, RunSeconds: 20, ServerCPU: 12, ClientCPU: 1.25, ServerPeakMB: 2000},
		{Case: "gbk", Peer: prism, Round: 1, Records: 1e6, RunSeconds: 16, ServerCPU: 10, ClientCPU: 1.25, ServerPeakMB: 1000},
		{Case: "gbk", Peer: trestle, Round: 1, Records: 1e6, RunSeconds: 4, ServerCPU: 0.7, ClientCPU: 1.5, ServerPeakMB: 200},
		{Case: "words", Peer: fnapi, WallSeconds: 12.25, ClientCPU: 11},
		{Case: "words", Peer: prism, Error: "it broke"},
	}
	var out bytes.Buffer
	for _, r := range runs {
		if err := r.write(&out); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "results.jsonl")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := readResults([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(runs, read, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("results read back differ (-written +read):\n%s", diff)
	}
	want := strings.TrimPrefix(`
| case | peer | runs | wall s, median (best) | × trestle | client CPU s | server CPU s | server CPU µs/record | server peak MB |
|---|---|---|---|---|---|---|---|---|
| gbk | trestle | 2 | 3.00 (2.00) | | 1.50 | 0.600 | 0.60 | 150 |
| gbk | prism | 2 | 18.0 (16.0) | 7.00 | 1.25 | 11.0 | 11.00 | 1500 |
| words | fnapi | 1 | 12.2 (12.2) | | 11.0 | | | |
| words | prism | 0 of 1 | failed: it broke |
`, "\n")
	if diff := cmp.Diff(want, table(read)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestTextIsRepeatedToItsSize(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("one two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := place{text: text, dir: dir}.repeated(20)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "one two\none two\none "; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
