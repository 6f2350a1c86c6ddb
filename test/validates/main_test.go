package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestOneRunInAFolder: what a run has written is not another's to remove, as long as it is at work.
func TestOneRunInAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "build", "run")
	first, second := flags{dir: dir}, flags{dir: dir}
	release, err := first.prepare()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := second.prepare(); err == nil || !strings.Contains(err.Error(), "another run is at work in "+dir) {
		t.Errorf("a second run: %v", err)
	}
	if _, err := os.Stat(log); err != nil {
		t.Error(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if release, err = second.prepare(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// TestStreamsAreLeftOut where an engine refuses all of them, but for a mode that is named.
func TestStreamsAreLeftOut(t *testing.T) {
	embedded, flink := &engine{}, &engine{name: "flink", bounded: true}
	for _, c := range []struct {
		on     *engine
		suites string
		want   []string
	}{
		{embedded, "java", []string{"java-default", "java-streaming"}},
		{flink, "java", []string{"java-default"}},
		{flink, "java,java-streaming", []string{"java-default", "java-streaming"}},
		{flink, "java-streaming", []string{"java-streaming"}},
		{flink, "", []string{"typescript", "go", "python-portable-default", "python-portable-raw", "python-marked-default", "java-default"}},
	} {
		f := flags{place: place{source: "."}, suites: c.suites}
		all, err := f.choose(c.on)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, chosen := range all {
			got = append(got, label(chosen.suite, chosen.mode))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q on %q: got %v, want %v", c.suites, c.on.name, got, c.want)
		}
	}
}
