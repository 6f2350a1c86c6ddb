// Package metamorphic runs random pipelines, each in several ways: what they put out must be the same, and what a simple
// computation in memory says.
//
// The number of pipelines is rapid's: go test ./test/metamorphic -rapid.checks=100. What fails is made smaller, and told
// with the seed that makes it again.
package metamorphic

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/plan"
	"trestle/internal/server"
	"trestle/test/gopipeline"
	"trestle/test/shapes"
)

func TestMain(m *testing.M) {
	// A pipeline takes a second; what the command line says comes later and wins.
	for name, value := range map[string]string{"rapid.checks": "4", "rapid.nofailfile": "true", "rapid.shrinktime": "20s"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	gopipeline.Main(m)
}

// way is a way to run a pipeline.
type way struct {
	plan        plan.Options
	bundleBytes int
	memory      int64
	parallelism int
	faults      shapes.Faults
}

// drawWay draws one. Its zero values are the defaults.
func drawWay(t *rapid.T) way {
	return way{
		plan: plan.Options{
			DisableFusion:  rapid.Bool().Draw(t, "no fusion"),
			DisableLifting: rapid.Bool().Draw(t, "no lifting"),
		},
		bundleBytes: rapid.SampledFrom([]int{0, 1, 4 << 10}).Draw(t, "bundle bytes"),
		memory:      rapid.SampledFrom([]int64{0, 1, 1 << 20}).Draw(t, "memory"),
		parallelism: rapid.SampledFrom([]int{0, 1, 2, 5}).Draw(t, "parallelism"),
		faults:      rapid.SampledFrom([]shapes.Faults{shapes.None, shapes.Fail}).Draw(t, "faults"),
	}
}

// TestMetamorphic runs each pipeline in the default way and in two others.
func TestMetamorphic(t *testing.T) {
	pool, err := gopipeline.StartPool()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}()
	rapid.Check(t, func(rt *rapid.T) {
		p := shapes.Draw(rt)
		for _, w := range append([]way{{}}, rapid.SliceOfN(rapid.Custom(drawWay), 2, 2).Draw(rt, "ways")...) {
			check(rt, p, w, pool.Environment())
		}
	})
}

// TestKills runs pipelines whose harnesses are processes, and kill themselves.
func TestKills(t *testing.T) {
	environment, err := gopipeline.Process(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := shapes.Draw(rt)
		p = append(p, shapes.Op{Kind: "fault", In: []int{0}, A: 1}, shapes.Op{Kind: "group", In: []int{len(p)}})
		w := drawWay(rt)
		w.faults = shapes.Die
		check(rt, p, w, environment)
	})
}

// jobTimeout is how long a job of a few thousand elements may take, on a machine that does other things as well.
const jobTimeout = 4 * time.Minute

func check(t *rapid.T, p shapes.Pipeline, w way, env gopipeline.Environment) {
	// The Go SDK makes groups of several collections in two transforms, of which the first's result has no coder: they
	// cannot run apart.
	if slices.ContainsFunc(p, func(op shapes.Op) bool { return op.Kind == "join" }) {
		w.plan.DisableFusion = false
	}
	begin := time.Now()
	got, err := run(p, w, env)
	t.Logf("%v for %d operations, %d lines, under %+v", time.Since(begin).Round(time.Millisecond), len(p), len(got), w)
	if err != nil {
		t.Fatalf("%v\nunder %+v, the pipeline\n%s", err, w, p)
	}
	if diff := cmp.Diff(p.Output(), got); diff != "" {
		t.Fatalf("output (-want +got):\n%s\nunder %+v, of the pipeline\n%s", diff, w, p)
	}
}

// run runs a pipeline on a server of its own.
func run(p shapes.Pipeline, w way, env gopipeline.Environment) (out []string, err error) {
	dir, err := os.MkdirTemp("", "metamorphic-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	result := filepath.Join(dir, "result")
	if err := os.Mkdir(result, 0o700); err != nil {
		return nil, err
	}
	s, err := gopipeline.Start(context.Background(), server.Config{
		Data:        filepath.Join(dir, "data"),
		Memory:      w.memory,
		Parallelism: w.parallelism,
		Trial: server.Trial{
			Plan:        w.plan,
			BundleBytes: w.bundleBytes,
			Attempts:    math.MaxInt32, // a stage may have any number of faults; each comes once
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), jobTimeout)
	defer cancel()
	job, err := s.Run(ctx, "metamorphic", p.Build(result, w.faults), env)
	if err != nil {
		return nil, err
	}
	if job.State != jobpb.JobState_DONE {
		return nil, fmt.Errorf("the job ended as %v: %q", job.State, job.Errors)
	}
	return shapes.Read(result)
}
