// Package server puts a job server together: one port for Beam's job, artifact and Fn APIs, the stores below a data
// folder, the engine, and the order in which all of it starts and stops.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"

	"trestle/internal/artifact"
	"trestle/internal/engine/local"
	"trestle/internal/fnapi"
	"trestle/internal/harness"
	"trestle/internal/harness/container"
	"trestle/internal/jobapi"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/store/blob"
)

// Config is what a server is made of. The zero value of each field but Log has a default.
type Config struct {
	// Listen is the host:port for all services. Default 127.0.0.1:8099, Beam's customary port, on this machine only: a
	// job server runs whatever code it is given.
	Listen string
	// Advertise is the host:port under which clients and harnesses reach the server. Default: the address it listens
	// on, with the host's name in place of an unspecified host.
	Advertise string
	// Data is the folder for jobs' histories, artifacts and spill. Default: trestle in the user's cache folder.
	Data string
	// Staging is the URL of the bucket in which artifacts are kept, which other hosts can reach as well. Default: a folder
	// in Data.
	Staging string
	// Memory bounds, in bytes, what jobs together keep in memory of their data. Default 512 MiB: a server is a guest on
	// a machine on which the harnesses need the memory.
	Memory int64
	// WorkerMemory is the same for each worker beside an engine outside of this process, which hosts one job's tasks. Default 256
	// MiB: the engine has its own memory on that host, and does not know of this; grouping takes hardly more CPU with half of it.
	WorkerMemory int64
	// Keep is how long the histories of jobs are kept that have ended, and the artifacts in Data that no kept job was given.
	// Negative is for ever. Default: DefaultKeep.
	Keep time.Duration
	// SnapshotEvery is how often the state of a running streaming job is made safe. Default: local.DefaultSnapshotEvery.
	SnapshotEvery time.Duration
	// Parallelism is the number of tasks of a stage on the embedded engine. Default: the number of cores.
	Parallelism int
	// Flink is the URL of the REST API of a Flink cluster that jobs can be run on. Default: none.
	Flink string
	// Engine is the name of the engine that runs jobs that name none, "local" or "flink". Default: local.
	Engine string
	// Version is the program's: workers beside other engines are of the same.
	Version string
	// Containers is how docker environments are run.
	Containers container.Config
	// Trial is for tests: the zero value is what servers run with.
	Trial Trial
	Log   *slog.Logger

	remove func(path string) error // os.RemoveAll; tests have it fail
}

// Trial changes how jobs are run, never what they compute: tests vary it and compare.
type Trial struct {
	Plan plan.Options
	// BundleBytes and Attempts are those of the tasks: see stage.Spec.
	BundleBytes, Attempts int
	// Files are the files to which jobs spill; nil stands for the operating system's.
	Files shuffle.FileSystem
	// Restarts are those of streaming jobs.
	Restarts local.Restarts
	// Kills is how long a harness lives on average; 0 is as long as it is needed.
	Kills time.Duration
}

// Defaults, each for its reason in Config.
const (
	DefaultListen = "127.0.0.1:8099"
	DefaultMemory = 512 << 20
	// DefaultWorkerMemory is that of [Config.WorkerMemory].
	DefaultWorkerMemory = 256 << 20
)

// Server is a running job server.
type Server struct {
	cfg      Config
	endpoint string
	grpc     *grpc.Server
	fn       *fnapi.Server
	jobs     *jobapi.Service
	local    *local.Engine
	bucket   blob.Bucket
	memory   *shuffle.Budget
	served   chan error // gets what Serve returned
	warming  sync.WaitGroup
	retained func() // ends the removal of what was kept long enough, and waits for it
	swept    func() // ends the search for containers that killed servers left
}

// Start starts a server; it accepts jobs when Start returns. Whatever prevents it is an error that says what and where,
// and leaves nothing behind.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg, err = withDefaults(cfg); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, memory: shuffle.NewBudget(cfg.Memory), served: make(chan error, 1)}
	// The port first: a server that cannot have it must not touch the data folder of the one that does.
	listener, err := listen(ctx, cfg.Listen)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeJobs(ctx), ignoreClosed(listener.Close()), s.closeStores())
		}
	}()
	if s.endpoint, err = advertised(cfg.Advertise, listener.Addr()); err != nil {
		return nil, err
	}
	if err := cfg.Containers.Check(); err != nil {
		return nil, fmt.Errorf("settings for containers: %w", err)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data folder (--data): %w", err)
	}
	if s.bucket, err = blob.Open(ctx, cfg.Staging, blob.Options{}); err != nil {
		return nil, fmt.Errorf("artifact store (--staging): %w", err)
	}
	if cfg.Staging != defaultStaging(cfg.Data) {
		// A store that cannot be written to is told now, and not to the first who submits a job.
		remark, err := blob.TryWrite(ctx, s.bucket)
		if err != nil {
			return nil, fmt.Errorf("artifact store (--staging): %w", err)
		}
		if remark != "" {
			cfg.Log.Warn("artifact store (--staging): " + remark)
		}
	}
	store := artifact.NewStore(s.bucket, filepath.Join(cfg.Data, "incoming"))
	staging := artifact.NewStaging(store, cfg.Log)
	s.fn = fnapi.NewServer(cfg.Log)
	running := filepath.Join(cfg.Data, "running")
	engines, err := s.engines(running)
	if err != nil {
		return nil, err
	}
	run := &runner{plan: cfg.Trial.Plan, engines: engines}
	if cfg.Staging != defaultStaging(cfg.Data) {
		run.staging = s.bucket
	}
	// What lies in running before the data folder is locked is a killed server's.
	left, err := os.ReadDir(running)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s.jobs, err = jobapi.Open(jobapi.Config{
		Dir:              cfg.Data,
		Runner:           run,
		Staging:          staging,
		ArtifactEndpoint: func() string { return s.endpoint },
		Log:              cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if err := cfg.remove(filepath.Join(running, e.Name())); err != nil {
			return nil, fmt.Errorf("sweep what an earlier server left: %w", err)
		}
	}
	s.sweepSnapshots()
	s.grpc = grpc.NewServer(fnapi.ServerOptions()...)
	s.fn.Register(s.grpc)
	s.jobs.Register(s.grpc)
	jobpb.RegisterArtifactStagingServiceServer(s.grpc, staging)
	jobpb.RegisterLegacyArtifactStagingServiceServer(s.grpc, staging.Legacy())
	jobpb.RegisterArtifactRetrievalServiceServer(s.grpc, artifact.NewRetrieval(store, cfg.Log))
	go func() { s.served <- s.grpc.Serve(listener) }()
	s.warming.Go(func() {
		if err := warm(); err != nil {
			cfg.Log.Warn("prepare for the first job", "error", err)
		}
	})
	s.retained = func() {}
	if cfg.Keep > 0 {
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var retaining sync.WaitGroup
		retaining.Go(func() { s.retain(ctx, store) })
		s.retained = func() {
			cancel()
			retaining.Wait()
		}
	}
	s.swept = harness.Sweep(cfg.Containers, cfg.Log)
	return s, nil
}

func withDefaults(cfg Config) (Config, error) {
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.WorkerMemory == 0 {
		cfg.WorkerMemory = DefaultWorkerMemory
	}
	if cfg.Keep == 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.remove == nil {
		cfg.remove = os.RemoveAll
	}
	if cfg.Data == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return cfg, fmt.Errorf("no place for the data folder: name one with --data: %w", err)
		}
		cfg.Data = filepath.Join(cache, "trestle")
	}
	data, err := filepath.Abs(cfg.Data)
	if err != nil {
		return cfg, fmt.Errorf("data folder %q: %w", cfg.Data, err)
	}
	cfg.Data = data
	if cfg.Staging == "" {
		cfg.Staging = defaultStaging(cfg.Data)
	}
	return cfg, nil
}

func defaultStaging(data string) string { return filepath.Join(data, "artifacts") }

// Endpoint is the host:port under which clients and harnesses reach the server.
func (s *Server) Endpoint() string { return s.endpoint }

// Held is how many bytes of their data all jobs together keep in memory now: what Config.Memory bounds.
func (s *Server) Held() int64 { return s.memory.Used() }

// Done answers, once, with the error that ended the server's listening before Stop did.
func (s *Server) Done() <-chan error { return s.served }

// stopGrace is how long clients get to read the end of their streams when the server stops.
const stopGrace = 3 * time.Second

// failedGrace is how long a start that has failed waits for the jobs that it has found.
const failedGrace = 10 * time.Second

// Stop cancels what runs, waits for it until ctx is done, and closes everything. It is called once.
func (s *Server) Stop(ctx context.Context) error {
	s.warming.Wait()
	s.retained()
	// Jobs first: their harnesses end while the Fn API is still there, and clients read CANCELLED.
	err := s.jobs.Close(ctx)
	s.fn.Close()
	force := time.AfterFunc(stopGrace, s.grpc.Stop)
	s.grpc.GracefulStop()
	force.Stop()
	s.swept()
	return errors.Join(err, s.closeStores())
}

// closeJobs lets go of the jobs, where a start has failed that had found them; those that may outlive a server do.
func (s *Server) closeJobs(ctx context.Context) error {
	if s.jobs == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedGrace)
	defer cancel()
	err := s.jobs.Close(ctx)
	s.fn.Close()
	return err
}

func (s *Server) closeStores() error {
	if s.bucket == nil {
		return nil
	}
	if err := s.bucket.Close(); err != nil {
		return fmt.Errorf("close the artifact store: %w", err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
