package flink

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"trestle/internal/job/submission"
)

// What tasks of a probe have found is told once for each host, and that a host could not be tried is found there, too.
func TestFindings(t *testing.T) {
	said := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	hosts, err := findings(map[string]string{
		"trestle/probe/0": said(`{"host": "b", "report": [{"text": "disk"}, {"text": "engine", "need": "docker environments", "failed": true}]}`),
		"trestle/probe/1": said(`{"host": "a", "error": "Trestle's worker cannot be put into /tmp on a"}`),
		"trestle/probe/2": said(`{"host": "b", "report": [{"text": "disk"}, {"text": "engine", "need": "docker environments", "failed": true}]}`),
		"another":         "x",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Host{
		{"a", []submission.Finding{{Text: "worker: Trestle's worker cannot be put into /tmp on a", Failed: true}}},
		{"b", []submission.Finding{{Text: "disk"}, {Text: "engine", Need: "docker environments", Failed: true}}},
	}
	same := func(a, b Host) bool { return a.Name == b.Name && slices.Equal(a.Findings, b.Findings) }
	if !slices.EqualFunc(hosts, want, same) {
		t.Errorf("got %+v", hosts)
	}
	for _, broken := range []string{"?", said("{")} {
		if _, err := findings(map[string]string{"trestle/probe/7": broken}); err == nil || !strings.Contains(err.Error(), "trestle/probe/7") {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

// A probe takes all slots that are free; where none is, it waits for no other job, but has a TaskManager started if the cluster does that.
func TestProbeSlots(t *testing.T) {
	elastic := map[string]string{"kubernetes.cluster-id": "beam"}
	for _, test := range []struct {
		name          string
		has           overview
		configuration map[string]string
		want          int
	}{
		{"some", overview{TaskManagers: 2, Slots: 4, Free: 3}, nil, 3},
		{"some, and more when asked", overview{TaskManagers: 2, Slots: 4, Free: 3}, elastic, 3},
		{"busy", overview{TaskManagers: 2, Slots: 4}, nil, 0},
		{"busy, and more when asked", overview{TaskManagers: 2, Slots: 4}, elastic, 1},
		{"no TaskManager, and one when asked", overview{}, elastic, 1},
	} {
		got, err := cluster(t, test.has, test.configuration).probeSlots(t.Context(), test.has)
		if got != test.want || (err == nil) != (test.want > 0) {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "has no free slot, of 4") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
