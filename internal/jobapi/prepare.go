package jobapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/job"
	"trestle/internal/kit/trailer"
	"trestle/internal/store/journal"
)

// preparation is what a preparation id has before the job's id: see the package's comment for why the two differ. No
// job id has a colon.
const preparation = "prepared:"

// Prepare checks a pipeline and keeps it. INVALID_ARGUMENT has every reason why it cannot run; nothing of a refused job
// is left behind.
func (s *Service) Prepare(ctx context.Context, req *jobpb.PrepareJobRequest) (*jobpb.PrepareJobResponse, error) {
	p, options := req.GetPipeline(), req.GetPipelineOptions()
	name := jobName(req.GetJobName(), options)
	if err := s.check(ctx, p, options); err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		s.cfg.Log.Info("refused a pipeline", "name", name, "error", err)
		return nil, trailer.Status(codes.InvalidArgument, fmt.Sprintf("pipeline %q cannot run: %v", name, err))
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	e, err := s.keep(name, p, options)
	if err != nil {
		s.cfg.Log.Error("prepare a job", "name", name, "error", err)
		return nil, trailer.Status(codes.Internal, fmt.Sprintf("prepare job %q: %v", name, err))
	}
	dependencies := make(map[string][]*pipepb.ArtifactInformation)
	for id, env := range p.GetComponents().GetEnvironments() {
		if d := env.GetDependencies(); len(d) > 0 {
			dependencies[id] = d
		}
	}
	s.cfg.Staging.Begin(e.id, dependencies)
	s.mu.Lock()
	s.jobs[e.id] = e
	s.mu.Unlock()
	s.cfg.Log.Info("prepared a job", "job", e.id)
	return &jobpb.PrepareJobResponse{
		PreparationId:           preparation + e.id,
		ArtifactStagingEndpoint: &pipepb.ApiServiceDescriptor{Url: s.cfg.ArtifactEndpoint()},
		StagingSessionToken:     e.id,
	}, nil
}

func (s *Service) check(ctx context.Context, p *pipepb.Pipeline, options *structpb.Struct) error {
	if p == nil {
		return errors.New("the request has no pipeline")
	}
	return s.cfg.Runner.Check(ctx, p, options)
}

// keep makes the job's folder. The event log's first record comes last: a folder without it is none of a job's. None of
// it is durable until Run, without which it is worth nothing; but the disk begins with it now, while the client stages.
func (s *Service) keep(name string, p *pipepb.Pipeline, options *structpb.Struct) (*entry, error) {
	id, dir, err := s.makeFolder(name)
	if err != nil {
		return nil, err
	}
	e, err := s.fill(id, dir, name, p, options)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	e.durable = sync.OnceValue(func() error {
		return errors.Join(syncFile(filepath.Join(dir, pipelineFile)), e.sync(), syncFile(s.dir))
	})
	s.syncing.Go(func() { _ = e.durable() }) // Run tells what it says
	return e, nil
}

func (s *Service) fill(id, dir, name string, p *pipepb.Pipeline, options *structpb.Struct) (*entry, error) {
	b, err := proto.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the pipeline: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, pipelineFile), b, 0o644); err != nil {
		return nil, fmt.Errorf("write the pipeline: %w", err)
	}
	now := s.cfg.Clock()
	first := &job.Prepared{
		Info:     &jobpb.JobInfo{JobId: id, JobName: name, PipelineOptions: options},
		Pipeline: job.PipelineRef{File: pipelineFile, Size: int64(len(b)), SHA256: sha256.Sum256(b)},
		Time:     timestamppb.New(now),
	}
	record, err := job.Encode(first)
	if err != nil {
		return nil, err
	}
	e := s.newEntry(id, dir)
	e.startable = true
	if err := e.life.Apply(first); err != nil {
		return nil, err
	}
	e.prepared = now
	e.journal, err = journal.Create(e.path(), e.options)
	if err != nil {
		return nil, err
	}
	if err := e.journal.Append(record, journal.Buffered); err != nil {
		return nil, errors.Join(err, e.journal.Close())
	}
	return e, nil
}

// makeFolder makes a folder for a job, and so an id that no other has: the name's slug, to be recognised, and eight
// random letters.
func (s *Service) makeFolder(name string) (id, dir string, err error) {
	for {
		var random [5]byte
		if _, err := rand.Read(random[:]); err != nil {
			return "", "", fmt.Errorf("make a job id: %w", err)
		}
		id := slug(name) + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(random[:]))
		dir := filepath.Join(s.dir, id)
		switch err := os.Mkdir(dir, 0o755); {
		case err == nil:
			return id, dir, nil
		case !errors.Is(err, fs.ErrExist):
			return "", "", fmt.Errorf("make the job's folder: %w", err)
		}
	}
}

// slug is a name in lower-case letters, digits and single hyphens, fit for a file name.
func slug(name string) string {
	const longest = 40
	var b strings.Builder
	gap := false
	for _, r := range strings.ToLower(name) {
		if r < 'a' && (r < '0' || r > '9') || r > 'z' {
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte('-')
			gap = false
		}
		b.WriteRune(r)
		if b.Len() >= longest {
			break
		}
	}
	if b.Len() == 0 {
		return "job"
	}
	return b.String()
}

// jobName is what the job is listed by. Python's client calls every job "job" and has the user's name in an option;
// TypeScript's sends none.
func jobName(requested string, options *structpb.Struct) string {
	if requested != "" && requested != "job" {
		return requested
	}
	for _, option := range []string{"job_name", "app_name"} {
		if name, ok := job.Option(options, option); ok && name.GetStringValue() != "" {
			return name.GetStringValue()
		}
	}
	return "job"
}

// syncFile makes a file's contents, or the names in a folder, durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
