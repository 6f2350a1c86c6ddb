package jobapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/gofrs/flock"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/engine"
	"trestle/internal/store/journal"
)

// Runner checks and starts jobs. Its methods may be called concurrently.
type Runner interface {
	// Check refuses, with every problem at once, a pipeline or options that cannot run. The error's text is what the
	// user reads. It does not change its arguments.
	Check(ctx context.Context, p *pipepb.Pipeline, options *structpb.Struct) error
	// Start runs a job. It returns once an engine has accepted the job, or with the reason why none did; the reason is
	// what the user reads. ctx is done when the job is cancelled meanwhile; a run that has been returned does not end
	// with it.
	Start(ctx context.Context, s Submission) (engine.Run, error)
}

// Attacher is a Runner that finds jobs again which were running when the server ended. The error wraps [engine.ErrLost]
// when the engine no longer has the run. A job whose Runner is no Attacher, or cannot attach, becomes FAILED.
type Attacher interface {
	Attach(ctx context.Context, handle string, events engine.Events) (engine.Run, error)
}

// Submission is a job to start.
type Submission struct {
	// ID is unique among all jobs of the server, and fit for a file name. Name is the user's.
	ID, Name string
	// Pipeline is the caller's from now on. Its environments' dependencies are the artifacts as harnesses get them.
	Pipeline *pipepb.Pipeline
	// Options are as the SDK sent them, for harnesses to get unchanged.
	Options *structpb.Struct
	// Events takes what the engine reports; it is the job's event log.
	Events engine.Events
}

// Staging keeps track of the artifacts that a client stages between Prepare and Run. Its methods may be called
// concurrently.
type Staging interface {
	// Begin opens a session for the dependencies of each environment.
	Begin(token string, byEnvironment map[string][]*pipepb.ArtifactInformation)
	// Resolved returns the dependencies as harnesses get them, or why they are not all there.
	Resolved(ctx context.Context, token string) (map[string][]*pipepb.ArtifactInformation, error)
	// Forget ends a session. It may be called for a token that has none.
	Forget(token string)
}

// Config is what a Service needs. All fields but Clock are required.
type Config struct {
	// Dir is the server's data folder; jobs are kept in Dir/jobs. It is locked from Open to Close, and free again when
	// the process dies.
	Dir     string
	Runner  Runner
	Staging Staging
	// ArtifactEndpoint is the address, as the client can reach it, of the artifact staging service.
	ArtifactEndpoint func() string
	Log              *slog.Logger
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time

	// wrap is where tests make journals fail; quota is their maxLog.
	wrap  func(*os.File) journal.File
	quota int64
}

// Service is Beam's JobService. Its methods may be called concurrently.
type Service struct {
	jobpb.UnimplementedJobServiceServer

	cfg  Config
	dir  string // of all jobs
	lock *flock.Flock
	ctx  context.Context
	stop context.CancelFunc

	// gate is held for reading over whatever must not begin once the service is being closed.
	gate    sync.RWMutex
	closing bool

	syncing sync.WaitGroup // those that make what Prepare has written durable

	mu   sync.Mutex
	jobs map[string]*entry
}

// ErrInUse is what Open's error wraps when another server uses the data folder.
var ErrInUse = errors.New("another server uses this data folder")

// Open reads the jobs that are kept in cfg.Dir, and is then ready to be registered. A job that was running when the
// last server ended is attached to again, or becomes FAILED. A job whose log cannot be read is left alone and told of in
// the log.
func Open(cfg Config) (*Service, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.quota == 0 {
		cfg.quota = maxLog
	}
	dir := filepath.Join(cfg.Dir, "jobs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the folder of all jobs: %w", err)
	}
	s := &Service{cfg: cfg, dir: dir, jobs: make(map[string]*entry), lock: flock.New(filepath.Join(cfg.Dir, "lock"))}
	switch locked, err := s.lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("lock the data folder %s: %w", cfg.Dir, err)
	case !locked:
		return nil, fmt.Errorf("%s: %w; stop it, or give this one a folder of its own", cfg.Dir, ErrInUse)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	if err := s.restore(); err != nil {
		s.stop()
		return nil, errors.Join(fmt.Errorf("open the folder of all jobs: %w", err), s.lock.Unlock())
	}
	return s, nil
}

// Register adds the service to a server, which has to take messages of tens of megabytes (fnapi.ServerOptions).
func (s *Service) Register(r grpc.ServiceRegistrar) { jobpb.RegisterJobServiceServer(r, s) }

// Close cancels the jobs that run, but for those whose engine keeps them running, and waits until they have ended, or until
// ctx is done: then the error names those that have not, and they are FAILED when the server starts again. Streams end, those of jobs that never ran with UNAVAILABLE;
// so Close comes before a graceful stop of the gRPC server. Calls that come later are refused.
func (s *Service) Close(ctx context.Context) error {
	s.gate.Lock()
	s.closing = true
	s.gate.Unlock()
	all := s.sorted()
	for _, e := range all {
		if st := e.state(); live(st) && !s.detach(e) {
			e.message(jobpb.JobMessage_JOB_MESSAGE_WARNING, "The server is being stopped, so the job is cancelled.")
			s.cancel(e)
		}
	}
	var left []string
	for _, e := range all {
		if !e.wait(ctx) {
			left = append(left, e.id)
		}
	}
	var err error
	if len(left) > 0 {
		err = fmt.Errorf("jobs have not ended: %s: %w", strings.Join(left, ", "), context.Cause(ctx))
	}
	s.stop()
	s.syncing.Wait()
	for _, e := range all {
		s.cfg.Staging.Forget(e.id)
		err = errors.Join(err, e.seal())
	}
	err = errors.Join(err, s.lock.Unlock())
	if err != nil {
		return fmt.Errorf("close the job service: %w", err)
	}
	return nil
}

// live tells whether a job in this state may have something running.
func live(st jobpb.JobState_Enum) bool {
	switch st {
	case jobpb.JobState_STARTING, jobpb.JobState_RUNNING, jobpb.JobState_DRAINING, jobpb.JobState_CANCELLING:
		return true
	}
	return false
}

// sorted are all jobs, the oldest first.
func (s *Service) sorted() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*entry, 0, len(s.jobs))
	for _, e := range s.jobs {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int {
		if c := a.prepared.Compare(b.prepared); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	return all
}

// find is the job of that id; the error is a NOT_FOUND to answer with.
func (s *Service) find(id string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.jobs[id]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "this server has no job %q", id)
	}
	return e, nil
}

// enter refuses what may not begin any more; otherwise the caller is to leave again.
func (s *Service) enter() error {
	s.gate.RLock()
	if s.closing {
		s.gate.RUnlock()
		return errStopping
	}
	return nil
}

func (s *Service) leave() { s.gate.RUnlock() }

var errStopping = status.Error(codes.Unavailable, "the server is being stopped")
