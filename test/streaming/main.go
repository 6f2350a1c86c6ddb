// Command streaming runs streaming pipelines as users have them, on a trestle server, against real parts, and compares
// what comes out with counts made without Beam.
//
//	kafka  KafkaIO from Python, by cross-language, and from Java: read, window, GroupByKey, write
//	games  Beam's game examples, from a topic
//	kills  jobs of both kinds, while the server is killed
//	poll   a splittable DoFn that polls for -duration: nothing may grow
//
// `make e2e-kafka` and `make e2e-poll` build what they need and run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

type flags struct {
	trestle, dir, source string
	python               string
	duration             time.Duration
	results              string
	snapshots            time.Duration
	kafka, java, only    string
	timeout              time.Duration
	times                int
	seed                 uint64
}

func main() {
	var f flags
	flag.StringVar(&f.trestle, "trestle", "bin/trestle", "the trestle binary")
	flag.StringVar(&f.dir, "dir", "", "where outputs, logs and the server's data go; emptied first")
	flag.StringVar(&f.source, "source", "test/streaming", "this folder")
	flag.StringVar(&f.python, "python", "", "virtual environment with Beam's Python SDK")
	flag.DurationVar(&f.duration, "duration", time.Minute, "poll: how long the source polls")
	flag.DurationVar(&f.snapshots, "snapshots", 3*time.Second, "poll: how often the server takes one; more often, as many as in more time")
	flag.StringVar(&f.results, "results", "", "poll: folder for the table of what was measured; none is written when it is empty")
	flag.StringVar(&f.kafka, "kafka", "", "folder with the jars of a Kafka broker")
	flag.StringVar(&f.java, "java", "", "folder with lib and classes: Beam Java with KafkaIO, and the Java pipelines")
	flag.StringVar(&f.only, "only", "", "run what has this in its name")
	flag.DurationVar(&f.timeout, "timeout", 10*time.Minute, "kafka and games: how long one pipeline may take; kills: to start, and once the kills are over")
	flag.IntVar(&f.times, "kills", 30, "kills: how often the server is killed")
	flag.Uint64Var(&f.seed, "seed", 1, "kills: what the moments and the records are drawn from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := f.run(ctx, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "streaming:", err)
		os.Exit(1)
	}
}

func (f *flags) run(ctx context.Context, args []string) error {
	if f.dir == "" || f.python == "" || len(args) != 1 {
		return errors.New("-dir, -python and one of kafka, games, kills, poll are needed; the Makefile's targets give them")
	}
	for _, path := range []*string{&f.trestle, &f.dir, &f.source, &f.python, &f.results, &f.kafka, &f.java} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	for _, name := range []string{"out", "log", "data"} {
		dir := filepath.Join(f.dir, name)
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			return err
		}
	}
	switch args[0] {
	case "poll":
		return f.poll(ctx)
	case "kafka":
		return f.kafkaPipelines(ctx)
	case "games":
		return f.games(ctx)
	case "kills":
		return f.kills(ctx)
	default:
		return fmt.Errorf("there is no %q: there are kafka, games, kills and poll", args[0])
	}
}
