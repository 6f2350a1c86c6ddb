package main

import (
	"maps"
	"slices"
	"testing"
	"time"

	"trestle/test/streaming/kafka"
)

var gameStart = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

func at(user string, score int, minute float64) event {
	return event{user: user, team: "red", score: score, at: gameStart.Add(time.Duration(minute * float64(time.Minute)))}
}

// What the games are held against, on events of which it can be told by hand.
func TestScores(t *testing.T) {
	events := []event{at("a", 1, 0), at("b", 2, 4), at("a", 3, 4.5), at("c", 100, 59.75), at("c", 1, 60), at("a", 5, 61)}
	everything := func(event) bool { return true }
	if got, want := teamScores(events, everything), map[string]int{"red 2026-11-26 10:00:00.000": 106, "red 2026-11-26 11:00:00.000": 6}; !maps.Equal(got, want) {
		t.Errorf("teams: %v, want %v", got, want)
	}
	if got, want := userScores(events), map[string]int{"a": 9, "b": 2, "c": 101}; !maps.Equal(got, want) {
		t.Errorf("users: %v, want %v", got, want)
	}
	// Means are 35⅓ and 3.
	if got, want := spammers(events), map[string]bool{"c 2026-11-26 10:00:00.000": true}; !maps.Equal(got, want) {
		t.Errorf("spammers: %v, want %v", got, want)
	}
	// Sessions: a 0–9.5 and 61–66, b 4–9, c 59.75–65.
	if got, want := sessionMeans(events, time.Second), []float64{(315 + 300) / 2.0, (570 + 300) / 2.0}; !slices.Equal(got, want) {
		t.Errorf("sessions: %v, want %v", got, want)
	}
}

// The events of a seed are always the same, in order of time, and have spammers among them.
func TestSomeEvents(t *testing.T) {
	events := someEvents(5, 3000, gameStart, gameStart.Add(5*time.Hour))
	if !slices.Equal(events, someEvents(5, 3000, gameStart, gameStart.Add(5*time.Hour))) {
		t.Error("two draws of a seed differ")
	}
	if !slices.IsSortedFunc(events, func(a, b event) int { return a.at.Compare(b.at) }) {
		t.Error("the events are out of order")
	}
	if len(spammers(events)) == 0 {
		t.Error("there is no spammer")
	}
}

// Rows are told apart by their columns; of a score that was told again the largest counts.
func TestTables(t *testing.T) {
	all := &tables{scores: map[string]map[string][]int{}}
	for _, r := range []kafka.Record{
		{Key: "teams", Value: `{"team": "red", "total_score": 0, "window_start": "10"}`},
		{Key: "teams", Value: `{"team": "red", "total_score": 7, "window_start": "10", "processing_time": "now"}`},
		{Key: "users", Value: `{"user": "a", "total_score": 3}`},
		{Key: "means", Value: `{"mean_duration": 0.5}`},
	} {
		if err := all.take(r); err != nil {
			t.Error(err)
		}
	}
	if !maps.Equal(all.last("teams"), map[string]int{"red 10": 7}) || !maps.Equal(all.last("users"), map[string]int{"a": 3}) || !slices.Equal(all.means, []float64{0.5}) {
		t.Errorf("%+v", all)
	}
	if all.once("teams") == nil || all.once("users") != nil {
		t.Error("what was told twice is not told from what was told once")
	}
	for _, wrong := range []string{`{}`, `no row`} {
		if err := all.take(kafka.Record{Value: wrong}); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
