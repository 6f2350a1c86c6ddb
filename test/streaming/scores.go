package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"trestle/test/streaming/kafka"
)

// What the games' pipelines are told, and what scores are worked out with here.
const (
	gameWindow    = time.Hour        // of a team's score
	sessionGap    = 5 * time.Minute  // of a user's session
	sessionWindow = 30 * time.Minute // of the mean length of sessions
	spamWeight    = 2.5              // the example's own: how many times the mean score makes a user a spammer
)

// event is one of the game.
type event struct {
	user, team string
	score      int
	at         time.Time
}

// line is the event as the examples read it.
func (e event) line() string {
	return fmt.Sprintf("%s,%s,%d,%d,%s", e.user, e.team, e.score, e.at.UnixMilli(), e.at.UTC().Format("2006-01-02 15:04:05.000"))
}

// someEvents are n events of a game between two moments, in their order: of users at random, who have a team each, in
// bursts; some users are robots, in some hours.
func someEvents(seed uint64, n int, first, last time.Time) []event {
	random := rand.New(rand.NewPCG(seed, 1))
	const users, teams, robots = 60, 7, 3
	var all []event
	for i := range n {
		at := first.Add(time.Duration(float64(last.Sub(first)) * float64(i) / float64(n)))
		// A quarter of a second has an exact representation as a number of seconds, which is what the examples make of it.
		at = at.Truncate(250 * time.Millisecond)
		minute := int(at.Unix() / 60)
		// In each quarter of an hour other users are at play.
		user := (random.IntN(users/3) + minute/15*users/3) % users
		score := 1 + random.IntN(19)
		if user < robots && minute/60%2 == 0 {
			score += 200
		}
		all = append(all, event{user: fmt.Sprintf("user%02d", user), team: fmt.Sprintf("team%d", user%teams), score: score, at: at})
	}
	return all
}

// records are the events as a topic has them, over its partitions.
func records(events []event, partitions int) []kafka.Record {
	all := make([]kafka.Record, len(events))
	for i, e := range events {
		all[i] = kafka.Record{Partition: i % partitions, Key: e.user, Value: e.line(), Time: e.at}
	}
	return all
}

// windowed names a score of a window, as the examples write when that starts.
func windowed(name string, start time.Time) string {
	return name + " " + start.UTC().Format("2006-01-02 15:04:05.000")
}

// teamScores sums what counts by team and window.
func teamScores(events []event, counts func(event) bool) map[string]int {
	sums := map[string]int{}
	for _, e := range events {
		if counts(e) {
			sums[windowed(e.team, e.at.Truncate(gameWindow))] += e.score
		}
	}
	return sums
}

func userScores(events []event) map[string]int {
	sums := map[string]int{}
	for _, e := range events {
		sums[e.user] += e.score
	}
	return sums
}

// spammers are the users, by window, whose score is far above the window's mean.
func spammers(events []event) map[string]bool {
	sums, users, totals := map[string]int{}, map[time.Time]int{}, map[time.Time]int{}
	for _, e := range events {
		start := e.at.Truncate(gameWindow)
		name := windowed(e.user, start)
		if _, ok := sums[name]; !ok {
			users[start]++
		}
		sums[name] += e.score
		totals[start] += e.score
	}
	found := map[string]bool{}
	for start, n := range users {
		mean := float64(totals[start]) / float64(n)
		for _, e := range events {
			if name := windowed(e.user, start); float64(sums[name]) > mean*spamWeight {
				found[name] = true
			}
		}
	}
	return found
}

// sessionMeans is the mean length, in whole units, of the users' sessions that end in each window, in no order.
func sessionMeans(events []event, unit time.Duration) []float64 {
	times := map[string][]time.Time{}
	for _, e := range events {
		times[e.user] = append(times[e.user], e.at)
	}
	sum, count := map[time.Time]int64{}, map[time.Time]int64{}
	for _, all := range times {
		slices.SortFunc(all, time.Time.Compare)
		start := all[0]
		for i, at := range all {
			end := at.Add(sessionGap)
			if i+1 < len(all) && all[i+1].Before(end) {
				continue
			}
			window := end.Add(-time.Millisecond).Truncate(sessionWindow)
			sum[window] += int64(end.Sub(start) / unit)
			count[window]++
			if i+1 < len(all) {
				start = all[i+1]
			}
		}
	}
	var means []float64
	for window, n := range count {
		means = append(means, float64(sum[window])/float64(n))
	}
	slices.Sort(means)
	return means
}

// row is one of a table of the games'.
type row struct {
	Team        string   `json:"team"`
	User        string   `json:"user"`
	TotalScore  *int     `json:"total_score"`
	WindowStart string   `json:"window_start"`
	Mean        *float64 `json:"mean_duration"`
}

// tables are the rows that a game wrote, by table: of each score its values in the order of their records.
type tables struct {
	scores map[string]map[string][]int
	means  []float64
}

func (t *tables) take(r kafka.Record) error {
	var one row
	if err := json.Unmarshal([]byte(r.Value), &one); err != nil {
		return fmt.Errorf("the pipeline wrote a record %q: %w", r.Value, err)
	}
	switch {
	case one.Mean != nil:
		t.means = append(t.means, *one.Mean)
	case one.TotalScore != nil:
		name := one.User
		if one.Team != "" {
			name = one.Team + " " + one.WindowStart
		}
		if t.scores[r.Key] == nil {
			t.scores[r.Key] = map[string][]int{}
		}
		t.scores[r.Key][name] = append(t.scores[r.Key][name], *one.TotalScore)
	default:
		return fmt.Errorf("the pipeline wrote a row %q", r.Value)
	}
	return nil
}

// last is each score of a table as it was told last. Scores only grow, and writers side by side keep no order: it is the largest.
func (t *tables) last(table string) map[string]int {
	scores := map[string]int{}
	for name, all := range t.scores[table] {
		scores[name] = slices.Max(all)
	}
	return scores
}

// once is an error where a score of a table was told more than once.
func (t *tables) once(table string) error {
	for name, all := range t.scores[table] {
		if len(all) > 1 {
			return fmt.Errorf("%s: %s was told %d times", table, name, len(all))
		}
	}
	return nil
}

// asMap names values that have no name of their own by themselves, with how often they are there.
func asMap(values []float64) map[string]int {
	counts := map[string]int{}
	for _, v := range values {
		counts[strconv.FormatFloat(v, 'g', -1, 64)]++
	}
	return counts
}
