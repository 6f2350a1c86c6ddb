package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/fnapi"
	"trestle/internal/harness/container"
)

// ErrClosed is the error of a pool that has been closed, and of the sessions that its closing ends.
var ErrClosed = errors.New("harness: the job's workers have been stopped")

// Server is what a pool needs of the Fn API's server: *fnapi.Server.
type Server interface {
	Expect(fnapi.Worker) (*fnapi.Session, error)
}

// Config is what a pool needs to know. Server, Endpoint, Job and Environments are required.
type Config struct {
	// Server is where harnesses will connect.
	Server Server
	// Endpoint is the host:port of all services, as the harnesses reach it.
	Endpoint string
	// Job is the job's id, unique on the server, and fit for a file name.
	Job string
	// Workers is what worker ids start with: unique among all pools that ask the same worker pool of a user's for workers.
	// Empty stands for Job.
	Workers string
	// JobName is the user's; harnesses get it as metadata.
	JobName string
	// Environments are the pipeline's, by id. They should have passed Check.
	Environments map[string]*pipepb.Environment
	// Dependencies are each environment's artifacts, as the retrieval service at Endpoint knows them.
	Dependencies map[string][]*pipepb.ArtifactInformation
	// RetrievalToken goes with retrievals; empty stands for Job.
	RetrievalToken string
	// Options are the pipeline options as the SDK sent them.
	Options *structpb.Struct
	// Scratch is a folder of the job's own on this host. The pool makes a folder in it and removes that again. Empty:
	// the system's folder for temporary files.
	Scratch string
	// Cores is how many workers an environment gets whose SDK uses one core each; below 1 it is 1.
	Cores int
	// Logs takes what harnesses log, and the lines that their processes write to stdout and stderr (LogLocation tells
	// which). It is called from many goroutines and must not block for long. May be nil.
	Logs func(environment, worker string, entry *fnpb.LogEntry)
	// Message takes what a person should read. It is called from many goroutines. May be nil.
	Message func(importance jobpb.JobMessage_MessageImportance, text string)
	// Containers is how docker environments are run on this host.
	Containers container.Config
	// Timeouts: see there.
	Timeouts Timeouts
	// Kills is for tests: when it is not 0, a worker that has connected is killed after a random time of this mean. A process is,
	// with SIGKILL, and a container's; one that a worker pool has loses its connections, and may be at work for a moment more.
	Kills time.Duration
}

// Timeouts are limits of patience. Zero fields get the defaults.
type Timeouts struct {
	// Process is how long a process or container may neither connect nor write or log a line. Default 2 minutes: a cold
	// JVM or a Python with large imports on a busy machine needs one. An installer's output counts as a sign of life, ten
	// times as long. A pull of a container's image is not in it: container.Config has its limit.
	Process time.Duration
	// External is how long a worker of a pool may take to connect after the pool said yes. Default 30 s: nothing is
	// installed there.
	External time.Duration
	// Progress is how often a message says what is awaited. Default 10 s.
	Progress time.Duration
	// Grace is how long a process or container may take to end after SIGTERM. Default 5 s.
	Grace time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&t.Process, 2 * time.Minute}, {&t.External, 30 * time.Second}, {&t.Progress, 10 * time.Second}, {&t.Grace, 5 * time.Second}} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return t
}

// Pool is a job's harnesses on this host. Its methods may be called concurrently.
type Pool struct {
	cfg   Config
	names []string // environment ids, sorted: an index is shorter in a worker's id

	host *host

	ctx    context.Context // ends when Close begins; its cause is ErrClosed
	cancel context.CancelCauseFunc
	grace  context.Context // ends when nobody may take time to end any more
	hurry  context.CancelFunc
	wg     sync.WaitGroup // the workers' lives

	once   sync.Once // Close
	closed error     // its result

	mu        sync.Mutex
	ended     bool
	root      string // the pool's own folder, made on first use
	workers   map[key]*worker
	started   map[key]int // how often a worker was started: no two get the same id
	leftovers []error     // why workers could not be stopped, for Close
}

type key struct {
	environment string
	n           int
}

// NewPool makes a pool. It starts nothing yet.
func NewPool(cfg Config) *Pool {
	cfg.Timeouts = cfg.Timeouts.withDefaults()
	if cfg.Logs == nil {
		cfg.Logs = func(string, string, *fnpb.LogEntry) {}
	}
	if cfg.Message == nil {
		cfg.Message = func(jobpb.JobMessage_MessageImportance, string) {}
	}
	if cfg.Workers == "" {
		cfg.Workers = cfg.Job
	}
	if cfg.RetrievalToken == "" {
		cfg.RetrievalToken = cfg.Job
	}
	p := &Pool{cfg: cfg, workers: map[key]*worker{}, started: map[key]int{}}
	for name := range cfg.Environments {
		p.names = append(p.names, name)
	}
	slices.Sort(p.names)
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.grace, p.hurry = context.WithCancel(context.Background())
	p.host = newHost(p.ctx, cfg.Containers, cfg.Endpoint)
	return p
}

// Workers is how many workers the environment shall have, at least 1; the engine asks Session for those and no more.
func (p *Pool) Workers(environment string) int {
	declared := p.cfg.Environments[environment]
	r, err := resolve(declared, 0, p.host)
	if err != nil {
		return 1 // Session says what is wrong
	}
	return workersOf(r, declared, p.cfg.Options, p.cfg.Cores)
}

// Session is the session of the environment's n-th worker, counted from 0. The first caller has it started, others wait
// for the same start; after that it is there at once. A worker that has ended is started anew. The start does not end
// with ctx, only with the pool. The session belongs to the pool: the caller does not close it.
//
// Errors: a [*StartError] when the worker cannot be had, with an [*Exit] in it when its process or container ended; ErrClosed; ctx's.
func (p *Pool) Session(ctx context.Context, environment string, n int) (*fnapi.Session, error) {
	declared, ok := p.cfg.Environments[environment]
	if !ok {
		return nil, fmt.Errorf("the pipeline has no environment %q", environment)
	}
	if n < 0 {
		return nil, fmt.Errorf("environment %q has no worker %d", environment, n)
	}
	w, err := p.worker(declared, key{environment, n})
	if err != nil {
		return nil, err
	}
	select {
	case <-w.settled:
		return w.session, w.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for worker %s of environment %q: %w", w.id, environment, context.Cause(ctx))
	}
}

// Start has the environment's n-th worker started, unless it is there, for a call of Session that is to come. What may go
// wrong is told by that call, which starts it once more.
func (p *Pool) Start(environment string, n int) {
	if declared, ok := p.cfg.Environments[environment]; ok && n >= 0 {
		_, _ = p.worker(declared, key{environment, n}) // ErrClosed: nobody will call
	}
}

// worker finds the worker, or starts it.
func (p *Pool) worker(declared *pipepb.Environment, k key) (*worker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, ErrClosed
	}
	if w := p.workers[k]; w != nil && !w.over() {
		return w, nil
	}
	index, _ := slices.BinarySearch(p.names, k.environment)
	id := p.cfg.Workers + "-e" + strconv.Itoa(index) + "-w" + strconv.Itoa(k.n)
	if again := p.started[k]; again > 0 {
		id += "-r" + strconv.Itoa(again)
	}
	p.started[k]++
	w := &worker{
		pool:        p,
		id:          id,
		environment: k.environment,
		index:       index,
		declared:    declared,
		settled:     make(chan struct{}),
		launched:    make(chan struct{}),
	}
	p.workers[k] = w
	p.wg.Go(w.run)
	return w, nil
}

// folder is the folder that the environment's workers share: what is installed there serves all of them.
func (p *Pool) folder(index int) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.root == "" {
		root, err := os.MkdirTemp(p.cfg.Scratch, "harness-")
		if err != nil {
			return "", fmt.Errorf("make a folder for the job's workers: %w", err)
		}
		p.root = root
	}
	dir := filepath.Join(p.root, "e"+strconv.Itoa(index))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a folder for the job's workers: %w", err)
	}
	return dir, nil
}

// Close stops all workers and returns when they are gone: no process, container, goroutine or file of theirs is left. Harnesses
// are asked to end first; those that have not when their grace or ctx is over are killed. An error says what could not
// be cleaned up. Later calls wait for the first, and return the same.
func (p *Pool) Close(ctx context.Context) error {
	p.once.Do(func() { p.closed = p.close(ctx) })
	return p.closed
}

func (p *Pool) close(ctx context.Context) error {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.cancel(ErrClosed)
	defer p.hurry()
	defer context.AfterFunc(ctx, p.hurry)()
	p.wg.Wait()

	p.mu.Lock() // for what the workers have left
	defer p.mu.Unlock()
	errs := p.leftovers
	if p.root != "" {
		if err := os.RemoveAll(p.root); err != nil {
			errs = append(errs, fmt.Errorf("remove the workers' folder: %w", err))
		}
	}
	return errors.Join(errs...)
}
