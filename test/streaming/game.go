package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"time"

	proc "trestle/test/process"
	"trestle/test/streaming/kafka"
)

// game is one of Beam's game examples, which reads events of a topic for as long as it runs.
type game struct {
	// name is the example's module; args are its own options.
	name string
	args []string
	// told says whether all is told that is told while the job runs; the rest comes when it is drained.
	told func(*tables) bool
	// check holds all that was told against the events.
	check func(*tables) error
}

const gamePartitions = 3

// games runs Beam's game examples, on events of some hours.
func (f *flags) games(ctx context.Context) error {
	return f.withKafka(ctx, nil, func(ctx context.Context, b *kafka.Broker, s *proc.Server, expansion string) error {
		// The last window has ended well before now: a reader at its partition's end says that it is as far as the clock.
		first := time.Now().Add(-8 * time.Hour).Truncate(time.Hour).Add(20 * time.Minute)
		events := someEvents(uint64(first.Unix()), 15000, first, first.Add(5*time.Hour))
		const topic = "events"
		if err := errors.Join(b.Create(ctx, topic, gamePartitions, "CreateTime"), b.Produce(ctx, topic, records(events, gamePartitions)...)); err != nil {
			return err
		}
		var errs []error
		for _, g := range theGames(events, first) {
			if f.only == "" || strings.Contains(g.name, f.only) {
				errs = append(errs, f.timed(g.name, func() error { return g.run(ctx, f, b, s, topic, expansion) }))
			}
		}
		return errors.Join(errs...)
	})
}

func theGames(events []event, first time.Time) []game {
	from, to := first.Add(30*time.Minute), first.Add(260*time.Minute)
	everything := func(event) bool { return true }
	robots := spammers(events)
	hourly := teamScores(events, func(e event) bool { return e.at.After(from) && e.at.Before(to) })
	teams, users := teamScores(events, everything), userScores(events)
	honest := teamScores(events, func(e event) bool { return !robots[windowed(e.user, e.at.Truncate(gameWindow))] })
	means := sessionMeans(events)
	const minutes = "2006-01-02-15-04"
	return []game{
		{
			name: "hourly_team_score",
			args: []string{"--table_name=hourly", "--start_min=" + from.UTC().Format(minutes), "--stop_min=" + to.UTC().Format(minutes)},
			told: func(t *tables) bool { return maps.Equal(t.last("hourly"), hourly) },
			check: func(t *tables) error {
				return errors.Join(t.once("hourly"), compare("hourly_team_score", t.last("hourly"), hourly))
			},
		},
		{
			name: "leader_board",
			args: []string{"--table_name=board"},
			told: func(t *tables) bool { return maps.Equal(t.last("board_teams"), teams) },
			check: func(t *tables) error {
				// Both boards tell of scores early, each time with all that they have so far.
				early := 0
				for _, all := range t.scores["board_teams"] {
					early += len(all) - 1
				}
				if early < len(teams) {
					return fmt.Errorf("leader_board: only %d scores of teams were told early, of %d", early, len(teams))
				}
				return errors.Join(compare("leader_board, teams", t.last("board_teams"), teams), compare("leader_board, users", t.last("board_users"), users))
			},
		},
		{
			name: "game_stats",
			args: []string{"--table_name=stats"},
			told: func(t *tables) bool {
				return maps.Equal(t.last("stats_teams"), honest) && len(t.means) >= len(means)
			},
			check: func(t *tables) error {
				if len(robots) == 0 || maps.Equal(honest, teams) {
					return errors.New("game_stats: there are no spammers among the users of this test")
				}
				return errors.Join(t.once("stats_teams"), compare("game_stats, teams without spammers", t.last("stats_teams"), honest),
					compare("game_stats, means of sessions", asMap(t.means), asMap(means)))
			},
		},
	}
}

// run runs the example until it has told all that it tells before its end, drains it, and looks at all that it told.
func (g game) run(ctx context.Context, f *flags, b *kafka.Broker, s *proc.Server, topic, expansion string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("not done after %v", f.timeout))
	defer cancel()
	out := strings.ReplaceAll(g.name, "_", "-") + "-out"
	if err := b.Create(ctx, out, 1, "CreateTime"); err != nil {
		return err
	}
	pipeline, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- proc.Run{
			Argv: append([]string{filepath.Join(f.python, "bin", "python"), filepath.Join(f.source, "python", "game.py"), g.name,
				"--bootstrap=" + b.Address, "--topic=" + topic, "--out=" + out, "--expansion_service=" + expansion,
				"--runner=PortableRunner", "--job_endpoint=" + s.Endpoint, "--environment_type=LOOPBACK"}, g.args...),
			// The examples write times in the local zone.
			Env: []string{"TZ=UTC"},
			Log: filepath.Join(f.dir, "log", g.name+".log"),
		}.Do(pipeline)
	}()
	told := make(chan error, 1)
	go func() {
		t := &tables{scores: map[string]map[string][]int{}}
		var wrong error
		err := b.Consume(pipeline, out, func(r kafka.Record) bool {
			wrong = t.take(r)
			return wrong != nil || g.told(t)
		})
		if err != nil {
			// What is missing says more than that something is.
			err = errors.Join(err, g.check(t))
		}
		told <- errors.Join(err, wrong)
	}()
	select {
	case err := <-ended:
		stop()
		return errors.Join(fmt.Errorf("the pipeline ended by itself: %w", err), <-told)
	case err := <-told:
		if err != nil {
			stop()
			return errors.Join(err, <-ended)
		}
	}
	err := drain(ctx, s.Endpoint)
	if err != nil {
		stop()
	}
	// The Python SDK calls each end but DONE a failure. How the job ended, drain has said.
	if end := <-ended; err == nil && (end == nil || !strings.Contains(end.Error(), "in state DRAINED")) {
		err = fmt.Errorf("the pipeline's program did not say that its job was drained: %w", end)
	}
	if err != nil {
		return err
	}
	t := &tables{scores: map[string]map[string][]int{}}
	all, err := b.All(ctx, out)
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := t.take(r); err != nil {
			return err
		}
	}
	return g.check(t)
}
