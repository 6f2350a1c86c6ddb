// Command wordcount proves the whole way: it runs Beam's own WordCount examples, from each SDK, on a trestle server over
// one text, and compares what they write with one another and with a count made without Beam. `make wordcount` builds
// what it needs and runs it.
//
// The examples' definitions of a word differ, so each output is compared with a count by the same definition, word by
// word; and then all are compared in a form in which the definitions agree, the runs of letters (see example.Counts.ByLetters).
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
	"text/tabwriter"
	"time"

	proc "trestle/test/process"
	"trestle/test/wordcount/example"
)

type flags struct {
	place
	sdks, environments string
	endpoint           string
	timeout            time.Duration
}

func main() {
	var f flags
	flag.StringVar(&f.trestle, "trestle", "bin/trestle", "the trestle binary")
	flag.StringVar(&f.text, "text", "", "the text whose words are counted")
	flag.StringVar(&f.dir, "dir", "", "where outputs, logs and the server's data go; emptied first")
	flag.StringVar(&f.Python, "python", "", "virtual environment with Beam's Python SDK")
	flag.StringVar(&f.Go, "go", "", "binary of Beam's Go example")
	flag.StringVar(&f.Java, "java", "", "folder of jars with Beam's Java example")
	flag.StringVar(&f.TypeScript, "typescript", "", "folder with Beam's TypeScript SDK and wordcount.js")
	flag.StringVar(&f.images, "images", "", "SDK=IMAGE, separated by blanks: what docker environments run")
	flag.StringVar(&f.sdks, "sdk", "python go java typescript", "the SDKs to run, separated by blanks")
	flag.StringVar(&f.environments, "environment", "loopback", "any of loopback, process, docker, run, separated by blanks")
	flag.StringVar(&f.endpoint, "endpoint", "", "host:port of a server that runs already; by default one is started")
	flag.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long one pipeline may take")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := f.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// result is what became of a pipeline.
type result struct {
	pipeline
	got  example.Counts
	took time.Duration
	err  error
}

// run runs all pipelines and prints what became of each; false when one of them failed. An error is of the test itself.
func (f *flags) run(ctx context.Context) (ok bool, err error) {
	if err := f.prepare(); err != nil {
		return false, err
	}
	if err := adopt(); err != nil {
		return false, fmt.Errorf("become the parent of orphans: %w", err)
	}
	endpoint := f.endpoint
	var s *proc.Server
	if environments := strings.Fields(f.environments); endpoint == "" && (len(environments) > 1 || environments[0] != run) {
		if s, err = proc.Serve(ctx, f.trestle, f.dir, f.serverFlags()...); err != nil {
			return false, err
		}
		endpoint = s.Endpoint
	}
	results, err := f.runAll(ctx, endpoint)
	var checks []check
	if s != nil {
		checks = append(checks, check{"the server ends when it is asked to", s.Stop()})
		if f.has(docker) {
			checks = append(checks, check{"no container is left", noContainerLeft(ctx, s.PID())})
		}
	}
	if err != nil {
		return false, err
	}
	checks = append(checks, check{"no process is left", noneLeft()}, check{"the SDKs' outputs agree", agree(results)})
	return report(results, checks), nil
}

// prepare makes paths absolute and the folder for this run empty.
func (f *flags) prepare() error {
	if f.text == "" || f.dir == "" {
		return errors.New("-text and -dir are needed; `make wordcount` gives them")
	}
	if strings.TrimSpace(f.environments) == "" || strings.TrimSpace(f.sdks) == "" {
		return errors.New("no SDK or no environment is named")
	}
	for _, environment := range strings.Fields(f.environments) {
		if environment != loopback && environment != process && environment != docker && environment != run {
			return fmt.Errorf("no environment is called %q: there are loopback, process, docker and run", environment)
		}
	}
	for _, path := range []*string{&f.trestle, &f.text, &f.dir, &f.Python, &f.Go, &f.Java, &f.TypeScript} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	for _, name := range []string{"out", "log", "data", "data-run"} {
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

func (f *flags) has(environment string) bool {
	return slices.Contains(strings.Fields(f.environments), environment)
}

// serverFlags let containers see the files that the pipelines read and write: they see none of the host's by themselves.
func (f *flags) serverFlags() []string {
	if !f.has(docker) {
		return nil
	}
	text, out := filepath.Dir(f.text), filepath.Join(f.dir, "out")
	return []string{"--container-mount", text + ":" + text + ":ro", "--container-mount", out + ":" + out, "--container-pull", "never"}
}

// runAll runs one pipeline after another, so that the times mean something. It goes on after one that failed, but not
// after ctx's end.
func (f *flags) runAll(ctx context.Context, endpoint string) ([]result, error) {
	var results []result
	for _, environment := range strings.Fields(f.environments) {
		for _, sdk := range strings.Fields(f.sdks) {
			pipelines, err := f.pipelines(sdk, environment, endpoint)
			if err != nil {
				return nil, err
			}
			for _, p := range pipelines {
				fmt.Printf("wordcount: %s …\n", p.name())
				r := f.runOne(ctx, p)
				if r.err != nil {
					fmt.Printf("wordcount: %s failed after %.1f s: %v\n", p.name(), r.took.Seconds(), r.err)
				}
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				results = append(results, r)
			}
		}
	}
	return results, nil
}

func (f *flags) runOne(ctx context.Context, p pipeline) result {
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("it took longer than %v", f.timeout))
	defer cancel()
	r := result{pipeline: p}
	start := time.Now()
	var stdout strings.Builder
	err := proc.Run{Argv: p.argv, Env: p.env, Log: filepath.Join(f.dir, "log", p.name()+".log"), Stdout: &stdout}.Do(ctx)
	r.took = time.Since(start)
	if err != nil {
		r.err = err
		return r
	}
	if r.got, r.err = p.read(stdout.String()); r.err != nil {
		return r
	}
	if diff := example.Difference(r.got, p.want); diff != "" {
		r.err = errors.New("not what a count without Beam finds: " + diff)
	}
	return r
}

// check is something that must hold besides each pipeline's own counts.
type check struct {
	what string
	err  error
}

func noneLeft() error {
	left, err := leftovers()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("left, and killed now:\n    %s", strings.Join(left, "\n    "))
	}
	return err
}

// agree compares the outputs of those that counted the same text with one another.
func agree(results []result) error {
	var first *result
	var errs []error
	for i, r := range results {
		switch {
		case !r.wholeText || r.got == nil:
		case first == nil:
			first = &results[i]
		default:
			if diff := example.Difference(r.got.ByLetters(), first.got.ByLetters()); diff != "" {
				errs = append(errs, fmt.Errorf("%s against %s, by runs of letters: %s", r.name(), first.name(), diff))
			}
		}
	}
	if first == nil {
		return errors.New("there is no output to compare")
	}
	return errors.Join(errs...)
}

// report prints the summary, and says whether all passed.
func report(results []result, checks []check) bool {
	passed, failed := 0, 0
	verdict := func(err error, good string) string {
		if err != nil {
			failed++
			return "FAILED"
		}
		passed++
		return good
	}
	fmt.Println()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "SDK\tenvironment\twords\tdistinct\tby letters\tseconds\tthe count without Beam")
	for _, r := range results {
		sdk := r.sdk
		if r.what != "" {
			sdk += " (" + r.what + ")"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%.1f\t%s\n",
			sdk, r.environment, r.got.Total(), len(r.got), len(r.got.ByLetters()), r.took.Seconds(), verdict(r.err, "equal"))
	}
	table.Flush()
	fmt.Println()
	for _, c := range checks {
		fmt.Printf("%s: %s\n", c.what, verdict(c.err, "yes"))
		if c.err != nil {
			fmt.Printf("    %v\n", c.err)
		}
	}
	fmt.Printf("\n%d passed, %d failed\n", passed, failed)
	return failed == 0
}
