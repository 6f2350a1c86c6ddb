package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/internal/job"
	"trestle/test/cluster"
	"trestle/test/cluster/flink"
)

const (
	// repeats is how often the text is in the input of jobs that something happens to: they are to last.
	repeats = 8
	// longest is how often at most, when a job was over too soon and is run again with twice the text.
	longest = 64
)

// fault is something that happens to a job while it runs.
type fault struct {
	name string
	// strike does it, when both TaskManagers are at work on the job.
	strike func(ctx context.Context, r *rig, s *server, j flink.Job) error
	// fails is set where the job is not to succeed, to the state that it ends in.
	fails jobpb.JobState_Enum
	// job is what it happens to, where that is not Go's in processes.
	job cell
	// parts is set where the client cannot see the end: its connection is lost.
	parts bool
	// swept is set where nobody is left on the host to clean up: what is left there is the next job's worker's to remove, so
	// one more job runs before anybody looks.
	swept bool
}

var faults = []fault{
	// The JVM alone dies: its worker is to notice, end its harnesses and clean up behind itself, while no other worker is near.
	{name: "taskmanager", strike: func(ctx context.Context, r *rig, _ *server, _ flink.Job) error {
		h := r.taskManagers()[0]
		if err := r.flink.TaskManager(h).KillAlone(); err != nil {
			return err
		}
		if err := r.workersGone(ctx, h); err != nil {
			return err
		}
		return r.flink.StartTaskManager(h)
	}},
	// The JVM, its worker and the harnesses die at once, as when a pod is killed that keeps its disk.
	{name: "pod", swept: true, strike: func(_ context.Context, r *rig, _ *server, _ flink.Job) error {
		h := r.taskManagers()[0]
		if err := r.flink.TaskManager(h).Kill(); err != nil {
			return err
		}
		return r.flink.StartTaskManager(h)
	}},
	{name: "worker", strike: killWorker},
	// It does not die: its heartbeat is to be missed.
	{name: "worker-hangs", strike: stopWorker},
	{name: "harness", strike: killHarness},
	{name: "python-worker", job: of("python", inProcess, onS3, onS3), strike: killWorker},
	{name: "python-harness", job: of("python", inProcess, onS3, onS3), strike: killHarness},
	{name: "container-worker", job: of("go", inDocker, onS3, onS3), strike: killWorker},
	{name: "container-harness", job: of("go", inDocker, onS3, onS3), strike: killHarness},
	{name: "host", swept: true, strike: func(ctx context.Context, r *rig, _ *server, _ flink.Job) error {
		h := r.taskManagers()[1]
		if err := h.Crash(); err != nil {
			return err
		}
		delete(r.engines, h.Name) // it went with the host
		if err := h.Boot(ctx); err != nil {
			return err
		}
		return r.flink.StartTaskManager(h)
	}},
	{name: "server", parts: true, strike: restartServer},
	{name: "cancel", fails: jobpb.JobState_CANCELLED, strike: func(ctx context.Context, _ *rig, s *server, _ flink.Job) error {
		return s.jobs(ctx, func(client jobpb.JobServiceClient, running *jobpb.JobInfo) error {
			_, err := client.Cancel(ctx, &jobpb.CancelJobRequest{JobId: running.GetJobId()})
			return err
		})
	}},
	{name: "cancel-in-flink", fails: jobpb.JobState_CANCELLED, strike: func(ctx context.Context, r *rig, _ *server, j flink.Job) error {
		return r.flink.Cancel(ctx, j.ID)
	}},
}

// orphansTime is how long a worker may take to end after its TaskManager was killed: its harnesses get some seconds to end in
// order, and it has files to remove.
const orphansTime = 30 * time.Second

// workersGone waits until no worker or harness of a killed TaskManager is on its host.
func (r *rig) workersGone(ctx context.Context, h *cluster.Host) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, orphansTime, errors.New("its TaskManager is dead, and they go on"))
	defer cancel()
	var left []cluster.Found
	err := await(ctx, func() (bool, error) {
		left = left[:0]
		for _, part := range []string{"--scratch", "--control_endpoint"} {
			found, err := h.Find(part)
			if err != nil {
				return false, err
			}
			left = append(left, found...)
		}
		return len(left) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("on %s are %v: %w", h.Name, left, err)
	}
	fmt.Printf("    the worker on %s was gone %.1f s after its TaskManager\n", h.Name, time.Since(began).Seconds())
	return nil
}

func killWorker(ctx context.Context, r *rig, _ *server, j flink.Job) error {
	h := r.taskManagers()[1]
	found, err := h.Find("trestle", "worker", "--scratch")
	return errors.Join(err, r.strikeAtWork(ctx, h, "worker", found, j, cluster.Found.Kill))
}

func stopWorker(ctx context.Context, r *rig, _ *server, j flink.Job) error {
	h := r.taskManagers()[1]
	found, err := h.Find("trestle", "worker", "--scratch")
	return errors.Join(err, r.strikeAtWork(ctx, h, "worker", found, j, func(p cluster.Found) error { return syscall.Kill(p.PID, syscall.SIGSTOP) }))
}

func killHarness(ctx context.Context, r *rig, _ *server, j flink.Job) error {
	h := r.taskManagers()[0]
	found, err := harnesses(h)
	return errors.Join(err, r.strikeAtWork(ctx, h, "harness", found, j, cluster.Found.Kill))
}

// harnesses are those on a host, without what makes and keeps containers of some, which has the same arguments.
func harnesses(h *cluster.Host) ([]cluster.Found, error) {
	found, err := h.Find("--control_endpoint")
	return slices.DeleteFunc(found, keepsContainer), err
}

// keepsContainer tells whether a process is a command line that makes a container, or a worker's shell around it: what is run has
// the label of the container's owner among its arguments.
func keepsContainer(p cluster.Found) bool {
	return strings.Contains(p.Command, "--label=trestle.owner=")
}

// errMissed is the error of a fault that has not happened to its job, because the job was over by then.
var errMissed = errors.New("the job was over before anything could happen to it")

// strikeAtWork does something to the first of these processes on a host, and makes sure that the job was not over by then.
func (r *rig) strikeAtWork(ctx context.Context, h *cluster.Host, what string, found []cluster.Found, j flink.Job, strike func(cluster.Found) error) error {
	var failure error
	if len(found) > 0 {
		failure = strike(found[0])
	} else {
		all, err := h.Processes()
		failure = errors.Join(fmt.Errorf("no %s is on %s, but %v", what, h.Name, all), err)
	}
	jobs, err := r.flink.Jobs(ctx) // what it says of one job may be some seconds old
	for _, now := range jobs {
		if now.ID == j.ID && now.Ended() {
			return fmt.Errorf("%w: Flink's job is %s", errMissed, now.State)
		}
	}
	return errors.Join(failure, err)
}

// jobs calls f with the one job that has not ended; it is an error when there is not one.
func (s *server) jobs(ctx context.Context, f func(jobpb.JobServiceClient, *jobpb.JobInfo) error) (err error) {
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := jobpb.NewJobServiceClient(conn)
	all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
	if err != nil {
		return err
	}
	var last *jobpb.JobInfo
	for _, info := range all.GetJobInfo() {
		if job.Terminal(info.GetState()) {
			continue
		}
		if last != nil {
			return fmt.Errorf("two jobs are running: %s and %s", last.GetJobName(), info.GetJobName())
		}
		last = info
	}
	if last == nil {
		return fmt.Errorf("%w: %v", errNoJob, all.GetJobInfo())
	}
	return f(client, last)
}

var errNoJob = errors.New("no job is running")

// killed kills the server, and starts it again.
func (s *server) killed(ctx context.Context) error {
	again, err := s.Restart()
	if err != nil {
		return err
	}
	s.Process = again
	return listening(ctx, again, s.address)
}

// state waits for the end of the job that the server got last, by name, and returns its state.
func (s *server) state(ctx context.Context) (state jobpb.JobState_Enum, err error) {
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := jobpb.NewJobServiceClient(conn)
	err = await(ctx, func() (bool, error) {
		all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		if err != nil {
			return false, err
		}
		running := 0
		for _, info := range all.GetJobInfo() {
			if job.Terminal(info.GetState()) {
				state = info.GetState()
			} else {
				running++
			}
		}
		return running == 0, nil
	})
	return state, err
}

// strikes runs every fault on the first version of Flink, each on a job of its own and a server of its own.
func (f *flags) strikes(ctx context.Context) (ok bool, err error) {
	if err := f.absolute(); err != nil {
		return false, err
	}
	home := filepath.SplitList(f.flinks)[0]
	version := strings.TrimPrefix(filepath.Base(home), "flink-")
	if err := f.enlarge(repeats); err != nil {
		return false, err
	}
	c, err := cluster.Start(ctx, f.clusterOptions(version+"-faults"))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := newRig(ctx, f.programs, c, home, []cell{of("go", inProcess, onS3, onS3)})
	if err != nil {
		return false, fmt.Errorf("%w\n%s", err, c.Tails())
	}
	r.repeats = repeats
	var results []result
	for _, v := range append([]visit{r.healthy()}, r.visits()...) {
		if !f.wants(v.name) || v.cut != "" && c.Plain != "" {
			continue
		}
		results = append(results, told(version, v.name, func() result { return r.visit(ctx, v) }))
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	for _, b := range bads {
		if !f.wants(b.name) || b.engines && f.images == "" || b.cut != "" && c.Plain != "" {
			continue
		}
		results = append(results, told(version, "bad job "+b.name, func() result {
			one := r.try(ctx, b)
			one.environment += ", " + b.name
			return one
		}))
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	for _, fault := range faults {
		job := fault.job
		if job == (cell{}) {
			job = of("go", inProcess, onS3, onS3)
		}
		if !f.wants(fault.name) || job.environment == inDocker && f.images == "" {
			continue
		}
		if job.environment == inDocker {
			for _, h := range r.taskManagers() {
				if r.engines[h.Name] != nil {
					continue
				}
				if err := r.loadImage(ctx, h, job.sdk); err != nil {
					return false, err
				}
			}
		}
		results = append(results, told(version, "fault "+fault.name, func() result {
			one := r.suffer(ctx, job, fault)
			one.environment += ", " + fault.name
			return one
		}))
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	for _, fault := range struckYoung {
		if !f.wants(fault.name) {
			continue
		}
		results = append(results, told(version, "fault "+fault.name, func() result {
			one := r.strikeEarly(ctx, fault)
			one.environment += ", " + fault.name
			return one
		}))
	}
	return report(results), nil
}

// told runs what happens to a cluster of a version of Flink, and says how it goes.
func told(version, what string, run func() result) result {
	fmt.Printf("Flink %s: %s …\n", version, what)
	one := run()
	one.version = version
	if one.err != nil {
		fmt.Printf("Flink %s: %s failed after %.1f s: %v\n", version, what, one.took.Seconds(), one.err)
	}
	return one
}

// enlarge makes a text of which counting lasts.
func (f *flags) enlarge(times int) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(f.text)
	if err != nil {
		return err
	}
	f.text = filepath.Join(f.dir, "large.txt")
	return os.WriteFile(f.text, []byte(strings.Repeat(string(text), times)), 0o644)
}

// suffer runs a job, lets the fault strike while it is at work, and looks at what became of it. When the job is over before that, it
// is run again on more text, which the faults that follow have as well.
func (r *rig) suffer(ctx context.Context, job cell, fault fault) (one result) {
	for n := 1; ; n++ {
		name := fault.name
		if n > 1 {
			name += fmt.Sprint("-", n)
		}
		one = r.sufferAs(ctx, job, fault, name)
		if !errors.Is(one.err, errMissed) || r.repeats >= longest {
			return one
		}
		r.repeats *= 2
		fmt.Printf("    %v; again, with the text %d times\n", errMissed, r.repeats)
		if err := r.double(ctx); err != nil {
			one.err = errors.Join(one.err, err)
			return one
		}
	}
}

// hidden is an error without what errors.Is finds in it: that of a job that has left something behind must not be taken for errMissed.
func hidden(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(err.Error())
}

// double doubles the text that is counted.
func (r *rig) double(ctx context.Context) error {
	text, err := os.ReadFile(r.text)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.text, append(text, text...), 0o644); err != nil {
		return err
	}
	return r.s3.Put(ctx, r.text, inputPath)
}

// sufferAs is suffer once, under a name that tells it from other tries.
func (r *rig) sufferAs(ctx context.Context, job cell, fault fault, name string) (one result) {
	one.cell = job
	one.mark = name
	ctx, cancel := context.WithTimeoutCause(ctx, cellTimeout, fmt.Errorf("it took longer than %v", cellTimeout))
	defer cancel()
	known, err := r.flink.Jobs(ctx)
	if err != nil {
		one.err = err
		return one
	}
	s, err := r.serve(ctx, job.staging, name)
	if err != nil {
		one.err = err
		return one
	}
	start := time.Now()
	one.err = r.struck(ctx, s, fault, known, &one)
	one.took = time.Since(start)
	if left := r.cancelled(ctx, known); left != nil {
		one.err = errors.Join(hidden(one.err), left)
	}
	if one.err != nil && r.cluster.Plain == "" {
		one.err = fmt.Errorf("%w\nthe server's log is %s", one.err, s.Log)
	}
	one.err = errors.Join(one.err, s.Stop())
	return one
}

// cancelled cancels Flink's jobs that are not known and go on, and waits for their end, even if ctx has ended: a job that hangs would
// keep the slots that the next one wants. An error says which there were, since none is to be left.
func (r *rig) cancelled(ctx context.Context, known []flink.Job) error {
	return r.cancelAll(ctx, func(ctx context.Context) ([]flink.Job, error) { return r.fresh(ctx, known) })
}

// cancelAll is the same of the jobs that left finds.
func (r *rig) cancelAll(ctx context.Context, left func(context.Context) ([]flink.Job, error)) (err error) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), cluster.Patience, errors.New("the job does not end in Flink"))
	defer cancel()
	told := map[string]bool{}
	failure := await(ctx, func() (bool, error) {
		all, failure := left(ctx)
		over := true
		for _, j := range all {
			if j.Ended() {
				continue
			}
			over = false
			if !told[j.ID] {
				told[j.ID] = true
				err = errors.Join(err, fmt.Errorf("job %s of Flink was left %s, and is cancelled", j.ID, j.State), r.flink.Cancel(ctx, j.ID))
			}
		}
		return over, failure
	})
	return errors.Join(err, failure)
}

func (r *rig) struck(ctx context.Context, s *server, fault fault, known []flink.Job, one *result) error {
	before, err := r.look(ctx)
	if err != nil {
		return err
	}
	command, words, err := r.command(one.cell, s.endpoint)
	if err != nil {
		return err
	}
	client, err := r.cluster.Host(jobServer).Start(command)
	if err != nil {
		return err
	}
	j, err := r.atWork(ctx, known, client)
	if err == nil {
		err = fault.strike(ctx, r, s, j)
	}
	if errors.Is(err, errMissed) {
		if left := errors.Join(client.Kill(), r.nothingLeft(ctx, before)); left != nil {
			return errors.Join(hidden(err), left)
		}
		return err
	}
	if err != nil {
		return errors.Join(fmt.Errorf("fault %s: %w", fault.name, err), client.Kill())
	}
	select {
	case <-client.Ended():
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), client.Kill())
	}
	state, err := s.state(ctx)
	if err != nil {
		return err
	}
	want := jobpb.JobState_DONE
	if fault.fails != 0 {
		want = fault.fails
	}
	if state != want {
		return fmt.Errorf("the job is %v, not %v: %w", state, want, r.why(ctx, known))
	}
	// That a job was cancelled is no failure to Beam's Go client.
	if client.Err() != nil && want == jobpb.JobState_DONE && !fault.parts {
		return fmt.Errorf("the job is %v, and its program ended with %w; its log is %s", state, client.Err(), client.Log)
	}
	if want == jobpb.JobState_DONE {
		if one.got, err = r.exact(ctx, one.cell, words); err != nil {
			return err
		}
	}
	if one.work, err = r.flink.WorkByHost(ctx, j.ID); err != nil {
		return err
	}
	if err := r.flink.Await(ctx); err != nil {
		return err
	}
	if fault.swept {
		next := one.cell
		next.mark += "-next"
		if ran := r.runCell(ctx, next, s, before); ran.err != nil {
			return fmt.Errorf("the job after it: %w", ran.err)
		}
	}
	wait := cluster.Patience
	if fault.fails == jobpb.JobState_CANCELLED {
		wait += idleWorker
	}
	return r.nothingLeftIn(ctx, before, wait)
}

// atWork waits until a job that was not known runs, with harnesses on both TaskManagers' hosts.
func (r *rig) atWork(ctx context.Context, known []flink.Job, client *cluster.Process) (job flink.Job, err error) {
	err = await(ctx, func() (bool, error) {
		fresh, err := r.fresh(ctx, known)
		if err != nil {
			return false, err
		}
		if !client.Running() && client.Err() != nil {
			return false, fmt.Errorf("the program ended before anything could happen to it: %w; its log is %s", client.Err(), client.Log)
		}
		if !client.Running() || len(fresh) > 0 && fresh[0].State == "FINISHED" {
			return false, fmt.Errorf("%w; its program's log is %s", errMissed, client.Log)
		}
		if len(fresh) == 0 || fresh[0].State != "RUNNING" {
			return false, nil
		}
		job = fresh[0]
		for _, h := range r.taskManagers() {
			found, err := harnesses(h)
			if err != nil || len(found) == 0 {
				return false, err
			}
		}
		return true, nil
	})
	return job, err
}
