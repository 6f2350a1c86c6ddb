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
	// name is the case's, example the example's; args are its own options.
	name, example string
	args          []string
	java          bool
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
	const minutes = "2006-01-02-15-04"
	var all []game
	for _, java := range []bool{false, true} {
		name, unit := "python", time.Second
		table, bounds := "--table_name=", []string{"--start_min=" + from.UTC().Format(minutes), "--stop_min=" + to.UTC().Format(minutes)}
		if java {
			name, unit = "java", time.Minute // in which the example tells how long a session was
			table, bounds = "--tableName=", []string{fmt.Sprintf("--startMin=%d", from.UnixMilli()), fmt.Sprintf("--stopMin=%d", to.UnixMilli())}
		}
		means := sessionMeans(events, unit)
		all = append(all, game{
			name: name + "-hourly-team-score", example: "hourly_team_score", java: java, args: append(bounds, table+"hourly"),
			told: func(t *tables) bool { return maps.Equal(t.last("hourly"), hourly) },
			check: func(t *tables) error {
				return errors.Join(t.once("hourly"), compare("scores of teams by the hour", t.last("hourly"), hourly))
			},
		}, game{
			name: name + "-leader-board", example: "leader_board", java: java, args: []string{table + "board"},
			told: func(t *tables) bool { return maps.Equal(t.last("board_teams"), teams) },
			check: func(t *tables) error {
				// Both boards tell of scores early, each time with all that they have so far. Those of Java do so by the clock, every five
				// and ten minutes, and this takes less.
				early := 0
				for _, all := range t.scores["board_teams"] {
					early += len(all) - 1
				}
				if early < len(teams) && !java {
					return fmt.Errorf("only %d scores of teams were told early, of %d", early, len(teams))
				}
				return errors.Join(compare("teams on the board", t.last("board_teams"), teams), compare("users on the board", t.last("board_users"), users))
			},
		}, game{
			name: name + "-game-stats", example: "game_stats", java: java, args: []string{table + "stats"},
			told: func(t *tables) bool {
				return maps.Equal(t.last("stats_teams"), honest) && len(t.means) >= len(means)
			},
			check: func(t *tables) error {
				if len(robots) == 0 || maps.Equal(honest, teams) {
					return errors.New("there are no spammers among the users of this test")
				}
				return errors.Join(t.once("stats_teams"), compare("teams without spammers", t.last("stats_teams"), honest),
					compare("means of sessions", asMap(t.means), asMap(means)))
			},
		})
	}
	return all
}

// argv is the example's command.
func (g game) argv(f *flags, b *kafka.Broker, s *proc.Server, topic, out, expansion string) []string {
	argv := []string{filepath.Join(f.python, "bin", "python"), filepath.Join(f.source, "python", "game.py"), g.example,
		"--expansion_service=" + expansion, "--job_endpoint=" + s.Endpoint, "--environment_type=LOOPBACK"}
	if g.java {
		// The verifier would load all that the examples' main methods name, which is not there: Google's Pub/Sub and BigQuery.
		argv = []string{"java", "-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote", "-Xmx256m", "-cp", filepath.Join(f.java, "classes") + ":" + filepath.Join(f.java, "lib", "*"), "org.apache.beam.examples.complete.game.Games",
			"--example=" + g.example, "--jobEndpoint=" + s.Endpoint, "--defaultEnvironmentType=LOOPBACK"}
	}
	return append(append(argv, "--bootstrap="+b.Address, "--topic="+topic, "--out="+out, "--runner=PortableRunner"), g.args...)
}

// run runs the example until it has told all that it tells before its end, drains it, and looks at all that it told.
func (g game) run(ctx context.Context, f *flags, b *kafka.Broker, s *proc.Server, topic, expansion string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("not done after %v", f.timeout))
	defer cancel()
	out := g.name + "-out"
	if err := b.Create(ctx, out, 1, "CreateTime"); err != nil {
		return err
	}
	pipeline, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- proc.Run{
			Argv: g.argv(f, b, s, topic, out, expansion),
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
	if err != nil || g.java {
		stop() // Java's client knows no state of this name, and would wait on
	}
	// The Python SDK calls each end but DONE a failure. How the job ended, drain has said.
	end := <-ended
	if err == nil && !g.java && (end == nil || !strings.Contains(end.Error(), "in state DRAINED")) {
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
