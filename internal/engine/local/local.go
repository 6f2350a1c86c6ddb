// Package local is the embedded engine: it runs a plan's tasks in this process, on all cores, in bounded memory with
// spill to disk. It drives tasks through the task contract and nothing else.
//
// Bounded plans run with all stages open at once. A keyed exchange hands blocks to the task that owns their key group,
// which sorts them as they come; other exchanges are queues that spill, so that a sender never waits for a receiver that
// waits for a side input. A stage's input ends when all tasks of all its senders have ended.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/engine"
	"trestle/internal/fnapi"
	"trestle/internal/harness"
	"trestle/internal/harness/container"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// Config is what the engine needs. Containers, Parallelism, KeyGroups, BundleBytes, Attempts, Restarts and Files have defaults; all other fields
// are required.
type Config struct {
	// Fn is the server that harnesses connect to, Endpoint its host:port as they reach it.
	Fn       *fnapi.Server
	Endpoint string
	// Containers is how docker environments are run.
	Containers container.Config
	// Dir is where jobs keep their files while they run, each in a folder of its own.
	Dir string
	// Memory bounds what all jobs together keep in memory of their data.
	Memory *shuffle.Budget
	// Snapshots is where jobs that may go on after a restart of the server keep their snapshots, each in a folder of its own, on
	// the file system of Dir; "" when none are kept. SnapshotEvery is how often one is taken; 0 stands for
	// DefaultSnapshotEvery.
	Snapshots     string
	SnapshotEvery time.Duration
	// Parallelism is how many tasks a stage gets unless its job says otherwise; 0 stands for the number of cores.
	Parallelism int
	// KeyGroups is how many slices the key space is cut into; 0 stands for DefaultKeyGroups.
	KeyGroups int
	// BundleBytes and Attempts are those of the tasks: see stage.Spec.
	BundleBytes, Attempts int
	// Restarts says how streaming jobs begin again when a task has failed.
	Restarts Restarts
	// Kills is for tests: see harness.Config.
	Kills time.Duration
	// State bounds the memory of what tasks keep of keys; nil stands for a cache of an eighth of Memory.
	State *kv.Cache
	// Files are the files to which jobs spill; nil stands for shuffle.Disk.
	Files shuffle.FileSystem
	Log   *slog.Logger
}

// DefaultKeyGroups bounds a stage's parallelism, and is the number of partitions in which groups are sorted: enough to
// sort each in cache, few enough that a tiny job does not notice.
const DefaultKeyGroups = 128

// DefaultSnapshotEvery bounds what a restart does again, and how long bundles wait to be finalized. A snapshot costs each
// task some milliseconds.
const DefaultSnapshotEvery = 3 * time.Second

// Engine is the embedded engine.
type Engine struct {
	cfg  Config
	lent lent
}

// New makes an embedded engine.
func New(cfg Config) *Engine {
	if cfg.Parallelism == 0 {
		cfg.Parallelism = runtime.GOMAXPROCS(0)
	}
	if cfg.KeyGroups == 0 {
		cfg.KeyGroups = DefaultKeyGroups
	}
	if cfg.State == nil {
		// As much as the stores of a few tasks need to be quick; what is read again and again is mostly in the page cache too.
		cfg.State = kv.NewCache(max(cfg.Memory.Limit()/8, 1<<20))
	}
	if cfg.SnapshotEvery == 0 {
		cfg.SnapshotEvery = DefaultSnapshotEvery
	}
	if cfg.Files == nil {
		cfg.Files = shuffle.Disk()
	}
	return &Engine{cfg: cfg}
}

// Name is "local".
func (e *Engine) Name() string { return "local" }

// Streams implements engine.Streamer.
func (e *Engine) Streams() bool { return true }

// Check looks whether the pipeline's harnesses can be started on this host.
func (e *Engine) Check(ctx context.Context, p *pipepb.Pipeline, _ *plan.Plan, parallelism int) error {
	_, err := e.parallelism(parallelism)
	return errors.Join(harness.Check(ctx, p.GetComponents().GetEnvironments(), e.cfg.Containers, e.cfg.Endpoint), err)
}

func (e *Engine) parallelism(wanted int) (int, error) {
	if wanted == 0 {
		wanted = e.cfg.Parallelism
	}
	if wanted < 0 || wanted > e.cfg.KeyGroups {
		return 0, fmt.Errorf("parallelism %d: must be from 1 to %d, the number of key groups", wanted, e.cfg.KeyGroups)
	}
	return wanted, nil
}

// Submit starts the job.
func (e *Engine) Submit(_ context.Context, j engine.Job) (engine.Run, error) {
	parallelism, err := e.parallelism(j.Parallelism)
	if err != nil {
		return nil, err
	}
	snapshots, err := e.keep(j) // with what it asked for: the next server may have other cores
	if err != nil {
		return nil, err
	}
	asked := j.Parallelism != 0
	j.Parallelism = parallelism
	return e.start(j, asked, filepath.Join(e.cfg.Dir, j.ID), snapshots), nil
}

// start starts a job that is accepted: in a folder of its own, with snapshots in another if there are to be any.
func (e *Engine) start(j engine.Job, asked bool, dir, snapshots string) *run {
	cfg := e.cfg
	cfg.Attempts = cmp.Or(j.Attempts, cfg.Attempts)
	r := &run{
		cfg:         cfg,
		job:         j,
		parallelism: j.Parallelism,
		asked:       asked,
		dir:         dir,
		snapshots:   snapshots,
		log:         e.cfg.Log.With("job", j.ID),
		done:        make(chan struct{}),
		draining:    make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.giveBack = e.lent.lend(j.Plan, cfg.State, cfg.Memory)
	r.store = shuffle.NewStoreOn(e.cfg.Files, filepath.Join(r.dir, "spill"), e.cfg.Memory)
	r.pool = r.pools("")
	go r.main()
	return r
}

// newPool replaces the pool, which is closed, for the n-th restart.
func (r *run) newPool(n int) error {
	err := r.closePool()
	// Other workers than before: one that was given up may still be on its way.
	r.pool = r.pools(fmt.Sprintf("%s-r%d", r.job.ID, n))
	return err
}

// pools makes a pool of harnesses whose ids begin with workers.
func (r *run) pools(workers string) *harness.Pool {
	j := r.job
	return harness.NewPool(harness.Config{
		Server:       r.cfg.Fn,
		Endpoint:     r.cfg.Endpoint,
		Job:          j.ID,
		Workers:      workers,
		JobName:      j.Name,
		Environments: j.Plan.Pipeline.GetComponents().GetEnvironments(),
		Dependencies: j.Dependencies,
		Options:      j.Options,
		Scratch:      r.dir,
		Cores:        j.Parallelism,
		Logs:         func(_, worker string, entry *fnpb.LogEntry) { r.logged(worker, entry) },
		Message:      j.Events.Message,
		Containers:   r.cfg.Containers,
		Kills:        r.cfg.Kills,
	})
}
