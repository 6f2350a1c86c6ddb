package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// jobs calls f with a client of the job server at an address.
func jobs(at string, f func(jobpb.JobServiceClient) error) (err error) {
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return f(jobpb.NewJobServiceClient(conn))
}

// running is the one job that a server runs.
func running(ctx context.Context, client jobpb.JobServiceClient) (string, error) {
	all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
	if err != nil {
		return "", err
	}
	id := ""
	for _, info := range all.GetJobInfo() {
		if info.GetState() != jobpb.JobState_RUNNING {
			continue
		}
		if id != "" {
			return "", fmt.Errorf("two jobs are running: %s and %s", id, info.GetJobId())
		}
		id = info.GetJobId()
	}
	if id == "" {
		return "", fmt.Errorf("no job is running: %v", all.GetJobInfo())
	}
	return id, nil
}

// drain asks the one job that a server runs to drain, and waits until it has.
func drain(ctx context.Context, at string) error {
	return jobs(at, func(client jobpb.JobServiceClient) error {
		id, err := running(ctx, client)
		if err != nil {
			return err
		}
		if _, err := client.Drain(ctx, &jobpb.DrainJobRequest{JobId: id}); err != nil {
			return err
		}
		return ends(ctx, client, id, jobpb.JobState_DRAINED)
	})
}

// ends waits for a job's end, which must be the one named.
func ends(ctx context.Context, client jobpb.JobServiceClient, id string, as jobpb.JobState_Enum) error {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for {
		now, err := client.GetState(ctx, &jobpb.GetJobStateRequest{JobId: id})
		if err != nil {
			return fmt.Errorf("state of job %s: %w", id, errors.Join(err, context.Cause(ctx)))
		}
		switch state := now.GetState(); state {
		case as:
			return nil
		case jobpb.JobState_DONE, jobpb.JobState_FAILED, jobpb.JobState_CANCELLED, jobpb.JobState_DRAINED:
			return fmt.Errorf("job %s is %v, not %v", id, state, as)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("job %s is %v, not %v: %w", id, now.GetState(), as, context.Cause(ctx))
		}
	}
}
