package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"trestle/test/cluster"
	"trestle/test/cluster/docker"
	"trestle/test/cluster/flink"
	"trestle/test/cluster/storage"
	"trestle/test/wordcount/example"
)

// programs is where everything is that hosts run; all paths absolute.
type programs struct {
	trestle, text string
	sdks          example.SDKs
	// hadoop is the folder with Hadoop's jars, gateway the S3 server, shaped a program of pipelines whose output is known, images the folder of SDK images, imports the script that
	// makes images of their files.
	hadoop, gateway, shaped, images, imports string
}

// rig is a cluster with all that the matrix wants.
type rig struct {
	programs
	cluster *cluster.Cluster
	flink   *flink.Flink
	s3      *storage.S3
	hdfs    *storage.HDFS
	// repeats is how often the text that is counted has the original in it, where it was made longer.
	repeats int
	// engines are the container engines of the TaskManagers' hosts.
	engines map[string]*docker.Engine
}

// newRig starts all that these cells need. What it has started when it fails is the caller's to close with the cluster.
func newRig(ctx context.Context, p programs, c *cluster.Cluster, home string, cells []cell) (r *rig, err error) {
	r = &rig{programs: p, cluster: c, engines: map[string]*docker.Engine{}}
	uses := func(f func(cell) bool) bool { return slices.ContainsFunc(cells, f) }
	store := c.Host(storageHost)
	if r.s3, err = storage.StartS3(ctx, store, p.gateway, "trestle"); err != nil {
		return r, err
	}
	if err := r.s3.Put(ctx, p.text, inputPath); err != nil {
		return r, err
	}
	if uses(func(c cell) bool { return c.staging == onHDFS || c.data == onHDFS }) {
		if r.hdfs, err = storage.StartHDFS(ctx, store, p.hadoop); err != nil {
			return r, err
		}
		if err := r.hdfs.Put(ctx, p.text, inputPath); err != nil {
			return r, err
		}
	}
	for _, h := range r.taskManagers() {
		if uses(func(c cell) bool { return c.environment == inExternal }) {
			if err := r.startPool(ctx, h); err != nil {
				return r, err
			}
		}
		for _, sdk := range []string{"go", "python", "java"} {
			if uses(func(c cell) bool { return c.environment == inDocker && c.sdk == sdk }) {
				if err := r.loadImage(ctx, h, sdk); err != nil {
					return r, err
				}
			}
		}
	}
	// Workers beside the TaskManagers read the staging store with credentials out of their environment.
	r.flink, err = flink.Start(ctx, flink.Options{Home: home, JobManager: c.Host(jobManager), TaskManagers: r.taskManagers(),
		// Programs whose SDK has an option for it say the same.
		Env: r.s3.Env(), Config: map[string]string{"parallelism.default": "4"}})
	return r, err
}

func (r *rig) taskManagers() (hosts []*cluster.Host) {
	for _, name := range taskManagers {
		hosts = append(hosts, r.cluster.Host(name))
	}
	return hosts
}

// startPool starts Beam Python's own worker pool on a host. By itself it starts workers that know nothing of a pipeline's
// options, and so of no S3 that is not Amazon's; given a program that keeps Beam's container contract, it starts that.
func (r *rig) startPool(ctx context.Context, h *cluster.Host) error {
	bin := filepath.Join(r.sdks.Python, "bin")
	boot := filepath.Join(h.Dir(), "boot")
	script := fmt.Sprintf("#!/bin/sh\nexec %s boot python --python %s \"$@\"\n", r.trestle, filepath.Join(bin, "python"))
	if err := os.WriteFile(h.Outside(boot), []byte(script), 0o755); err != nil {
		return err
	}
	p, err := h.Start(cluster.Command{Name: "pool", Argv: []string{filepath.Join(bin, "python"), "-m",
		"apache_beam.runners.worker.worker_pool_main", fmt.Sprintf("--service_port=%d", poolPort), "--container_executable=" + boot}})
	if err != nil {
		return err
	}
	return listening(ctx, p, fmt.Sprintf("%v:%d", h.IP, poolPort))
}

// loadImage makes an SDK's image known to the engine on a host, which is started first.
func (r *rig) loadImage(ctx context.Context, h *cluster.Host, sdk string) (err error) {
	e := r.engines[h.Name]
	if e == nil {
		if e, err = docker.Start(ctx, h); err != nil {
			return err
		}
		r.engines[h.Name] = e
	}
	tars, err := filepath.Glob(filepath.Join(r.images, sdk+"-*.tar"))
	if err != nil || len(tars) != 1 {
		return errors.Join(fmt.Errorf("in %q are %d files %s-*.tar, not 1", r.images, len(tars), sdk), err)
	}
	return e.Import(ctx, r.imports, sdk, tars[0], image(sdk))
}

// server is a job server on its host.
type server struct {
	*cluster.Process
	// endpoint is where clients on the hosts find it, and address where this process does.
	endpoint, address string
}

// serve starts a job server that stages artifacts in one way, with data of its own under a name; more are options that win.
func (r *rig) serve(ctx context.Context, staging, name string, more ...string) (*server, error) {
	h := r.cluster.Host(jobServer)
	const port = 8099
	s := &server{endpoint: fmt.Sprintf("%s:%d", h.Address(), port), address: fmt.Sprintf("%v:%d", h.IP, port)}
	argv := []string{r.trestle, "serve", "--engine", "flink", "--flink", r.flink.URL(), "--verbose",
		"--listen", s.address, "--advertise", s.endpoint, "--data", filepath.Join(h.Dir(), "trestle-"+name)}
	for _, variable := range r.s3.Env() { // Go's file system for S3 has no options
		argv = append(argv, "--container-arg=--env="+variable)
	}
	switch staging {
	case onS3:
		argv = append(argv, "--staging", r.s3.URL("staging")+"?endpoint="+r.s3.Endpoint())
	case onHDFS:
		argv = append(argv, "--staging", r.hdfs.URL("staging"))
	}
	argv = append(argv, more...)
	var err error
	if s.Process, err = h.Start(cluster.Command{Name: "trestle-" + name, Argv: argv, Env: r.s3.Env()}); err != nil {
		return nil, err
	}
	return s, listening(ctx, s.Process, s.address)
}

// listening waits until a process takes connections; its end is an error.
func listening(ctx context.Context, p *cluster.Process, address string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cluster.Patience, fmt.Errorf("nothing listens at %s after %v; the log is %s", address, cluster.Patience, p.Log))
	defer cancel()
	return await(ctx, func() (bool, error) {
		if !p.Running() {
			return false, fmt.Errorf("%s ended (%w); its log is %s", strings.Join(p.Command().Argv, " "), p.Err(), p.Log)
		}
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return true, conn.Close()
	})
}

// await asks until the answer is yes, an error, or ctx ends.
func await(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// belongings is what is on the TaskManagers' hosts at one time.
type belongings map[string]bool

// look finds processes, containers and files on the TaskManagers' hosts.
func (r *rig) look(ctx context.Context) (belongings, error) {
	found := belongings{}
	for _, h := range r.taskManagers() {
		processes, err := h.Processes()
		if err != nil {
			return nil, err
		}
		for _, p := range processes {
			if strings.Contains(p.Command, "TaskManagerRunner") {
				continue // Await knows these, and a fault may have exchanged one
			}
			found[fmt.Sprintf("%s: process %d: %.200s", h.Name, p.PID, p.Command)] = true
		}
		files, err := h.Files()
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			relative := strings.TrimPrefix(file, h.Outside(h.Dir())+"/")
			if !flinksOwn(relative) {
				found[h.Name+": file /tmp/"+relative] = true
			}
		}
		if e := r.engines[h.Name]; e != nil {
			containers, err := e.Containers(ctx)
			if err != nil {
				return nil, err
			}
			for _, c := range containers {
				found[h.Name+": container "+c] = true
			}
		}
	}
	return found, nil
}

// flinksOwn says whether a file, by its path below /tmp, is one of those that a TaskManager keeps while it runs, and that one
// leaves which is killed.
func flinksOwn(path string) bool {
	if strings.HasPrefix(path, "hsperfdata_") {
		return true // every JVM's
	}
	// The worker's program stays for the next job, so that it is fetched once.
	if ok, err := filepath.Match("flink/tmp/trestle-????????????????/trestle", path); ok && err == nil {
		return true
	}
	rest, ok := strings.CutPrefix(path, "flink/tmp/")
	if !ok {
		return false
	}
	for _, prefix := range []string{"tm_", "flink-io-", "flink-netty-shuffle-", "flink-dist-cache-", "localState", "liblz4-java-",
		"flink-rpc-akka", "flink-rpc-pekko", "jaas-"} {
		if strings.HasPrefix(rest, prefix) {
			return true
		}
	}
	return false
}

// nothingLeft waits until there is no more on the TaskManagers' hosts than there was, and says what is left after a while:
// a job's end is told before its workers are gone.
func (r *rig) nothingLeft(ctx context.Context, before belongings) error {
	return r.nothingLeftIn(ctx, before, cluster.Patience)
}

// nothingLeftIn is nothingLeft with a limit for what may take longer.
func (r *rig) nothingLeftIn(ctx context.Context, before belongings, limit time.Duration) error {
	var left []string
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := await(wait, func() (bool, error) {
		now, err := r.look(ctx)
		left = left[:0]
		for what := range now {
			if !before[what] {
				left = append(left, what)
			}
		}
		return len(left) == 0, err
	})
	if err != nil && errors.Is(wait.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		slices.Sort(left)
		return fmt.Errorf("left on the TaskManagers' hosts:\n    %s", strings.Join(left, "\n    "))
	}
	return err
}

// environ are variables as a map.
func environ(variables []string) map[string]string {
	m := map[string]string{}
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		m[name] = value
	}
	return m
}
