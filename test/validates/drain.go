package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// drainedTest reads without end until its job is drained: then its DoFn truncates what it reads to twenty numbers more. Beam
// leaves the draining to whoever runs it.
const drainedTest = "primitives.TestDrain"

// drainedJob is how the name begins that Beam's test gives its job.
const drainedJob = "go-testdrain"

// drain drains the job whose name begins so when it has read something, and waits until it has ended, as DRAINED.
func drain(ctx context.Context, endpoint, name string) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := jobpb.NewJobServiceClient(conn)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for asked := false; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the job %s was not drained: %w", name, context.Cause(ctx))
		}
		jobs, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
		if err != nil {
			return err
		}
		for _, info := range jobs.GetJobInfo() {
			if !strings.HasPrefix(info.GetJobName(), name) {
				continue
			}
			switch state := info.GetState(); {
			case state == jobpb.JobState_DRAINED:
				return nil
			case state == jobpb.JobState_DONE || state == jobpb.JobState_FAILED || state == jobpb.JobState_CANCELLED:
				return fmt.Errorf("the job %s ended as %v, not as DRAINED", name, state)
			case asked || state != jobpb.JobState_RUNNING:
				continue
			}
			metrics, err := client.GetJobMetrics(ctx, &jobpb.GetJobMetricsRequest{JobId: info.GetJobId()})
			if err != nil {
				return err
			}
			if len(metrics.GetMetrics().GetCommitted()) == 0 {
				continue // no bundle has ended yet
			}
			if _, err := client.Drain(ctx, &jobpb.DrainJobRequest{JobId: info.GetJobId()}); err != nil {
				return err
			}
			asked = true
		}
	}
}
