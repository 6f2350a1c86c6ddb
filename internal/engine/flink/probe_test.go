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
