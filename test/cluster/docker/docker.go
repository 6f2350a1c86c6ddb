// Package docker runs a real Docker engine on a host of a test cluster: each host has its own, as hosts do.
package docker

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"trestle/test/cluster"
)

// Engine is a Docker engine that runs.
type Engine struct {
	// Process is dockerd.
	Process *cluster.Process

	host   *cluster.Host
	socket string
}

// Missing says which of the programs is not on this machine that an engine needs; "" when all are.
func Missing() string {
	for _, tool := range []string{"docker", "dockerd"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool
		}
	}
	return ""
}

// Start starts the engine and waits until it answers. On an isolated host it listens where clients look first; on a plain
// one, clients need Env. Containers have the host's network.
func Start(ctx context.Context, h *cluster.Host) (*Engine, error) {
	run := "/run"
	if h.Cluster().Plain != "" {
		// A socket's path has 107 bytes at most, which a folder of a test may leave none of.
		var err error
		if run, err = os.MkdirTemp("/tmp", "docker"); err != nil {
			return nil, err
		}
	}
	e := &Engine{host: h, socket: filepath.Join(run, "docker.sock")}
	var err error
	e.Process, err = h.Start(cluster.Command{Name: "dockerd", Argv: []string{"dockerd", "-H", "unix://" + e.socket,
		"--data-root", filepath.Join(h.Far(), "docker"), "--exec-root", filepath.Join(run, "docker"), "--pidfile", filepath.Join(run, "docker.pid"),
		"--cgroup-parent", h.Cluster().CgroupParent(),
		// The host's network is left alone.
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"}})
	if err != nil {
		return nil, err
	}
	const patience = 5 * time.Minute // on a machine that others keep busy; one that ends is noticed at once
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("dockerd on host %s did not answer within %v; its log is %s", h.Name, patience, e.Process.Log))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := e.Run(ctx, "version"); err == nil {
			return e, nil
		}
		select {
		case <-tick.C:
		case <-e.Process.Ended():
			return nil, fmt.Errorf("dockerd on host %s ended (%w); its log is %s", h.Name, e.Process.Err(), e.Process.Log)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Env is what a client on the host needs in its environment to find the engine.
func (e *Engine) Env() []string { return []string{"DOCKER_HOST=unix://" + e.socket} }

// Run runs the docker command on the host and returns what it printed.
func (e *Engine) Run(ctx context.Context, arguments ...string) (string, error) {
	out, err := e.host.Run(ctx, cluster.Command{Name: "docker", Argv: append([]string{"docker"}, arguments...), Env: e.Env()})
	return strings.TrimSpace(out), err
}

// Import makes an image of a tar file of a root folder, by a script that knows how (test/containers/images.sh).
func (e *Engine) Import(ctx context.Context, script, sdk, tar, image string) error {
	_, err := e.host.Run(ctx, cluster.Command{Name: "import-" + sdk, Argv: []string{script, "import", sdk, tar, image}, Env: e.Env()})
	return err
}

// Containers are all containers that the engine knows, ended ones included, one a line: image, name, status.
func (e *Engine) Containers(ctx context.Context) ([]string, error) {
	out, err := e.Run(ctx, "ps", "--all", "--format", "{{.Image}} {{.Names}} {{.Status}}")
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' }), err
}
