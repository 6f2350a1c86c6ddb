package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"trestle/test/process"
)

// java is Beam's Java SDK: its tests of category ValidatesRunner, through its portable client (TestUniversalRunner), with
// the worker in the test's own process (LOOPBACK). The program that runs them is in java/.
type java struct{ at place }

const (
	javaPackage = "org.apache.beam.sdk."
	// The client asks for a job's state every three seconds, so that a test waits more than it computes.
	javaProcesses = 3
	// hugeKey has a key of 100 MB, which is in the test's process many times over: it runs alone, in much memory.
	hugeKey = javaPackage + "transforms.GroupByKeyTest$BasicTests.testLargeKeys100MB"
)

// javaQuick are the categories of the quick part: what Java's suite tests more deeply than the others.
var javaQuick = []string{
	"UsesSideInputs", "UsesBoundedSplittableParDo", "UsesAttemptedMetrics", "UsesFailureMessage", "UsesCustomWindowMerging",
}

// javaTest is a test's full name and its categories' names, without their package.
type javaTest struct {
	name       string
	categories []string
}

func (s java) run(ctx context.Context, j job) ([]result, error) {
	tests, err := s.list(ctx, j)
	if err != nil {
		return nil, err
	}
	var alone []string
	tests = slices.DeleteFunc(tests, func(t javaTest) bool {
		if t.name == hugeKey && !j.quick {
			alone = append(alone, t.name)
		}
		return t.name == hugeKey
	})
	var results []result
	g, gctx := errgroup.WithContext(ctx)
	shards := make([][]result, javaProcesses)
	for i, names := range shardsByClass(tests, javaProcesses) {
		if len(names) == 0 {
			continue
		}
		g.Go(func() (err error) {
			shards[i], err = s.runShard(gctx, j, strconv.Itoa(i+1), "2g", names)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, shard := range shards {
		results = append(results, shard...)
	}
	if len(alone) > 0 {
		huge, err := s.runShard(ctx, j, "huge", "6g", alone)
		if err != nil {
			return nil, err
		}
		results = append(results, huge...)
	}
	return sorted(results)
}

// list asks the suite for its tests, and leaves out what is not to be run.
func (s java) list(ctx context.Context, j job) (tests []javaTest, err error) {
	file := filepath.Join(j.dir, "all.tsv")
	run := process.Run{Argv: append(s.command("512m"), "list", file), Dir: j.dir, Log: filepath.Join(j.dir, "list.log")}
	if err := run.Do(ctx); err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var only *regexp.Regexp
	if j.only != "" {
		if only, err = regexp.Compile(j.only); err != nil {
			return nil, fmt.Errorf("the pattern of tests: %w", err)
		}
	}
	lines, err := readLines(file)
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		name, categories, _ := strings.Cut(line, "\t")
		t := javaTest{name: name}
		for category := range strings.SplitSeq(categories, ",") {
			t.categories = append(t.categories, strings.TrimPrefix(category, javaPackage+"testing."))
		}
		quick := slices.ContainsFunc(javaQuick, func(category string) bool { return slices.Contains(t.categories, category) })
		out := slices.ContainsFunc(j.leftOut, t.is)
		if !out && (quick || !j.quick) && (only == nil || only.MatchString(name)) {
			tests = append(tests, t)
		}
	}
	return tests, nil
}

// is says whether an entry of the left-out list means the test: its name without Beam's package, or @ and a category.
func (t javaTest) is(entry string) bool {
	if category, ok := strings.CutPrefix(entry, "@"); ok {
		return slices.Contains(t.categories, category)
	}
	return t.name == javaPackage+entry
}

// shardsByClass divides tests into so many shards of about one size. What the tests of a class share statically is in
// one process.
func shardsByClass(tests []javaTest, n int) [][]string {
	classes := map[string][]string{}
	var order []string
	for _, t := range tests {
		class := t.name[:strings.LastIndexByte(t.name, '.')]
		if classes[class] == nil {
			order = append(order, class)
		}
		classes[class] = append(classes[class], t.name)
	}
	slices.SortStableFunc(order, func(a, b string) int { return len(classes[b]) - len(classes[a]) })
	shards := make([][]string, n)
	for _, class := range order {
		least := 0
		for i := range shards {
			if len(shards[i]) < len(shards[least]) {
				least = i
			}
		}
		shards[least] = append(shards[least], classes[class]...)
	}
	return shards
}

// runShard runs tests one after another in a process of their own.
func (s java) runShard(ctx context.Context, j job, shard, heap string, tests []string) ([]result, error) {
	at := func(name string) string { return filepath.Join(j.dir, "shard-"+shard+name) }
	if err := os.WriteFile(at(".names"), []byte(strings.Join(tests, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(at(""), 0o755); err != nil {
		return nil, err
	}
	// By default the client stages its class path, 70 MB a test; a loopback worker has it already.
	nothing := at(".nothing-to-stage")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		return nil, err
	}
	given := []string{
		"--runner=TestUniversalRunner", "--experiments=beam_fn_api", "--jobEndpoint=" + j.endpoint,
		"--defaultEnvironmentType=LOOPBACK", "--filesToStage=" + nothing,
	}
	if j.mode.name == "streaming" {
		given = append(given, "--streaming=true")
	}
	options, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	argv := append(s.command(heap, "-DbeamTestPipelineOptions="+string(options)),
		"run", at(".names"), strconv.Itoa(int(j.timeout.Seconds())), at(".tsv"), at(""))
	if err := (process.Run{Argv: argv, Dir: j.dir, Log: at(".log")}).Do(ctx); err != nil {
		return nil, fmt.Errorf("shard %s: %w", shard, err)
	}
	lines, err := readLines(at(".tsv"))
	if err != nil {
		return nil, err
	}
	var results []result
	for _, line := range lines {
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("shard %s: %q is no result", shard, line)
		}
		r := result{test: strings.TrimPrefix(fields[0], javaPackage)}
		if r.outcome = outcome(strings.ToLower(fields[1])); r.outcome != passed && r.outcome != failed && r.outcome != skipped {
			return nil, fmt.Errorf("shard %s: %q is no result", shard, line)
		}
		millis, err := strconv.Atoi(fields[2])
		if err != nil {
			return nil, fmt.Errorf("shard %s: %q: %w", shard, line, err)
		}
		r.took = time.Duration(millis) * time.Millisecond
		text, err := os.ReadFile(filepath.Join(at(""), fields[0]))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		r.why = string(text)
		results = append(results, r)
	}
	if len(results) != len(tests) {
		return nil, fmt.Errorf("shard %s: %d results of %d tests\n%s", shard, len(results), len(tests), process.Tail(at(".log")))
	}
	return results, nil
}

// command starts the program in java/ with so much heap.
func (s java) command(heap string, flags ...string) []string {
	argv := []string{"java", "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.util=ALL-UNNAMED"}
	argv = append(argv, flags...)
	classPath := filepath.Join(s.at.java, "classes") + string(filepath.ListSeparator) + filepath.Join(s.at.java, "lib", "*")
	return append(argv, "-cp", classPath, "trestle.validates.Main")
}
