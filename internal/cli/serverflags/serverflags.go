// Package serverflags are the flags of every subcommand that starts a server.
package serverflags

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"trestle/internal/server"
)

// Flags are what a person can set of a server.
type Flags struct {
	// Version is the program's; it is no flag.
	Version string

	data, staging, memory string
	engine, flink         string
	parallelism           int
}

// Bind adds the flags to a set.
func (f *Flags) Bind(set *pflag.FlagSet) {
	set.StringVar(&f.data, "data", "", "folder for jobs' histories, artifacts and spill (default: trestle in your cache folder)")
	set.StringVar(&f.staging, "staging", "", "URL of the bucket for staged artifacts: s3://bucket/path, gs://bucket/path, hdfs://namenode:port/path, file:///shared (default: a folder in --data)")
	set.StringVar(&f.memory, "memory", humanize.IBytes(server.DefaultMemory), "how much of all jobs' data is kept in memory before it spills to --data")
	set.StringVar(&f.engine, "engine", "local", "engine of jobs that name none in their pipeline option engine: local, flink")
	set.StringVar(&f.flink, "flink", "", "URL of the REST API of a Flink cluster to run jobs on: http://jobmanager:8081")
	set.IntVar(&f.parallelism, "parallelism", 0, "tasks of a stage on the embedded engine, unless the pipeline says (default: the number of cores)")
}

// Config is the server's configuration as far as the flags tell it.
func (f *Flags) Config() (server.Config, error) {
	memory, err := humanize.ParseBytes(f.memory)
	if err != nil || memory == 0 || memory > math.MaxInt64 {
		return server.Config{}, fmt.Errorf("--memory %q: must be a size, such as 512MiB or 4GB", f.memory)
	}
	if f.parallelism < 0 {
		return server.Config{}, fmt.Errorf("--parallelism %d: must not be negative", f.parallelism)
	}
	return server.Config{
		Data: f.data, Staging: f.staging, Memory: int64(memory), Parallelism: f.parallelism,
		Engine: f.engine, Flink: f.flink, Version: f.Version,
	}, nil
}
