// Package serverflags are the flags of every subcommand that starts a server.
package serverflags

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"trestle/internal/engine/local"
	"trestle/internal/server"
)

// Flags are what a person can set of a server.
type Flags struct {
	// Version is the program's; it is no flag.
	Version string

	data, staging  string
	memory, worker string // sizes
	keep           string
	engine, flink  string
	parallelism    int
	snapshots      time.Duration
	kills          time.Duration
	restarts       time.Duration
}

// Bind adds the flags to a set.
func (f *Flags) Bind(set *pflag.FlagSet) {
	set.StringVar(&f.data, "data", "", "folder for jobs' histories, artifacts and spill (default: trestle in your cache folder)")
	set.StringVar(&f.staging, "staging", "", "URL of the bucket for staged artifacts: s3://bucket/path, gs://bucket/path, hdfs://namenode:port/path, file:///shared (default: a folder in --data)")
	set.StringVar(&f.memory, "memory", humanize.IBytes(server.DefaultMemory), "how much of all jobs' data is kept in memory before it spills to --data")
	set.StringVar(&f.worker, "worker-memory", humanize.IBytes(server.DefaultWorkerMemory), "the same for each worker beside a TaskManager of Flink's, which hosts one job")
	set.StringVar(&f.keep, "keep", "30d", "how long the histories of ended jobs, and artifacts in --data that none of them needs, are kept: 30d, 12h; 0 for ever")
	set.StringVar(&f.engine, "engine", "local", "engine of jobs that name none in their pipeline option engine: local, flink")
	set.StringVar(&f.flink, "flink", "", "URL of the REST API of a Flink cluster to run jobs on: http://jobmanager:8081")
	set.DurationVar(&f.snapshots, "snapshots", local.DefaultSnapshotEvery, "how often the state of a streaming job of the embedded engine is made safe; a restarted server goes on from there")
	set.IntVar(&f.parallelism, "parallelism", 0, "tasks of a stage on the embedded engine, unless the pipeline says (default: the number of cores)")
	// For tests: docs/validates.md.
	set.DurationVar(&f.kills, "trial-kills", 0, "kill each harness after a random time of this mean, and try bundles as often as that takes")
	set.DurationVar(&f.restarts, "trial-restarts", 0, "run all pipelines as streams, and begin each again from its last snapshot after random times of this mean and more")
	for _, hidden := range []string{"trial-kills", "trial-restarts"} {
		set.Lookup(hidden).Hidden = true
	}
}

// Config is the server's configuration as far as the flags tell it.
func (f *Flags) Config() (server.Config, error) {
	memory, err := size("--memory", f.memory)
	if err != nil {
		return server.Config{}, err
	}
	worker, err := size("--worker-memory", f.worker)
	if err != nil {
		return server.Config{}, err
	}
	if f.parallelism < 0 {
		return server.Config{}, fmt.Errorf("--parallelism %d: must not be negative", f.parallelism)
	}
	keep, err := duration(f.keep)
	if err != nil {
		return server.Config{}, fmt.Errorf("--keep %q: %w", f.keep, err)
	}
	if keep == 0 {
		keep = -1 // for ever
	}
	if f.snapshots <= 0 {
		return server.Config{}, fmt.Errorf("--snapshots %v: must be a time, such as 3s", f.snapshots)
	}
	if f.kills < 0 || f.restarts < 0 {
		return server.Config{}, fmt.Errorf("--trial-kills %v, --trial-restarts %v: must not be negative", f.kills, f.restarts)
	}
	trial := server.Trial{Kills: f.kills, Restarts: local.Restarts{Every: f.restarts}}
	if f.kills > 0 {
		trial.Attempts = manyAttempts
	}
	if f.restarts > 0 {
		trial.Plan.Streaming = true // or it would be few jobs that could begin again
	}
	return server.Config{
		Trial:         trial,
		SnapshotEvery: f.snapshots,
		Data:          f.data, Staging: f.staging, Memory: memory, WorkerMemory: worker, Keep: keep, Parallelism: f.parallelism,
		Engine: f.engine, Flink: f.flink, Version: f.Version,
	}, nil
}

// manyAttempts is for bundles whose harnesses are killed on purpose.
const manyAttempts = 100

// size reads a number of bytes.
func size(flag, text string) (int64, error) {
	n, err := humanize.ParseBytes(text)
	if err != nil || n == 0 || n > math.MaxInt64 {
		return 0, fmt.Errorf("%s %q: must be a size, such as 512MiB or 4GB", flag, text)
	}
	return int64(n), nil
}

// duration reads a number of days (30d), or what Go takes for a duration (12h30m).
func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d < 0 {
		return 0, errors.New("must be a time, such as 30d or 12h; 0 is for ever")
	}
	return d, nil
}
