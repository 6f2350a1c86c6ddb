package server

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"trestle/internal/engine"
	"trestle/internal/engine/flink"
	"trestle/internal/engine/local"
	"trestle/internal/job/submission"
	"trestle/internal/store/blob"
)

// engines are the server's, the one for jobs that name none first.
func (s *Server) engines(running string) ([]engine.Engine, error) {
	cfg := s.cfg
	s.local = local.New(local.Config{
		Fn:            s.fn,
		Endpoint:      s.endpoint,
		Containers:    cfg.Containers,
		Dir:           running,
		Snapshots:     filepath.Join(cfg.Data, "snapshots"),
		SnapshotEvery: cfg.SnapshotEvery,
		Memory:        s.memory,
		Parallelism:   cfg.Parallelism,
		BundleBytes:   cfg.Trial.BundleBytes,
		Attempts:      cfg.Trial.Attempts,
		Files:         cfg.Trial.Files,
		Restarts:      cfg.Trial.Restarts,
		Kills:         cfg.Trial.Kills,
		Log:           cfg.Log,
	})
	all := []engine.Engine{s.local}
	if cfg.Flink != "" {
		e, err := newFlink(cfg, s.endpoint)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	var names []string
	for i, e := range all {
		if e.Name() == cfg.Engine || cfg.Engine == "" && i == 0 {
			all[0], all[i] = all[i], all[0]
			return all, nil
		}
		names = append(names, e.Name())
	}
	return nil, fmt.Errorf("--engine %q: this server has %s; flink needs --flink as well", cfg.Engine, strings.Join(names, ", "))
}

// newFlink is the engine of the cluster that cfg.Flink names, for a server that others reach at endpoint.
func newFlink(cfg Config, endpoint string) (*flink.Engine, error) {
	artifacts, err := remoteArtifacts(cfg, endpoint)
	if err != nil {
		return nil, err
	}
	containers, err := cfg.Containers.Encode()
	if err != nil {
		return nil, err
	}
	return flink.New(flink.Config{
		Address:     cfg.Flink,
		Version:     cfg.Version,
		Dir:         filepath.Join(cfg.Data, "flink"),
		Artifacts:   artifacts,
		Memory:      cfg.WorkerMemory,
		Containers:  containers,
		BundleBytes: cfg.Trial.BundleBytes,
		Attempts:    cfg.Trial.Attempts,
		Log:         cfg.Log,
	})
}

// remoteArtifacts is where workers on other hosts find artifacts: in the bucket that was named for that, and otherwise at
// the server, by an address that they can reach.
func remoteArtifacts(cfg Config, endpoint string) (submission.Artifacts, error) {
	if cfg.Staging != defaultStaging(cfg.Data) {
		location, err := blob.Portable(cfg.Staging)
		if err != nil {
			return submission.Artifacts{}, fmt.Errorf("artifact store (--staging), for Flink's workers: %w", err)
		}
		return submission.Artifacts{Bucket: location}, nil
	}
	if onThisHostOnly(endpoint) && !onThisHostOnly(urlHost(cfg.Flink)) {
		return submission.Artifacts{}, fmt.Errorf(
			"the Flink at %s cannot fetch artifacts from this server at %s: name a store that both reach (--staging s3://bucket/path), or let the server listen on an address that Flink's hosts reach (--listen 0.0.0.0:8099, --advertise host:8099)",
			cfg.Flink, endpoint)
	}
	return submission.Artifacts{Server: endpoint}, nil
}

func urlHost(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Host
}

// onThisHostOnly tells whether an address, with or without a port, is of the loopback interface.
func onThisHostOnly(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
