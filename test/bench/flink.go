package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
)

// flinkParallelism fills the TaskManager's slots, and the machine's cores.
const flinkParallelism = "--parallelism=2"

// flinkMemory is what each TaskManager has. Beam's runner takes 16 MB of network memory for each partition of an exchange,
// sorts in managed memory, and needs the metaspace for the classes of 150 MB of jars, anew with each job.
var flinkMemory = flink.Memory{TaskHeap: 512, Network: 256, Managed: 128, Metaspace: 256}

// flinkConfig is Flink's own, where clusters of other tests are more alert than Flink is by default.
var flinkConfig = map[string]string{
	"heartbeat.interval":              "10000",
	"heartbeat.timeout":               "50000",
	"metrics.fetcher.update-interval": "10000",
	"web.refresh-interval":            "3000",
}

// watchEvery is how often the workers' memory is looked at.
const watchEvery = 20 * time.Millisecond

// flinkRig is a Flink cluster on this machine, of a JobManager and one TaskManager of two slots: on more of these, Beam's
// runner fails with a LOOPBACK harness of the Go SDK ("worker with ID 1-1 already exists"). All methods do nothing on a nil one.
type flinkRig struct {
	cluster      *cluster.Cluster
	flink        *flink.Flink
	taskManagers []int // process ids
	jobs         []string

	stopWatching func() map[int]float64
}

// startFlink starts a fresh cluster: what a JVM has taken of memory it keeps. It is nil when nothing runs on Flink.
func (f *flags) startFlink(ctx context.Context, name string) (rig *flinkRig, err error) {
	if f.flink == "" {
		return nil, nil
	}
	// Plain hosts: in LOOPBACK environments, harnesses listen on this machine's localhost.
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(f.dir, "cluster"), Hosts: []string{"jobmanager", "taskmanager"}, Plain: true})
	if err != nil {
		return nil, err
	}
	rig = &flinkRig{cluster: c}
	o := flink.Options{Home: f.flink, JobManager: c.Hosts[0], TaskManagers: c.Hosts[1:], Slots: 2, Memory: flinkMemory, Config: flinkConfig}
	if rig.flink, err = flink.Start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), c.Close())
	}
	for _, h := range o.TaskManagers {
		rig.taskManagers = append(rig.taskManagers, rig.flink.TaskManager(h).PID)
	}
	return rig, nil
}

func (rig *flinkRig) url() string {
	if rig == nil {
		return ""
	}
	return rig.flink.URL()
}

// stop ends the cluster.
func (rig *flinkRig) stop() error {
	if rig == nil {
		return nil
	}
	if rig.stopWatching != nil {
		rig.stopWatching()
	}
	return rig.cluster.Close()
}

// beamServer is the command line of the job server of Beam's own runner, and where it will listen.
func (f *flags) beamServer(flinkURL string) (argv []string, endpoint string, err error) {
	var ports [2]string
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, "", err
		}
	}
	argv = []string{"java", "-Xmx1g", "-Djava.io.tmpdir=" + filepath.Join(f.dir, "tmp")}
	for _, name := range []string{"java.lang", "java.lang.reflect", "java.util", "java.nio", "java.net", "java.time"} {
		argv = append(argv, "--add-opens=java.base/"+name+"=ALL-UNNAMED")
	}
	return append(argv, "-cp", filepath.Join(f.beamFlink, "lib", "*"), "org.apache.beam.runners.flink.FlinkJobServerDriver",
		"--job-host=127.0.0.1", "--job-port="+ports[0], "--artifact-port="+ports[1], "--expansion-port=-1",
		"--flink-master="+strings.TrimPrefix(flinkURL, "http://"), "--artifacts-dir="+filepath.Join(f.dir, "tmp")), "127.0.0.1:" + ports[0], nil
}

// warm runs a tiny job: the measured one is to be no cluster's first. From now on, peaks of memory are those of the job to
// come.
func (f *flags) warm(ctx context.Context, rig *flinkRig, peer, endpoint, name string) error {
	if rig == nil {
		return nil
	}
	argv, err := f.command(benchCase{name: "warm", kind: shaped, shape: "tiny", repeat: 1}, peer, endpoint, "")
	if err != nil {
		return err
	}
	if _, err := f.client(ctx, argv, filepath.Join(f.dir, "log", name+"-warm.log"), &result{}); err != nil {
		return fmt.Errorf("the tiny job before it: %w", err)
	}
	if err := rig.awaitWorkers(ctx); err != nil {
		return err
	}
	if rig.jobs, err = jobsAt(ctx, endpoint); err != nil {
		return err
	}
	for _, pid := range rig.taskManagers {
		// proc(5): 5 resets the peak of the resident set to its present size.
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	rig.stopWatching = watchPeaks(rig.taskManagers)
	return nil
}

// finish waits until the job's workers have ended, and tells what only the cluster knows of the job.
func (rig *flinkRig) finish(ctx context.Context, endpoint string, r *result) error {
	if rig == nil {
		return nil
	}
	if err := rig.awaitWorkers(ctx); err != nil {
		return err
	}
	if err := rig.remember(r); err != nil {
		return err
	}
	asked, err := rig.asked(ctx, endpoint)
	if err != nil {
		return err
	}
	jobs, err := rig.flink.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		first, err := rig.flink.FirstRunning(ctx, j.ID)
		if err != nil {
			return err
		}
		if first.After(asked) { // it is not the one before
			r.RunningSeconds = first.Sub(asked).Seconds()
			return nil
		}
	}
	return fmt.Errorf("Flink ran no job since %v", asked) //nolint:staticcheck // a name
}

// remember tells how much memory the job took, done or not.
func (rig *flinkRig) remember(r *result) error {
	if rig == nil {
		return nil
	}
	for _, mb := range rig.stopWatching() {
		r.WorkersPeakMB += mb
	}
	for _, pid := range rig.taskManagers {
		mb, err := memory(pid, "VmHWM")
		if err != nil {
			return err
		}
		r.TaskManagersPeakMB += mb
	}
	return nil
}

// asked is when the job server was told to run the measured job, by what it says itself.
func (rig *flinkRig) asked(ctx context.Context, endpoint string) (at time.Time, err error) {
	err = withJobs(endpoint, func(client jobpb.JobServiceClient) error {
		ids, err := jobsAt(ctx, endpoint)
		if err != nil {
			return err
		}
		ids = slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(rig.jobs, id) })
		if len(ids) != 1 {
			return fmt.Errorf("the server has %d new jobs", len(ids))
		}
		states, err := client.GetStateStream(ctx, &jobpb.GetJobStateRequest{JobId: ids[0]})
		if err != nil {
			return err
		}
		for {
			s, err := states.Recv()
			if err != nil {
				return fmt.Errorf("the job %s never started: %w", ids[0], err)
			}
			if s.GetState() == jobpb.JobState_STARTING {
				at = s.GetTimestamp().AsTime()
				return nil
			}
		}
	})
	return at, err
}

// jobsAt are the ids of a server's jobs.
func jobsAt(ctx context.Context, endpoint string) (ids []string, err error) {
	err = withJobs(endpoint, func(client jobpb.JobServiceClient) error {
		answer, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		for _, j := range answer.GetJobInfo() {
			ids = append(ids, j.GetJobId())
		}
		return err
	})
	return ids, err
}

func withJobs(endpoint string, do func(jobpb.JobServiceClient) error) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	return errors.Join(do(jobpb.NewJobServiceClient(conn)), conn.Close())
}

// sample adds what the cluster has used up so far; of the workers, those that have ended.
func (rig *flinkRig) sample(u *usage) (err error) {
	if rig == nil {
		return nil
	}
	if u.jobManager, err = cpuOf(rig.flink.JobManager().PID); err != nil {
		return err
	}
	for _, pid := range rig.taskManagers {
		one, err := cpuOf(pid)
		if err != nil {
			return err
		}
		u.taskManagers.own += one.own
		u.taskManagers.children += one.children
	}
	return nil
}

// awaitWorkers waits until the TaskManagers have no children any more: only then do they know what these have used.
func (rig *flinkRig) awaitWorkers(ctx context.Context) error {
	again := time.NewTicker(watchEvery)
	defer again.Stop()
	for {
		left, err := childrenOf(rig.taskManagers)
		if err != nil || len(left) == 0 {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the workers %v did not end with their job: %w", left, context.Cause(ctx))
		}
	}
}

// watchPeaks notes the peaks of memory, in MB, of all children that the processes have or start, until stop, which may be called
// again, returns them by process id.
func watchPeaks(parents []int) (stop func() map[int]float64) {
	peaks, end, done := map[int]float64{}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		again := time.NewTicker(watchEvery)
		defer again.Stop()
		for {
			children, _ := childrenOf(parents) // a parent that is gone fails the run elsewhere
			for _, pid := range children {
				if mb, err := memory(pid, "VmHWM"); err == nil { // else it has just ended
					peaks[pid] = max(peaks[pid], mb)
				}
			}
			select {
			case <-again.C:
			case <-end:
				return
			}
		}
	}()
	once := sync.OnceFunc(func() { close(end) })
	return func() map[int]float64 {
		once()
		<-done
		return peaks
	}
}

// childrenOf lists the children of processes, whichever thread has started them.
func childrenOf(parents []int) (pids []int, err error) {
	for _, parent := range parents {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
		if err != nil {
			return nil, err
		}
		if len(lists) == 0 {
			return nil, fmt.Errorf("the process %d has ended", parent)
		}
		for _, list := range lists {
			text, err := os.ReadFile(list)
			if err != nil {
				continue // the thread has ended, and its children are another's
			}
			for _, field := range strings.Fields(string(text)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", list, err)
				}
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}
