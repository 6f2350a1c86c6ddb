package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
)

// engine is what the server runs the suites' jobs on: the embedded one, or a Flink cluster of this machine's.
type engine struct {
	// name is a folder of listed/ with its lists; "" for the embedded one.
	name string
	// bounded says that it runs no streams.
	bounded bool
	// flags are the server's.
	flags []string
	stop  func() error
}

// startEngine starts what the jobs are to run on. The cluster's hosts share this machine's loopback interface: the workers of
// these suites are in the clients (LOOPBACK), which name themselves localhost.
func (f *flags) startEngine(ctx context.Context) (*engine, error) {
	if f.flink == "" {
		return &engine{stop: func() error { return nil }}, nil
	}
	hosts, err := cluster.Start(ctx, cluster.Options{
		Dir: filepath.Join(f.dir, "cluster"), Plain: true, Hosts: []string{"jobmanager", "taskmanager1", "taskmanager2"},
	})
	if err != nil {
		return nil, err
	}
	running, err := flink.Start(ctx, flink.Options{
		Home: f.flink, JobManager: hosts.Host("jobmanager"), TaskManagers: []*cluster.Host{hosts.Host("taskmanager1"), hosts.Host("taskmanager2")},
		Slots: 4, // suites run several jobs at a time
		Config: map[string]string{
			"parallelism.default": "2",
			// Pipelines with many outputs: see docs/flink.md.
			"taskmanager.network.sort-shuffle.min-buffers": "64",
			// Each job's classes, until they are collected.
			"taskmanager.memory.jvm-metaspace.size": "384m",
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Flink: %w", err), hosts.Close())
	}
	return &engine{
		name: "flink", bounded: true,
		flags: []string{"--engine", "flink", "--flink", running.URL()},
		stop:  func() error { return errors.Join(running.Stop(), hosts.Close()) },
	}, nil
}
