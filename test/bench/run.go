package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// runOne runs a case once on a fresh server of a peer.
func (f *flags) runOne(ctx context.Context, c benchCase, peer string, round int) result {
	r := result{Date: time.Now().UTC().Format(time.RFC3339), Case: c.name, Peer: peer, Round: round, Records: c.records}
	if err := f.measure(ctx, c, &r); err != nil {
		r.Error, r.timedOut = err.Error(), errors.Is(err, errTimeout)
	}
	return r
}

var errTimeout = errors.New("it took too long")

func (f *flags) measure(ctx context.Context, c benchCase, r *result) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("%w: more than %v", errTimeout, f.timeout))
	defer cancel()
	name := fmt.Sprintf("%s-%s-%d", c.name, r.Peer, r.Round)
	output := filepath.Join(f.dir, "out", name)
	fl, err := f.startFlink(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fl.stop()) }()
	s, err := f.serve(ctx, c, r.Peer, filepath.Join(f.dir, "log", name+"-server.log"), fl.url())
	if err != nil {
		return err
	}
	var endpoint string
	if s != nil {
		defer func() { err = errors.Join(err, s.stop()) }()
		endpoint, r.UpSeconds = s.endpoint, s.up.Seconds()
		if r.ServerIdleMB, err = memory(s.pid(), "VmRSS"); err != nil {
			return err
		}
	}
	argv, err := f.command(c, r.Peer, endpoint, output)
	if err != nil {
		return err
	}
	if err := f.warm(ctx, fl, r.Peer, endpoint, name); err != nil {
		return err
	}
	if r.Load, err = load(); err != nil {
		return err
	}
	before, err := sample(s, fl)
	if err != nil {
		return err
	}
	stdout, err := f.client(ctx, argv, filepath.Join(f.dir, "log", name+".log"), r)
	if err != nil {
		return errors.Join(err, fl.remember(r))
	}
	if err := fl.finish(ctx, endpoint, r); err != nil {
		return err
	}
	after, err := sample(s, fl)
	if err != nil {
		return err
	}
	r.charge(before, after)
	if c.kind == shaped {
		var measured struct {
			Seconds float64
			Latency *latency
		}
		if err := json.Unmarshal(stdout, &measured); err != nil {
			return fmt.Errorf("what the pipeline printed: %w", err)
		}
		r.RunSeconds, r.Latency = measured.Seconds, measured.Latency
	}
	if c.kind == goWordCount || c.kind == pythonWordCount {
		if r.Words, err = countLines(output); err != nil {
			return err
		}
		if r.Words == 0 {
			return errors.New("it counted no word")
		}
	}
	return nil
}

// client runs the client to its end.
func (f *flags) client(ctx context.Context, argv []string, log string, r *result) (stdout []byte, err error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var kept bytes.Buffer
	cmd := f.inGroup(ctx, argv)
	cmd.Stdout, cmd.Stderr = &kept, file
	start := time.Now()
	err = cmd.Run()
	r.WallSeconds = time.Since(start).Seconds()
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return nil, fmt.Errorf("%w; its log is %s", err, filepath.Base(log))
	}
	r.ClientCPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return kept.Bytes(), nil
}

// usage is what a server, a Flink and the machine have used up so far.
type usage struct {
	cpu
	machine, peak            float64
	jobManager, taskManagers cpu
}

// sample reads the usage of a server and a Flink, which may be nil.
func sample(s *server, fl *flinkRig) (u usage, err error) {
	if u.machine, err = busy(); err != nil {
		return u, err
	}
	if err := fl.sample(&u); err != nil || s == nil {
		return u, err
	}
	if u.cpu, err = cpuOf(s.pid()); err != nil {
		return u, err
	}
	u.peak, err = memory(s.pid(), "VmHWM")
	return u, err
}

// charge is what the run has used up between two samples; the client's part it has.
func (r *result) charge(before, after usage) {
	r.ServerCPU, r.ServerPeakMB = after.own-before.own, after.peak
	r.JobManagerCPU = after.jobManager.own - before.jobManager.own
	r.TaskManagersCPU = after.taskManagers.own - before.taskManagers.own
	r.WorkersCPU = after.children - before.children + after.taskManagers.children - before.taskManagers.children
	r.OthersCPU = max(0, after.machine-before.machine-r.ServerCPU-r.JobManagerCPU-r.TaskManagersCPU-r.WorkersCPU-r.ClientCPU)
}

// load is the machine's load average over the last minute.
func load() (average float64, err error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(text), &average)
	return average, err
}

// countLines counts the lines of all files whose names begin with prefix, and removes them.
func countLines(prefix string) (n int64, err error) {
	files, err := filepath.Glob(prefix + "*")
	if err != nil {
		return 0, err
	}
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			return 0, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) != "" {
				n++
			}
		}
		file.Close()
		if err := errors.Join(lines.Err(), os.Remove(path)); err != nil {
			return 0, err
		}
	}
	return n, nil
}
