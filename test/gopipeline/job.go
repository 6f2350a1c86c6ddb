package gopipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/graphx"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/runnerlib"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Result is how a job ended.
type Result struct {
	State jobpb.JobState_Enum
	// Errors are its messages of importance ERROR.
	Errors []string
}

// preparing is held while the SDK gathers a pipeline's options, which are variables of the process.
var preparing sync.Mutex

// Run runs a pipeline to its end. The error is that of asking; a job that fails is a Result. When ctx ends first, the job
// is cancelled.
func (s *Server) Run(ctx context.Context, name string, p *beam.Pipeline, env Environment) (_ Result, err error) {
	conn, err := grpc.NewClient(s.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := jobpb.NewJobServiceClient(conn)
	id, err := s.submit(ctx, client, name, p, env)
	if err != nil {
		return Result{}, fmt.Errorf("submit: %w", err)
	}
	result, err := follow(ctx, client, id)
	if ctx.Err() != nil {
		_, cancelled := client.Cancel(context.WithoutCancel(ctx), &jobpb.CancelJobRequest{JobId: id})
		return result, errors.Join(context.Cause(ctx), cancelled)
	}
	return result, err
}

func (s *Server) submit(ctx context.Context, client jobpb.JobServiceClient, name string, p *beam.Pipeline, env Environment) (string, error) {
	edges, _, err := p.Build()
	if err != nil {
		return "", err
	}
	environment, err := graphx.CreateEnvironment(ctx, env.urn, func(context.Context) string { return env.config })
	if err != nil {
		return "", err
	}
	pipeline, err := graphx.Marshal(edges, &graphx.Options{Environment: environment})
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	staged := env.urn != externalURN // a pool's workers are there already
	if staged {
		if err := runnerlib.UpdateGoEnvironmentWorker(self, pipeline); err != nil {
			return "", err
		}
	} else {
		for _, e := range pipeline.GetComponents().GetEnvironments() {
			e.Dependencies = nil
		}
	}
	preparing.Lock()
	id, endpoint, token, err := runnerlib.Prepare(ctx, client, pipeline, &runnerlib.JobOptions{Name: name})
	preparing.Unlock()
	if err != nil {
		return "", err
	}
	if staged {
		if token, err = runnerlib.Stage(ctx, id, endpoint, self, token); err != nil {
			return "", err
		}
	}
	return runnerlib.Submit(ctx, client, id, token)
}

// follow reads a job's messages to their end.
func follow(ctx context.Context, client jobpb.JobServiceClient, id string) (Result, error) {
	var result Result
	stream, err := client.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: id})
	for err == nil {
		var r *jobpb.JobMessagesResponse
		if r, err = stream.Recv(); err != nil {
			break
		}
		if m := r.GetMessageResponse(); m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_ERROR {
			result.Errors = append(result.Errors, m.GetMessageText())
		}
		if state := r.GetStateResponse(); state != nil {
			result.State = state.GetState()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return result, err
}
