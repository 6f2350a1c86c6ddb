package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trestle/test/streaming/kafka"
)

// What grows is told, and what was never measured.
func TestFlat(t *testing.T) {
	steady := func(snapshots func(int) int64) []sample {
		var all []sample
		for i := range 30 {
			all = append(all, sample{server: 50, worker: 200, snapshots: snapshots(i), files: 40})
		}
		return all
	}
	if err := flat(steady(func(i int) int64 { return 300_000 + int64(i%2)*20_000 })); err != nil {
		t.Errorf("a saw is flat: %v", err)
	}
	for name, snapshots := range map[string]func(int) int64{
		"grew":         func(i int) int64 { return 300_000 + int64(i)*20_000 },
		"not measured": func(int) int64 { return 0 },
	} {
		if err := flat(steady(snapshots)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error that has %q, got %v", name, err)
		}
	}
	if err := flat(nil); err == nil {
		t.Error("no samples are flat")
	}
}

// The polls' counts are those of the lines, each of which is there once.
func TestCheckPolls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lines")
	var lines []string
	for i := range pollKeys {
		key := "k0" + string(rune('0'+i))
		lines = append(lines, "window "+key+" 100 1", "total "+key+" 1")
	}
	check := func(lines []string) error {
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return checkPolls(path, 100, 1, false)
	}
	if err := check(lines); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string][]string{"twice": append(lines[:len(lines):len(lines)], lines[0]), "0, want 1": lines[1:], "want none": append(lines[:len(lines):len(lines)], "total other 1")} {
		if err := check(wrong); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error that has %q, got %v", name, err)
		}
	}
}

// A group that comes again is told.
func TestGroups(t *testing.T) {
	g := groups{got: map[string]int{}}
	for _, value := range []string{"100 2", "105 1", "100 3"} {
		if err := g.take(kafka.Record{Key: "k", Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if g.total != 6 || len(g.again) != 1 || g.again[0] != "k 100" {
		t.Errorf("%+v", g)
	}
	if err := g.take(kafka.Record{Key: "k", Value: "nonsense"}); err == nil {
		t.Error("a record that is no count is taken")
	}
}
