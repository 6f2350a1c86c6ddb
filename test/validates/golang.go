package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"trestle/test/process"
)

// golang is Beam's Go SDK: the integration and regression tests of its module. With the runner "universal" they leave
// nothing out, while each of Beam's own runners has a list of tests that it skips.
type golang struct{ at place }

// goPackages are the packages below go/test, each in a test binary called like the package's last element.
var goPackages = []string{"integration/primitives", "integration/synthetic", "integration/wordcount", "regression"}

const goProcesses = 2

// goTest is a test in a package.
type goTest struct{ dir, name string }

func (t goTest) String() string { return filepath.Base(t.dir) + "." + t.name }

func (s golang) run(ctx context.Context, j job) (_ []result, err error) {
	// The client waits for ever for a server that is not there; the harness looks for one before each suite.
	tests, err := s.list(ctx, j)
	if err != nil {
		return nil, err
	}
	// A process for each test: one that hangs or dies costs no other.
	results := make([]result, len(tests))
	if slices.ContainsFunc(tests, func(t goTest) bool { return t.String() == oomTest }) {
		if j.bucket, err = startGCS(ctx, s.at.gcs, j.dir); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, j.bucket.stop()) }()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(goProcesses)
	for i, t := range tests {
		g.Go(func() (err error) {
			results[i], err = s.runOne(ctx, j, t)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return sorted(results)
}

func (s golang) binary(dir string) string {
	return filepath.Join(s.at.golang, filepath.Base(dir)+".test")
}

func (s golang) list(ctx context.Context, j job) (tests []goTest, err error) {
	pattern := "."
	if j.only != "" {
		pattern = j.only
	}
	for _, dir := range goPackages {
		var out strings.Builder
		run := process.Run{
			Argv: []string{s.binary(dir), "-test.list", pattern}, Stdout: &out,
			Dir: filepath.Join(s.at.beam, "go", "test", dir), Log: filepath.Join(j.dir, filepath.Base(dir)+".list"),
		}
		if err := run.Do(ctx); err != nil {
			return nil, fmt.Errorf("list the tests of %s: %w", dir, err)
		}
		for name := range strings.Lines(out.String()) {
			t := goTest{dir, strings.TrimSpace(name)}
			if strings.HasPrefix(t.name, "Test") && !slices.Contains(j.leftOut, t.String()) && (s.at.gcs != "" || t.String() != oomTest) {
				tests = append(tests, t)
			}
		}
	}
	return tests, nil
}

// command is a test's, with what is added to its environment.
func (s golang) command(j job, t goTest) (argv, env []string, err error) {
	binary := s.binary(t.dir)
	if t.String() == oomTest {
		binary = strings.TrimSuffix(binary, ".test") + "-symbols.test"
	}
	argv = []string{binary, "-test.v", "-test.run", "^" + t.name + "$", "--runner=universal", "--endpoint=" + j.endpoint}
	switch {
	case t.String() == oomTest:
		harness, err := j.bucket.harness(s.at.trestle, binary)
		return append(argv, harness...), []string{j.bucket.env()}, err
	case j.environment == inProcess:
		argv = append(argv, "--environment_config="+bootCommand("go"),
			"--worker_binary="+binary) // without, the client compiles one
	}
	return append(argv, "--environment_type="+j.environment), nil, nil
}

func (s golang) runOne(ctx context.Context, j job, t goTest) (result, error) {
	timeout := j.timeout
	if t.String() == oomTest {
		timeout *= 3 // on Flink its worker dies 28 times: in 4 attempts of each of 7 starts of the task
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTooLong)
	defer cancel()
	log := filepath.Join(j.dir, t.String()+".log")
	argv, env, err := s.command(j, t)
	if err != nil {
		return result{}, err
	}
	run := process.Run{Argv: argv, Env: env, Dir: filepath.Join(s.at.beam, "go", "test", t.dir), Log: log}
	drained := make(chan error, 1)
	drainCtx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	if t.String() == drainedTest {
		go func() { drained <- drain(drainCtx, j.endpoint, drainedJob) }()
	} else {
		drained <- nil
	}
	start := time.Now()
	err = run.Do(ctx)
	if err != nil {
		giveUp()
	}
	amiss := <-drained
	if t.String() == oomTest && err == nil {
		amiss = j.bucket.profiles()
	}
	r := result{test: t.String(), outcome: passed, took: time.Since(start)}
	text, readErr := os.ReadFile(log)
	if readErr != nil {
		return r, errors.Join(readErr, err)
	}
	ended := regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): ` + t.name + ` `).FindSubmatch(text)
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit), ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTooLong):
		return r, err
	case err != nil:
		r.outcome, r.why = failed, string(text)
		if errors.Is(err, errTooLong) {
			r.why = errTooLong.Error() + "\n" + r.why
		}
	case amiss != nil:
		r.outcome, r.why = failed, amiss.Error()+"\n"+string(text)
	case ended == nil:
		r.outcome, r.why = failed, "the test's process ended well, but does not say that it ran the test\n"+string(text)
	case string(ended[1]) == "SKIP":
		r.outcome, r.why = skipped, string(text)
	}
	return r, nil
}

var errTooLong = errors.New("it took too long")
