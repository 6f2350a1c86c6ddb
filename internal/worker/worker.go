// Package worker hosts the tasks of one job beside a foreign engine: an adapter inside the engine's process starts it, and
// drives its tasks by the task contract over sockets (docs/protocols/socket.md). It has a Fn API of its own, starts the
// job's harnesses, and hands them their artifacts; of the job server it needs nothing, unless artifacts are to come from there.
//
// A worker ends when its standard input does, which is when the engine's process has ended, in whatever way.
package worker

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/fnapi"
	"trestle/internal/harness"
	"trestle/internal/harness/container"
	"trestle/internal/job/submission"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/store/kv"
)

// Config is what a worker is started with. All fields but Tasks are required.
type Config struct {
	// Version is the program's: a job of another one is refused.
	Version string
	// Scratch is a folder for the worker alone, which it makes and removes.
	Scratch string
	// Tasks is how many tasks of a stage the engine may run here side by side: so many harnesses are started at once, where an
	// environment has that many, since a later stage's tasks would wait for them one after the other.
	Tasks int
	// Stdin brings the job, and then stays open for as long as the worker is wanted. Stdout takes the line that says where it
	// listens.
	Stdin  io.Reader
	Stdout io.Writer
	Log    *slog.Logger
}

// Worker is a running worker.
type Worker struct {
	cfg   Config
	job   *submission.Job
	plan  *plan.Plan
	token [32]byte

	ctx    context.Context // ends when the worker is to end
	cancel context.CancelCauseFunc

	budget *shuffle.Budget
	store  *shuffle.Store
	state  *kv.Cache // of all tasks' stores
	stages *stages
	pool   *harness.Pool
	// find is the way to a harness of an environment for a task that has a number among its stage's tasks here.
	find   func(environment string, slot int) stage.Harness
	starts starts

	mu    sync.Mutex
	tasks []*taskConn       // open, the oldest first
	said  map[[2]int]string // what user code said when a task of a stage failed last
	lost  error             // why the worker ends, when it is not wanted to
}

// stateShare is the part of a worker's memory that caches what tasks keep of keys: one in so many. Most jobs keep little, and what
// is in files is in the system's cache as well.
const stateShare = 8

// maxJob bounds a job's encoding: it is held whole while it is decoded.
const maxJob = 256 << 20

// Run is a worker's life: it returns when standard input or ctx has ended, with nil, or with what kept it from working.
// LimitHeap is called with the job's memory before anything of the job is kept.
func Run(ctx context.Context, cfg Config, limitHeap func(memory int64)) (err error) {
	encoded, err := readJob(cfg.Stdin)
	if err != nil {
		return err
	}
	j, err := submission.DecodeJob(encoded, cfg.Version)
	if err != nil {
		return err
	}
	limitHeap(j.Memory)
	w := &Worker{cfg: cfg, job: j, said: map[[2]int]string{}}
	w.find = w.harness
	if w.plan, err = j.Build(); err != nil {
		return err
	}
	release, err := claimScratch(cfg.Scratch, cfg.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	defer w.cancel(nil)
	go func() {
		// Whatever else comes is nobody's; the end is the adapter's, or its process's.
		_, err := io.Copy(io.Discard, cfg.Stdin)
		w.cancel(err)
	}()
	return w.run()
}

func readJob(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, fmt.Errorf("read the job from standard input: %w", err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > maxJob {
		return nil, fmt.Errorf("read the job from standard input: it has %d bytes, the limit is %d", n, maxJob)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read the job from standard input: %w", err)
	}
	return b, nil
}

// run serves until the worker is to end.
func (w *Worker) run() (err error) {
	w.budget = shuffle.NewBudget(w.job.Memory)
	w.store = shuffle.NewStore(filepath.Join(w.cfg.Scratch, "spill"), w.budget)
	w.stages = &stages{plan: w.plan, store: w.store, open: map[int]*openStage{}}
	defer func() { err = errors.Join(err, w.store.Close()) }()
	w.state = kv.NewCache(max(w.job.Memory/stateShare, 1<<20))
	defer w.state.Close()
	if w.plan.KeepsState() { // of the same memory as all else that tasks hold
		defer w.budget.Lend(w.state.Limit())()
	}
	containers, err := container.Decode(w.job.Containers)
	if err != nil {
		return err
	}
	services, err := w.serveHarnesses(containers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, services.stop()) }()
	if _, err := rand.Read(w.token[:]); err != nil {
		return fmt.Errorf("make a token: %w", err)
	}
	w.pool = w.newPool(services, containers)
	defer harness.Sweep(containers, w.cfg.Log)()
	listener, err := (&net.ListenConfig{}).Listen(w.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the engine's tasks: %w", err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { w.accept(listener, &serving) })
	stopListening := context.AfterFunc(w.ctx, func() { listener.Close() })
	defer stopListening()
	if _, err := fmt.Fprintf(w.cfg.Stdout, "trestle-worker 1 %d %s\n", listener.Addr().(*net.TCPAddr).Port, hex.EncodeToString(w.token[:])); err != nil {
		w.end(fmt.Errorf("tell where the worker listens: %w", err))
	}
	w.startHarnesses()
	<-w.ctx.Done()
	// The harnesses first: a task that waits for one returns.
	stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	closed := w.pool.Close(stop)
	serving.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.lost, closed)
}

// end ends the worker because it cannot go on.
func (w *Worker) end(err error) {
	w.mu.Lock()
	if w.lost == nil {
		w.lost = err
	}
	w.mu.Unlock()
	w.cancel(err)
}

// newPool makes the pool of the job's harnesses on this host. An environment whose SDK uses one core each gets as many as
// there are cores, but no more are started than tasks run side by side.
func (w *Worker) newPool(services *services, containers container.Config) *harness.Pool {
	dependencies := map[string][]*pipepb.ArtifactInformation{}
	environments := w.job.Pipeline.GetComponents().GetEnvironments()
	for id, env := range environments {
		dependencies[id] = env.GetDependencies()
	}
	return harness.NewPool(harness.Config{
		Server:       services.fn,
		Endpoint:     services.endpoint,
		Job:          w.job.ID,
		Workers:      w.job.ID + "-" + strings.ToLower(rand.Text()[:6]), // a job has several workers, and killed ones are replaced
		JobName:      w.job.Name,
		Environments: w.plan.Pipeline.GetComponents().GetEnvironments(),
		Dependencies: dependencies,
		Options:      w.job.Options,
		Scratch:      w.cfg.Scratch,
		Cores:        runtime.GOMAXPROCS(0),
		Logs:         func(_, id string, entry *fnpb.LogEntry) { w.logged(id, entry) },
		Message:      w.message,
		Containers:   containers,
	})
}

// startHarnesses has those started that the job will want, and waits for none. One that fails to start is started again when it is
// wanted, and says why then.
func (w *Worker) startHarnesses() {
	seen := map[string]bool{"": true}
	start := func(environment string) {
		if seen[environment] {
			return
		}
		seen[environment] = true
		for n := range min(w.cfg.Tasks, w.pool.Workers(environment)) {
			w.pool.Start(environment, n)
		}
	}
	for _, s := range w.plan.Stages {
		start(s.Environment)
	}
}

// harness is the way to a harness of the environment for a task that has a number among its stage's tasks here.
func (w *Worker) harness(environment string, slot int) stage.Harness {
	return func(ctx context.Context) (*fnapi.Session, error) {
		session, err := w.pool.Session(ctx, environment, slot%w.pool.Workers(environment))
		return session, w.starts.came(environment, err, time.Now())
	}
}

// logged passes on what a harness logged: warnings and worse to the job's messages, all of it to the worker's log.
func (w *Worker) logged(id string, entry *fnpb.LogEntry) {
	text, importance, tell := harness.Logged(entry)
	if tell {
		w.message(importance, text)
	}
	w.cfg.Log.Debug(text, "worker", id, "severity", entry.GetSeverity(), "location", entry.GetLogLocation())
}

// message is one of no task in particular: the oldest open one reports it.
func (w *Worker) message(importance jobpb.JobMessage_MessageImportance, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tasks) > 0 {
		w.tasks[0].report.message(importance, text)
		return
	}
	w.cfg.Log.Info(text)
}

// saidBefore tells whether user code says the same as when this task failed the last time.
func (w *Worker) saidBefore(stage, task int, text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := [2]int{stage, task}
	before := w.said[key] == text
	w.said[key] = text
	return before
}
