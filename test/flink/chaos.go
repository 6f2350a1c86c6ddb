package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
	"trestle/test/shapes"
	"trestle/test/wordcount/example"
)

const (
	// sideBySide is how many jobs of a chaos run there are at a time: what kills one's worker must not be felt by the other.
	sideBySide = 2
	// calmest is the longest that nothing is killed while jobs run, but for a TaskManager's start.
	calmest = 5 * time.Second
	// hardships is how often a job may lose workers: Flink starts its tasks anew six times in all, and what dies while a
	// TaskManager starts counts as well.
	hardships = 3
	// losses is how often it may lose one of its harnesses: a bundle is tried four times, and on a busy machine it may be the same
	// bundle each time.
	losses = 3
	// keyedSize is the number of elements in the largest collection of a pipeline with state, sessions and side inputs.
	keyedSize = 60_000
	// chaoticText is how often the text is in the input of a WordCount.
	chaoticText = 3
	// chaoticTimeout is how long a job may take that loses what it has, again and again, beside another one.
	chaoticTimeout = 12 * time.Minute
)

// chaotic is a job of a chaos run.
type chaotic struct {
	cell
	number int
	// pipeline is set where it is not a WordCount.
	pipeline shapes.Pipeline

	hard, lost int // workers and harnesses; the mayhem's
	took       time.Duration
	size       int // of the result: distinct words, or lines
	err        error
}

// chaoticJobs makes n jobs of a seed.
func chaoticJobs(n int, seed uint64, docker bool) []*chaotic {
	jobs := make([]*chaotic, n)
	for i := range jobs {
		j := &chaotic{number: i + 1, cell: of("go", inProcess, onS3, onS3)}
		j.mark = fmt.Sprintf("chaos-%d", j.number)
		switch i % 4 {
		case 1:
			j.pipeline = shapes.Keyed(keyedSize)
		case 2:
			if docker {
				j.environment = inDocker
			}
		case 3:
			// Random ones are short, so that it comes on top of a longer one that is known to have it all.
			j.pipeline = append(shapes.Keyed(keyedSize/3), moved(rapid.Custom(shapes.Draw).Example(int(seed)+i), len(shapes.Keyed(1)))...)
		}
		jobs[i] = j
	}
	return jobs
}

// moved is a pipeline whose operations begin at a number.
func moved(p shapes.Pipeline, by int) shapes.Pipeline {
	for i := range p {
		in := make([]int, 0, len(p[i].In))
		for _, from := range p[i].In {
			in = append(in, from+by)
		}
		p[i].In = in
	}
	return p
}

// chaos runs jobs while harnesses, workers and TaskManagers are killed at random: every result must be exact, and nothing may be
// left on the TaskManagers' hosts.
func (f *flags) chaos(ctx context.Context) (ok bool, err error) {
	if f.seed == 0 {
		f.seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	if err := f.absolute(); err != nil {
		return false, err
	}
	if err := f.enlarge(chaoticText); err != nil {
		return false, err
	}
	home := filepath.SplitList(f.flinks)[0]
	version := strings.TrimPrefix(filepath.Base(home), "flink-")
	jobs := chaoticJobs(f.jobs, f.seed, f.images != "")
	cells := make([]cell, 0, len(jobs))
	for _, j := range jobs {
		cells = append(cells, j.cell)
	}
	options := f.clusterOptions(version + "-chaos")
	options.Shared = true // for results of pipelines that know no store
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := newRig(ctx, f.programs, c, home, cells)
	if err != nil {
		return false, fmt.Errorf("%w\n%s", err, c.Tails())
	}
	s, err := r.serve(ctx, onS3, "chaos")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	before, err := r.look(ctx)
	if err != nil {
		return false, err
	}
	fmt.Printf("Flink %s: chaos of %d jobs, seed %d\n", version, len(jobs), f.seed)
	m := &mayhem{rig: r, random: rand.New(rand.NewPCG(f.seed, 0)), active: map[*chaotic]bool{}, killed: map[string]int{}}
	if err := m.over(ctx, s, jobs); err != nil {
		return false, err
	}
	// What died with its whole host is the next job's to remove.
	last := of("go", inProcess, onS3, onS3)
	last.mark = "chaos-after"
	after := r.runCell(ctx, last, s, before)
	return m.report(version, f.seed, jobs, after.err), nil
}

// mayhem kills what works on jobs.
type mayhem struct {
	rig    *rig
	random *rand.Rand

	mu     sync.Mutex
	active map[*chaotic]bool
	killed map[string]int
}

// over runs all jobs, and kills as long as there are any. The error is the rig's; those of jobs are with them.
func (m *mayhem) over(ctx context.Context, s *server, jobs []*chaotic) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan *chaotic)
	var running sync.WaitGroup
	for range sideBySide {
		running.Go(func() {
			for j := range todo {
				m.begin(j)
				start := time.Now()
				limited, done := context.WithTimeoutCause(ctx, chaoticTimeout, fmt.Errorf("it took longer than %v", chaoticTimeout))
				j.err = m.rig.runChaotic(limited, s, j)
				done()
				if j.err != nil {
					j.err = errors.Join(j.err, m.rig.cancelNamed(ctx, j.name())) // it would keep the slots that the others want
				}
				j.took = time.Since(start)
				m.end(j)
			}
		})
	}
	var killing sync.WaitGroup
	over := make(chan struct{})
	killing.Go(func() {
		if err := m.kills(ctx, over); err != nil {
			cancel(fmt.Errorf("the killing failed: %w", err))
		}
	})
	for _, j := range jobs {
		select {
		case todo <- j:
		case <-ctx.Done():
		}
	}
	close(todo)
	running.Wait()
	close(over)
	killing.Wait()
	return context.Cause(ctx)
}

func (m *mayhem) begin(j *chaotic) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active[j] = true
}

func (m *mayhem) end(j *chaotic) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.active, j)
	verdict := "exact"
	if j.err != nil {
		verdict = "FAILED: " + j.err.Error()
	}
	fmt.Printf("    job %d, %s: %.1f s, %s\n", j.number, j.what(), j.took.Seconds(), verdict)
}

// kills kills something every now and then, until there is no more to come.
func (m *mayhem) kills(ctx context.Context, over <-chan struct{}) error {
	for {
		timer := time.NewTimer(time.Duration(m.random.Int64N(int64(calmest))))
		select {
		case <-timer.C:
		case <-over:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return nil // over says why
		}
		if err := m.kill(ctx); err != nil {
			return err
		}
	}
}

// kill kills one thing, if there is one of its kind.
func (m *mayhem) kill(ctx context.Context) error {
	hosts := m.rig.taskManagers()
	h := hosts[m.random.IntN(len(hosts))]
	which := m.random.IntN(1 << 20)
	switch dice := m.random.IntN(10); {
	case dice < 5:
		return m.killFound(h, "harness", which, lost, losses, "--control_endpoint")
	case dice < 8:
		return m.killFound(h, "worker", which, hard, hardships, "worker", "--scratch")
	default:
		if !m.dare(hard, hardships) {
			return nil
		}
		kill, name := m.rig.flink.TaskManager(h).KillAlone, "TaskManager"
		if dice == 9 {
			kill, name = m.rig.flink.TaskManager(h).Kill, "TaskManager with its workers and harnesses"
		}
		m.count(name, h)
		if err := kill(); err != nil {
			return err
		}
		if err := m.rig.flink.StartTaskManager(h); err != nil {
			return err
		}
		return m.rig.flink.Await(ctx)
	}
}

// killFound kills one of the processes on a host whose command lines have these parts, if the jobs can bear it.
func (m *mayhem) killFound(h *cluster.Host, name string, which int, loss func(*chaotic) *int, most int, parts ...string) error {
	found, err := h.Find(parts...)
	if err != nil || len(found) == 0 || !m.dare(loss, most) {
		return err
	}
	if keepsContainer(found[which%len(found)]) {
		name += "'s container's keeper"
	}
	m.count(name, h)
	return found[which%len(found)].Kill()
}

func (m *mayhem) count(name string, h *cluster.Host) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killed[name]++
	fmt.Printf("    kill -9: %s on %s\n", name, h.Name)
}

// dare says whether all jobs can bear one more loss of a kind, and counts it.
func (m *mayhem) dare(of func(*chaotic) *int, most int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for j := range m.active {
		if *of(j) >= most {
			return false
		}
	}
	for j := range m.active {
		*of(j)++
	}
	return true
}

func hard(j *chaotic) *int { return &j.hard }
func lost(j *chaotic) *int { return &j.lost }

func (j *chaotic) what() string {
	switch {
	case j.pipeline == nil:
		return "WordCount, " + j.environment
	case len(j.pipeline) == len(shapes.Keyed(1)):
		return "state, sessions, side inputs"
	default:
		return "the same and a random one"
	}
}

// runChaotic runs a job to its end, and looks at what it put out.
func (r *rig) runChaotic(ctx context.Context, s *server, j *chaotic) error {
	h := r.cluster.Host(jobServer)
	if j.pipeline == nil {
		command, words, err := r.command(j.cell, s.endpoint)
		if err != nil {
			return err
		}
		command.Argv = append(command.Argv, "--job_name="+j.name())
		if _, err := h.Run(ctx, command); err != nil {
			return err
		}
		got, err := r.exact(ctx, j.cell, words)
		j.size = len(got)
		return err
	}
	inside := filepath.Join(r.cluster.Shared(), j.name())
	if err := os.Mkdir(h.Outside(inside), 0o777); err != nil {
		return err
	}
	encoded, err := json.Marshal(j.pipeline)
	if err != nil {
		return err
	}
	argv := []string{r.shaped, "-pipeline=" + string(encoded), "-result=" + inside, "--worker_binary=" + r.shaped, "--job_name=" + j.name()}
	argv = append(argv, example.Portable("go", s.endpoint, "PROCESS", `{"command": "trestle boot go"}`)...)
	if _, err := h.Run(ctx, cluster.Command{Name: j.name(), Argv: argv}); err != nil {
		return err
	}
	got, err := shapes.Read(h.Outside(inside))
	if err != nil {
		return err
	}
	j.size = len(got)
	if want := j.pipeline.Output(); !slices.Equal(got, want) {
		return fmt.Errorf("not what a computation without Beam finds (-want +got):\n%.2000s\nof the pipeline\n%s", cmp.Diff(want, got), j.pipeline)
	}
	return nil
}

// cancelNamed cancels what goes on in Flink of a program's job.
func (r *rig) cancelNamed(ctx context.Context, name string) error {
	return r.cancelAll(ctx, func(ctx context.Context) (mine []flink.Job, err error) {
		all, err := r.flink.Jobs(ctx)
		for _, j := range all {
			if j.Name == name {
				mine = append(mine, j)
			}
		}
		return mine, err
	})
}

// report prints what became of the jobs, and says whether all is well.
func (m *mayhem) report(version string, seed uint64, jobs []*chaotic, after error) bool {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "\njob\twhat\tseconds\tworkers and harnesses that it lost at most\tresults\t")
	failed := 0
	for _, j := range jobs {
		verdict := "exact"
		if j.err != nil {
			verdict = "FAILED"
			failed++
		}
		fmt.Fprintf(table, "%d\t%s\t%.1f\t%d + %d\t%d\t%s\n", j.number, j.what(), j.took.Seconds(), j.hard, j.lost, j.size, verdict)
	}
	table.Flush()
	fmt.Printf("\nFlink %s, seed %d: %d jobs exact, %d failed; killed: %v\n", version, seed, len(jobs)-failed, failed, m.killed)
	if after != nil {
		fmt.Printf("the job after it: %v\n", after)
		return false
	}
	fmt.Println("nothing is left on the TaskManagers' hosts")
	return failed == 0
}
