// Command bench runs pipelines on trestle and on its peers, side by side: alternating runs on one machine, each on a
// fresh server. `make bench` builds what it needs and runs it; docs/performance.md says what the numbers are good for.
//
// Each run is one line of JSON in test/bench/results, with the versions and the machine; the table at the end is made of
// them. With files of earlier results as arguments it prints their table and runs nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type flags struct {
	place
	results, size string
	cases, peers  string
	rounds        int
	timeout       time.Duration
	label         string
}

func main() {
	var f flags
	flag.StringVar(&f.trestle, "trestle", "bin/trestle", "the trestle binary")
	flag.StringVar(&f.prism, "prism", "", "binary of Beam's Prism")
	flag.StringVar(&f.flink, "flink", "", "folder of Flink: run its cases, on a cluster of it, and no others")
	flag.StringVar(&f.beamFlink, "beam-flink", "", "folder of Beam's own Flink runner")
	flag.StringVar(&f.pipeline, "pipeline", "", "binary of ./test/bench/pipeline")
	flag.StringVar(&f.wordcount, "go", "", "binary of the Go SDK's WordCount example")
	flag.StringVar(&f.python, "python", "", "virtual environment with Beam's Python SDK")
	flag.StringVar(&f.text, "text", "", "a text, to be repeated until it is large enough")
	flag.StringVar(&f.hotkey, "hotkey", "test/bench/hotkey.py", "the Python pipeline that reads one large group twice")
	flag.StringVar(&f.dir, "dir", "", "where outputs, logs and the servers' data go; emptied first")
	flag.StringVar(&f.beam, "beam", "", "Beam's version, for the record")
	flag.StringVar(&f.results, "results", "", "folder to which a file of results is added")
	flag.StringVar(&f.size, "size", "full", "small, full, or large, which adds what takes minutes")
	flag.StringVar(&f.cases, "cases", "", "the cases to run, separated by blanks; all of the size by default")
	flag.StringVar(&f.peers, "peers", "", "the peers to run, separated by blanks; all of each case by default")
	flag.StringVar(&f.label, "label", "", "what is special about this invocation, for the record")
	flag.IntVar(&f.rounds, "rounds", 3, "how often each case runs on each peer")
	flag.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long one run may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		if flag.NArg() == 0 {
			return f.run(ctx)
		}
		earlier, err := readResults(flag.Args())
		if err != nil {
			return err
		}
		fmt.Print(table(earlier))
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (f *flags) run(ctx context.Context) error {
	chosen, err := f.choose()
	if err != nil {
		return err
	}
	if err := f.prepare(); err != nil {
		return err
	}
	m, err := describeMachine()
	if err != nil {
		return err
	}
	m.Trestle, m.Beam, m.Label = version(f.trestle), f.beam, f.label
	now := time.Now().UTC()
	name := f.size
	if f.flink != "" {
		name = "flink-" + name
	}
	out, err := os.Create(filepath.Join(f.results, now.Format("2006-01-02-150405")+"-"+name+".jsonl"))
	if err != nil {
		return err
	}
	results, err := f.runAll(ctx, m, chosen, out)
	err = errors.Join(err, out.Close())
	fmt.Print(table(results))
	fmt.Println("raw results:", out.Name())
	for _, r := range results {
		if r.Error != "" {
			err = errors.Join(err, fmt.Errorf("%s on %s: %s", r.Case, r.Peer, r.Error))
		}
	}
	return err
}

// choose finds the cases to run, and the peers of each.
func (f *flags) choose() ([]benchCase, error) {
	all, err := casesOf(f.size, f.flink != "")
	if err != nil {
		return nil, err
	}
	names, peers := strings.Fields(f.cases), strings.Fields(f.peers)
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c benchCase) bool { return c.name == name }) {
			return nil, fmt.Errorf("no case of size %s is called %q", f.size, name)
		}
	}
	var chosen []benchCase
	for _, c := range all {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		if len(peers) > 0 {
			c.peers = slices.DeleteFunc(slices.Clone(c.peers), func(p string) bool { return !slices.Contains(peers, p) })
		}
		chosen = append(chosen, c)
	}
	return chosen, nil
}

// prepare makes paths absolute and the folder for this run empty.
func (f *flags) prepare() error {
	needed := []*string{&f.trestle, &f.pipeline, &f.wordcount, &f.python, &f.text, &f.hotkey, &f.dir, &f.results}
	if f.flink == "" {
		needed = append(needed, &f.prism)
	} else {
		needed = append(needed, &f.flink, &f.beamFlink)
	}
	for _, path := range needed {
		if *path == "" {
			return errors.New("all of -trestle, -pipeline, -go, -python, -text, -hotkey, -dir and -results are needed, and -prism or -flink with -beam-flink; `make bench` and `make bench-flink` give them")
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if err := os.MkdirAll(f.results, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"log", "tmp", "data", "out"} {
		dir := filepath.Join(f.dir, name)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// runAll runs one pipeline after another. Every other round goes through the peers backwards, so that none always comes
// after the same one. It goes on after a failure, but not after ctx's end, and leaves out who took too long for a case.
func (f *flags) runAll(ctx context.Context, m machine, chosen []benchCase, out *os.File) ([]result, error) {
	var results []result
	words := map[string]int64{} // by case: all peers must find as many
	for _, c := range chosen {
		peers := slices.Clone(c.peers)
		for round := range f.rounds {
			if round > 0 {
				slices.Reverse(peers)
			}
			for _, peer := range slices.Clone(peers) {
				r := f.runOne(ctx, c, peer, round)
				if ctx.Err() != nil {
					return results, context.Cause(ctx)
				}
				if r.Words > 0 {
					if first, ok := words[c.name]; ok && first != r.Words {
						r.Error = fmt.Sprintf("%d different words, where another run found %d", r.Words, first)
					}
					words[c.name] = r.Words
				}
				r.Size, r.machine = f.size, m
				results = append(results, r)
				if err := r.write(out); err != nil {
					return results, err
				}
				fmt.Println(r.line())
				if r.timedOut { // and would again
					peers = slices.DeleteFunc(peers, func(p string) bool { return p == peer })
				}
			}
		}
	}
	return results, nil
}
