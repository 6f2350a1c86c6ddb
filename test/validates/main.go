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

	"github.com/gofrs/flock"

	"trestle/test/process"
)

type flags struct {
	place
	dir          string
	suites, only string
	report       string
	versions     string
	flink        string
	quick        bool
	record       bool
	timeout      time.Duration
	// kills and restarts are means of times: see docs/validates.md.
	kills, restarts time.Duration
	environment     string
}

func main() {
	var f flags
	flag.StringVar(&f.trestle, "trestle", "bin/trestle", "the trestle binary")
	flag.StringVar(&f.dir, "dir", "", "where logs, reports and the server's data go; emptied first")
	flag.StringVar(&f.source, "source", "test/validates", "the folder of this program's source, with the lists")
	flag.StringVar(&f.python, "python", "", "virtual environment with Beam's Python SDK and what its tests need")
	flag.StringVar(&f.golang, "go", "", "folder with the test binaries of Beam's Go SDK")
	flag.StringVar(&f.beam, "beam", "", "source folder of Beam's Go module")
	flag.StringVar(&f.java, "java", "", "folder of jars with Beam's Java SDK and its tests")
	flag.StringVar(&f.typescript, "typescript", "", "folder with Beam's TypeScript SDK")
	flag.StringVar(&f.gcs, "gcs", "", "a server of Google Cloud Storage's API, for the Go test that needs one; without, it is not run")
	flag.StringVar(&f.suites, "suite", "", "the suites to run, or suites with their modes (python-portable-raw); all when empty")
	flag.StringVar(&f.only, "only", "", "the tests to run: for Python as pytest -k takes them, otherwise an expression on names; all when empty")
	flag.StringVar(&f.report, "report", "", "file that gets the table of a whole run")
	flag.StringVar(&f.versions, "versions", "", "what versions of the SDKs and of Trestle these are, for the report")
	flag.StringVar(&f.flink, "flink", "", "folder of a Flink, to run the jobs on that instead of the embedded engine")
	flag.BoolVar(&f.record, "record", false, "write the lists anew, for an engine that has none yet: each failure with the class that its words have, or bug")
	flag.BoolVar(&f.quick, "quick", false, "run a part that takes minutes")
	flag.DurationVar(&f.timeout, "timeout", 2*time.Minute, "how long one test may take")
	flag.DurationVar(&f.kills, "kills", 0, "kill each harness after a random time of this mean")
	flag.DurationVar(&f.restarts, "restarts", 0, "begin each streaming job again from its last snapshot, at random moments: after a time of this mean, and of more later")
	flag.StringVar(&f.environment, "environment", loopback, "LOOPBACK, or PROCESS for the suites that can")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := f.run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "validates:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// chosen is a suite in a mode that is to be run.
type chosen struct {
	suite
	mode
	list    map[string]listed
	leftOut []string
}

// verdict is what came of it.
type verdict struct {
	chosen
	results    []result
	violations []violation
	began      time.Time
	took       time.Duration
	health     health
	// kills and restarts are how many there were, where the server was asked for some.
	kills, restarts int
	// err is of the suite itself or of the server.
	err error
}

func (v verdict) ok() bool {
	return v.err == nil && len(v.violations) == 0 && len(v.health.left) == 0
}

// run runs what was asked for; false when something is other than the lists say. An error is of the run itself.
func (f *flags) run(ctx context.Context) (ok bool, err error) {
	release, err := f.prepare()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, release()) }()
	on, err := f.startEngine(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, on.stop()) }()
	all, err := f.choose(on)
	if err != nil {
		return false, err
	}
	if all, err = f.fit(all); err != nil {
		return false, err
	}
	start := time.Now()
	servers := &servers{trestle: f.trestle, dir: f.dir, flags: append(on.flags, f.disturbances()...), env: f.serverEnv()}
	ok = true
	var verdicts []verdict
	if f.gcs == "" && slices.ContainsFunc(all, func(c chosen) bool { return c.suite.name == "go" }) {
		fmt.Printf("validates: %s is not run, since -gcs names no server of Google Cloud Storage's API\n", oomTest)
	}
	for _, c := range all {
		v := f.runOne(ctx, servers, c)
		if ctx.Err() != nil {
			fmt.Printf("validates: %s was interrupted after %.0f s; what there is of it is in %s\n\n",
				label(c.suite, c.mode), v.took.Seconds(), filepath.Join(f.dir, label(c.suite, c.mode)))
			table(os.Stdout, verdicts)
			return false, errors.Join(context.Cause(ctx), servers.stop())
		}
		if f.record && v.err == nil {
			if err := record(f.list(on.name, label(c.suite, c.mode)), v.results); err != nil {
				return false, err
			}
		}
		tell(v)
		ok = ok && v.ok()
		verdicts = append(verdicts, v)
	}
	if err := servers.end(); err != nil {
		fmt.Printf("\nFAILED: %v\n", err)
		ok = false
	}
	fmt.Println()
	table(os.Stdout, verdicts)
	if f.report != "" && f.whole() {
		return ok, writeReport(f.report, f.versions, verdicts, servers, start)
	}
	return ok, nil
}

// whole says whether everything is run.
func (f *flags) whole() bool {
	return f.suites == "" && f.only == "" && !f.quick && f.kills == 0 && f.restarts == 0 && f.environment == loopback
}

// prepare makes paths absolute and the folder for this run empty, and this run's own until release is called.
func (f *flags) prepare() (release func() error, err error) {
	if f.dir == "" {
		return nil, errors.New("-dir is needed; `make validates` gives it")
	}
	for _, path := range []*string{&f.trestle, &f.dir, &f.source, &f.python, &f.golang, &f.beam, &f.java, &f.typescript, &f.flink, &f.gcs} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = absolute
	}
	if err := os.MkdirAll(filepath.Dir(f.dir), 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(f.dir + ".lock")
	switch locked, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock %s: %w", f.dir, err)
	case !locked:
		return nil, fmt.Errorf("another run is at work in %s, and would lose its server's data and its logs: wait for its end, or give this one a -dir of its own", f.dir)
	}
	if err := errors.Join(os.RemoveAll(f.dir), os.MkdirAll(f.dir, 0o755)); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return lock.Unlock, nil
}

// choose finds the suites and modes that are to be run, and reads their lists. A mode that the engine refuses as a whole is
// run only when it is named.
func (f *flags) choose(on *engine) (all []chosen, err error) {
	wanted := strings.FieldsFunc(f.suites, func(r rune) bool { return r == ',' || r == ' ' })
	known := map[string]bool{}
	for _, s := range suites(f.place) {
		leftOut, err := readLeftOut(filepath.Join(f.source, "listed", s.name+"-left-out.txt"))
		if err != nil {
			return nil, err
		}
		for _, m := range s.modes {
			name := label(s, m)
			known[s.name], known[name] = true, true
			if len(wanted) > 0 && !slices.Contains(wanted, s.name) && !slices.Contains(wanted, name) {
				continue
			}
			if f.quick && !m.quick {
				continue
			}
			if on.bounded && m.streaming && !slices.Contains(wanted, name) {
				fmt.Printf("validates: %s is left out, since %s runs no streams; -suite %[1]s runs it\n", name, on.name)
				continue
			}
			list, err := readListed(f.list(on.name, name))
			if err != nil {
				return nil, err
			}
			all = append(all, chosen{s, m, list, leftOut})
		}
	}
	for _, name := range wanted {
		if !known[name] {
			return nil, fmt.Errorf("no suite is called %q", name)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no suite is left to run")
	}
	return all, nil
}

// list is the file with what does not pass yet on an engine, of a suite in a mode.
func (f *flags) list(engine, label string) string {
	return filepath.Join(f.source, "listed", engine, label+".txt")
}

func (f *flags) runOne(ctx context.Context, servers *servers, c chosen) verdict {
	name := label(c.suite, c.mode)
	fmt.Printf("validates: %s …\n", name)
	v := verdict{chosen: c}
	server, err := servers.get(ctx)
	if err != nil {
		v.err = err
		return v
	}
	dir := filepath.Join(f.dir, name)
	if v.err = os.MkdirAll(dir, 0o755); v.err != nil {
		return v
	}
	v.began = time.Now()
	v.results, v.err = c.run(ctx, job{
		mode: c.mode, endpoint: server.Endpoint, environment: f.environment, dir: dir, leftOut: c.leftOut, quick: f.quick, only: f.only, timeout: f.timeout,
	})
	v.took = time.Since(v.began)
	if v.err == nil {
		v.violations = compare(v.results, c.list, f.quick || f.only != "")
		v.err = writeFailures(filepath.Join(dir, "failed.txt"), v.results)
	}
	h, err := examine(ctx, server)
	v.health, v.err = h, errors.Join(v.err, err, f.count(&v, server))
	return v
}

// servers are the one that runs, and those that died before.
type servers struct {
	trestle, dir string
	flags, env   []string
	current      *process.Server
	// started is how many there were; goroutines, how many the last one had at its end.
	started, goroutines int
}

// get is the server, a new one if the last has ended.
func (s *servers) get(ctx context.Context) (*process.Server, error) {
	if s.current != nil {
		select {
		case <-s.current.Ended():
		default:
			return s.current, nil
		}
	}
	s.started++
	dir := filepath.Join(s.dir, fmt.Sprintf("server-%d", s.started))
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return nil, err
	}
	server, err := process.ServeIn(ctx, s.env, s.trestle, dir, s.flags...)
	if err != nil {
		return nil, err
	}
	s.current = server
	return server, nil
}

// idle is the most goroutines that a server without jobs has; a few are connections of clients that have just gone.
const idle = 40

// end ends the server, and is an error when it still holds something of its jobs.
func (s *servers) end() error {
	if s.current == nil {
		return nil
	}
	stacks, err := s.current.Dump()
	if err != nil {
		return err
	}
	s.goroutines = len(stacks)
	fmt.Printf("validates: the idle server had %d goroutines\n", len(stacks))
	if len(stacks) > idle {
		return fmt.Errorf("the server has no jobs and %d goroutines, more than %d: their stacks are at the end of %s", len(stacks), idle, s.current.Log)
	}
	return nil
}

func (s *servers) stop() error {
	if s.current == nil {
		return nil
	}
	return s.current.Stop()
}
