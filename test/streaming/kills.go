package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	proc "trestle/test/process"
	"trestle/test/streaming/kafka"
)

// What the jobs of kills are given while the server is killed.
const (
	feedEvery  = 200 * time.Millisecond
	feedEach   = 20 // records of each partition
	lateness   = time.Hour
	partitions = 3
	// early is how long a server lives, at most, that is killed as it starts; late how long one lives on that has got on with its jobs.
	early, late = 8 * time.Second, 4 * time.Second
)

// kills kills the server with SIGKILL, again and again, while it runs jobs whose workers are its own processes: two
// count what is written to a topic all the while (Python with KafkaIO in a Java worker, and Java), one polls, and keeps
// totals in state, until it is told to end (Python). Then every count must be exact. What a job writes, outside of
// Beam's hands, may come again after a kill; it must not be another thing then.
func (f *flags) kills(ctx context.Context) error {
	return f.withKafka(ctx, []string{"--snapshots", "1s"}, func(ctx context.Context, b *kafka.Broker, s *proc.Server, expansion string) error {
		ctx, cancel := context.WithCancel(ctx)
		k := &killed{flags: f, b: b, server: s, in: "kills-in", lines: filepath.Join(f.dir, "out", "lines"), ended: make(chan struct{}, len(killedJobs))}
		// Whatever becomes of it, nothing that was started here runs on.
		defer func() {
			cancel()
			for range k.programs {
				<-k.ended
			}
		}()
		err := b.Create(ctx, k.in, partitions, "LogAppendTime")
		for _, name := range killedJobs {
			if err == nil && (f.only == "" || strings.Contains(name, f.only)) {
				k.jobs = append(k.jobs, name)
				err = b.Create(ctx, name, 1, "CreateTime")
			}
		}
		if err != nil {
			return err
		}
		err = k.run(ctx, expansion)
		// withKafka stops the server that it has started, and that must be one that runs.
		*s = *k.server
		return err
	})
}

// killedJobs are the names of the jobs that are run while the server is killed. Those that read the topic write to one of their name.
var killedJobs = []string{"kills-python", "kills-java", pollJob}

const pollJob = "kills-poll"

// killed is a server that is killed, and what it works on.
type killed struct {
	*flags
	b        *kafka.Broker
	server   *proc.Server
	in       string
	lines    string // the file that the job that polls writes to
	jobs     []string
	programs int
	ended    chan struct{}
	// start is when the first poll is due, in Unix seconds; until is the file that ends them.
	start int64
	until string
}

func (k *killed) run(ctx context.Context, expansion string) error {
	if err := k.submit(ctx, expansion); err != nil {
		return err
	}
	feeding, enough := context.WithCancel(ctx)
	fed := make(chan error, 1)
	n := 0
	go func() {
		var err error
		n, err = k.feed(feeding)
		fed <- err
	}()
	err := k.killAll(ctx)
	enough()
	if err = errors.Join(err, <-fed); err != nil {
		return err
	}
	polls := int(time.Until(time.Unix(k.start, 0)).Abs()/pollEvery) + 50
	temporary := k.until + ".new"
	if err := errors.Join(os.WriteFile(temporary, []byte(strconv.Itoa(polls)), 0o644), os.Rename(temporary, k.until)); err != nil {
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("the jobs had not told all %v after the last kill", k.timeout))
	defer cancel()
	var errs []error
	for _, name := range k.jobs {
		if name == pollJob {
			errs = append(errs, k.polled(limit, polls))
		} else {
			errs = append(errs, k.counts(limit, name, n))
		}
	}
	return errors.Join(errs...)
}

// submit starts the jobs, and waits until they run. Their programs end with the first server: they look after its job.
func (k *killed) submit(ctx context.Context, expansion string) error {
	k.start = time.Now().Add(time.Second).Unix()
	k.until = filepath.Join(k.dir, "out", "until")
	for _, name := range k.jobs {
		k.programs++
		argv := k.argv(name, expansion)
		go func() {
			//nolint:errcheck // that the server has gone is what it says, unless no job runs, which is seen below
			proc.Run{Argv: argv, Log: filepath.Join(k.dir, "log", name+".log")}.Do(ctx)
			k.ended <- struct{}{}
		}()
	}
	limit, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("the jobs did not run after %v; their programs' logs are in %s", k.timeout, filepath.Join(k.dir, "log")))
	defer cancel()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		states, err := k.states(limit)
		if err != nil {
			return err
		}
		if len(states) == k.programs && only(states, jobpb.JobState_RUNNING) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-limit.Done():
			return fmt.Errorf("%w: %v", context.Cause(limit), states)
		}
	}
}

// argv is the command of a job's program.
func (k *killed) argv(name, expansion string) []string {
	counts := []string{"--bootstrap=" + k.b.Address, "--topic=" + k.in, "--out=" + name, "--policy=LogAppendTime",
		"--window=" + strconv.Itoa(kafkaWindow), "--lateness=" + strconv.Itoa(int(lateness.Seconds())), "--group=" + name}
	if name == "kills-java" {
		return append([]string{"java", "-Xmx256m", "-cp", filepath.Join(k.java, "classes") + ":" + filepath.Join(k.java, "lib", "*"), "trestle.streaming.Kafka",
			"--jobName=" + name, "--runner=PortableRunner", "--jobEndpoint=" + k.server.Endpoint,
			"--defaultEnvironmentType=PROCESS", `--defaultEnvironmentConfig={"command": "trestle boot java --heap 256m"}`}, counts...)
	}
	python := filepath.Join(k.python, "bin", "python")
	// One worker does for a job's tasks, and starts sooner than two.
	argv := []string{python, filepath.Join(k.source, "python", "kafka.py"), "--job_name=" + name, "--sdk_worker_parallelism=1",
		"--runner=PortableRunner", "--job_endpoint=" + k.server.Endpoint, "--environment_type=PROCESS",
		`--environment_config={"command": "trestle boot python --python ` + python + `"}`}
	if name == pollJob {
		argv[1] = filepath.Join(k.source, "python", "poll.py")
		return append(argv, "--until="+k.until, "--every", fmt.Sprint(pollEvery.Seconds()), "--keys", strconv.Itoa(pollKeys),
			"--window", strconv.Itoa(pollWindow), "--start", strconv.FormatInt(k.start, 10), "--out", k.lines)
	}
	return append(append(argv, counts...), "--expansion_service="+expansion)
}

// states is how the server's jobs are, by id.
func (k *killed) states(ctx context.Context) (map[string]jobpb.JobState_Enum, error) {
	states := map[string]jobpb.JobState_Enum{}
	err := jobs(k.server.Endpoint, func(client jobpb.JobServiceClient) error {
		all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		for _, info := range all.GetJobInfo() {
			states[info.GetJobId()] = info.GetState()
		}
		return err
	})
	return states, err
}

func only(states map[string]jobpb.JobState_Enum, want jobpb.JobState_Enum) bool {
	for _, state := range states {
		if state != want {
			return false
		}
	}
	return true
}

// killAll kills the server as often as it is asked to, and starts it again each time: one time in four at a moment at
// random after its start, when it has hardly begun or is at work, else at one after each job has told something.
func (k *killed) killAll(ctx context.Context) error {
	random := rand.New(rand.NewPCG(k.seed, 2))
	fmt.Printf("seed %d\n", k.seed)
	for i := range k.times {
		began, what := time.Now(), "on its way"
		after := time.Duration(random.Int64N(int64(early)))
		if random.IntN(4) > 0 {
			what = "at work"
			if err := k.progress(ctx); err != nil {
				return fmt.Errorf("before kill %d: %w", i+1, err)
			}
			after = time.Duration(random.Int64N(int64(late)))
		}
		select {
		case <-time.After(after):
		case <-k.server.Ended():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if states, err := k.states(ctx); err != nil || !only(states, jobpb.JobState_RUNNING) {
			return errors.Join(fmt.Errorf("before kill %d the jobs are %v", i+1, states), err)
		}
		if err := k.server.Kill(); err != nil {
			return fmt.Errorf("kill %d: %w", i+1, err)
		}
		fmt.Printf("kill %2d: %s, after %5.1f s\n", i+1, what, time.Since(began).Seconds())
		again, err := k.server.Again(ctx)
		if err != nil {
			return fmt.Errorf("after kill %d: %w", i+1, err)
		}
		k.server = again
	}
	return nil
}

// progress waits until each job has told something more than it has now.
func (k *killed) progress(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("not all jobs have told anything new for %v", k.timeout))
	defer cancel()
	before, err := k.told(ctx)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		now, err := k.told(ctx)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		more := 0
		for name := range now {
			if now[name] > before[name] {
				more++
			}
		}
		if more == len(k.jobs) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-k.server.Ended():
			return errors.New("the server has ended")
		case <-ctx.Done():
			return fmt.Errorf("%w: before %v, now %v", context.Cause(ctx), before, now)
		}
	}
}

// told is how much each job has told: records, or bytes.
func (k *killed) told(ctx context.Context) (map[string]int64, error) {
	all := map[string]int64{}
	for _, name := range k.jobs {
		if name == pollJob {
			if info, err := os.Stat(k.lines); err == nil {
				all[name] = info.Size()
			} else if !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			continue
		}
		n, err := k.b.Len(ctx, name)
		if err != nil {
			return nil, err
		}
		all[name] = n
	}
	return all, nil
}

// feed writes records to the topic until ctx ends; it says how many.
func (k *killed) feed(ctx context.Context) (n int, err error) {
	ticker := time.NewTicker(feedEvery)
	defer ticker.Stop()
	var all []int
	for i := range partitions {
		all = append(all, i)
	}
	for wave := uint64(0); ; wave++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return n, nil
		}
		some := someRecords(k.seed+wave, all, feedEach, 20, time.Time{}, time.Time{})
		// Those of a wave are written whole, or it is an error.
		if err := k.b.Produce(context.WithoutCancel(ctx), k.in, some...); err != nil {
			return n, err
		}
		n += len(some)
	}
}

// counts waits until the topic that a job writes to has told of n records, and looks at each count. A group is
// told again when the server was killed, and with each late record, with all that it has by then: none may be told as more than
// there is, and the most must be all.
func (k *killed) counts(ctx context.Context, job string, n int) error {
	want, err := count(ctx, k.b, k.in, n, kafkaWindow)
	if err != nil {
		return err
	}
	most, total, told := map[string]int{}, 0, 0
	var wrong error
	err = k.b.Consume(ctx, job, func(r kafka.Record) bool {
		start, value, _ := strings.Cut(r.Value, " ")
		name := r.Key + " " + start
		have, err := strconv.Atoi(value)
		if err != nil || have > want[name] {
			wrong = fmt.Errorf("the pipeline wrote %q of %s, which has %d records (%w)", r.Value, name, want[name], err)
			return true
		}
		told++
		if have > most[name] {
			total += have - most[name]
			most[name] = have
		}
		return total >= n
	})
	fmt.Printf("%s: %d of %d records are counted in %d groups, which were told %d times\n", job, total, n, len(most), told)
	return errors.Join(err, wrong, compare(job, most, want))
}

// polled waits until the job that polls has ended by itself, and looks at its counts and totals.
func (k *killed) polled(ctx context.Context, polls int) error {
	err := jobs(k.server.Endpoint, func(client jobpb.JobServiceClient) error {
		all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		if err != nil {
			return err
		}
		for _, info := range all.GetJobInfo() {
			if info.GetJobName() == pollJob {
				return ends(ctx, client, info.GetJobId(), jobpb.JobState_DONE)
			}
		}
		return fmt.Errorf("the server has no job that polls: %v", all.GetJobInfo())
	})
	return errors.Join(err, checkPolls(k.lines, k.start, polls, true))
}
