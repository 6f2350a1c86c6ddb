package jobapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"trestle/internal/job"
	"trestle/internal/kit/trailer"
)

// FirstStateWait is how long the first GetState after Run waits for the job's end. Java's client asks at once and then
// every three seconds: so a job that is done in less than this takes it as long as it takes, and not three seconds. It
// is short enough for a person who asks, and only ever spent once in a job's life.
const FirstStateWait = time.Second

// maxOptions bounds the options that GetJobs answers with, in bytes, all jobs together: clients refuse an answer of over
// 4 MiB, and a server that has seen thousands of jobs is to list them none the less.
const maxOptions = 3 << 20

// GetJobs lists all jobs, the oldest first. Where the options of all are too many for one answer, the oldest jobs are
// listed without theirs.
func (s *Service) GetJobs(context.Context, *jobpb.GetJobsRequest) (*jobpb.GetJobsResponse, error) {
	all := s.sorted()
	infos := make([]*jobpb.JobInfo, len(all))
	options := 0
	for i := len(all) - 1; i >= 0; i-- {
		infos[i] = all[i].info()
		if options += proto.Size(infos[i].GetPipelineOptions()); options > maxOptions {
			infos[i].PipelineOptions = nil
		}
	}
	return &jobpb.GetJobsResponse{JobInfo: infos}, nil
}

// Known tells whether there is anything of a job of this id, if only a log that cannot be read.
func (s *Service) Known(id string) bool {
	s.mu.Lock()
	e := s.jobs[id]
	s.mu.Unlock()
	if e != nil {
		return true
	}
	_, err := os.Stat(filepath.Join(s.dir, id))
	return !errors.Is(err, fs.ErrNotExist)
}

// GetState is the job's state and since when it is in it. See [FirstStateWait].
func (s *Service) GetState(ctx context.Context, req *jobpb.GetJobStateRequest) (*jobpb.JobStateEvent, error) {
	e, err := s.find(req.GetJobId())
	if err != nil {
		return nil, err
	}
	if e.firstPoll() {
		wait := time.NewTimer(FirstStateWait)
		defer wait.Stop()
		select {
		case <-e.ending():
		case <-wait.C:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return e.stateEvent(), nil
}

// firstPoll is true once, for a job that this server has started or attached to.
func (e *entry) firstPoll() bool {
	e.control.Lock()
	defer e.control.Unlock()
	if e.polled || e.abandon == nil {
		return false
	}
	e.polled = true
	return true
}

// GetPipeline is the pipeline as it was submitted.
func (s *Service) GetPipeline(_ context.Context, req *jobpb.GetJobPipelineRequest) (*jobpb.GetJobPipelineResponse, error) {
	e, err := s.find(req.GetJobId())
	if err != nil {
		return nil, err
	}
	p, err := e.pipeline()
	if err != nil {
		return nil, s.failure(e, err)
	}
	return &jobpb.GetJobPipelineResponse{Pipeline: p}, nil
}

// GetJobMetrics is what the engine reported last.
func (s *Service) GetJobMetrics(ctx context.Context, req *jobpb.GetJobMetricsRequest) (*jobpb.GetJobMetricsResponse, error) {
	e, err := s.find(req.GetJobId())
	if err != nil {
		return nil, err
	}
	m, err := e.lastMetrics(ctx)
	if err != nil {
		return nil, s.failure(e, err)
	}
	return &jobpb.GetJobMetricsResponse{Metrics: m}, nil
}

// GetStateStream sends all states from the first one on, and ends after the last.
func (s *Service) GetStateStream(req *jobpb.GetJobStateRequest, stream jobpb.JobService_GetStateStreamServer) error {
	return s.stream(stream.Context(), req.GetJobId(), func(r job.Record) error {
		if st := job.StateEvent(r); st != nil {
			return stream.Send(st)
		}
		return nil
	})
}

// GetMessageStream sends all messages and states, in the order in which they came, and ends after the last state.
func (s *Service) GetMessageStream(req *jobpb.JobMessagesRequest, stream jobpb.JobService_GetMessageStreamServer) error {
	return s.stream(stream.Context(), req.GetJobId(), func(r job.Record) error {
		if m, ok := r.(*job.Message); ok {
			return stream.Send(&jobpb.JobMessagesResponse{
				Response: &jobpb.JobMessagesResponse_MessageResponse{MessageResponse: m.JobMessage}})
		}
		if st := job.StateEvent(r); st != nil {
			return stream.Send(&jobpb.JobMessagesResponse{
				Response: &jobpb.JobMessagesResponse_StateResponse{StateResponse: st}})
		}
		return nil
	})
}

// stream sends a job's records until the one with a terminal state after which it has not been resumed. It runs in the call's own
// goroutine, and reads the log no faster than the client takes it.
func (s *Service) stream(ctx context.Context, id string, send func(job.Record) error) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	last, states := jobpb.JobState_UNSPECIFIED, 0
	err = e.read(ctx, func(r job.Record) (bool, error) {
		if err := send(r); err != nil {
			return false, err
		}
		if st := job.StateEvent(r); st != nil {
			last = st.GetState()
			states++
		}
		return !job.Terminal(last) || e.resumedAfter(states), nil
	})
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return s.failure(e, err)
	case job.Terminal(last):
		return nil
	}
	// The log ended before the job did: the server ends, or the disk refused the last state.
	rest := e.unwritten()
	if rest == nil {
		return errStopping
	}
	for _, r := range rest {
		if err := send(r); err != nil {
			return err
		}
	}
	return nil
}

// failure is an error of the server's own, which its log tells of as well.
func (s *Service) failure(e *entry, err error) error {
	code := codes.Internal
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := s.find(e.id); gone != nil {
			return gone // it was removed meanwhile
		}
		code = codes.DataLoss
	}
	s.cfg.Log.Error("answer about a job", "job", e.id, "error", err)
	return trailer.Status(code, fmt.Sprintf("job %s: %v", e.id, err))
}
