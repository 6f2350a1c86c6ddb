package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/test/process"
)

// health is how a server is after a suite.
type health struct {
	// memory is resident now, peak the most that was since the server started, in bytes.
	memory, peak int64
	// running are the ids of jobs that have not ended: tests' that took too long. They are cancelled.
	running []string
	// left are the files of jobs that no longer run.
	left []string
}

// errDead means that the server has ended, or does not answer.
var errDead = errors.New("the server is dead")

// examine looks how the server is; an error wraps errDead or is the examination's own.
func examine(ctx context.Context, s *process.Server) (h health, err error) {
	select {
	case <-s.Ended():
		return h, fmt.Errorf("%w\n%s", errDead, process.Tail(s.Log))
	default:
	}
	if h.running, err = cancelLeftovers(ctx, s.Endpoint); err != nil {
		return h, err
	}
	if h.left, err = settled(ctx, filepath.Join(s.Data, "running")); err != nil {
		return h, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return h, fmt.Errorf("%w: %w", errDead, err)
	}
	h.memory, h.peak = statusSize(status, "VmRSS"), statusSize(status, "VmHWM")
	return h, nil
}

// cancelLeftovers cancels the jobs that run, and names them.
func cancelLeftovers(ctx context.Context, endpoint string) (ids []string, err error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, process.Patience)
	defer cancel()
	client := jobpb.NewJobServiceClient(conn)
	jobs, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{}, grpc.MaxCallRecvMsgSize(1<<30))
	if err != nil {
		return nil, fmt.Errorf("%w: it does not tell its jobs: %w", errDead, err)
	}
	for _, info := range jobs.GetJobInfo() {
		switch info.GetState() {
		case jobpb.JobState_DONE, jobpb.JobState_FAILED, jobpb.JobState_CANCELLED, jobpb.JobState_DRAINED, jobpb.JobState_STOPPED:
			continue // and STOPPED is a job that was prepared and never run
		}
		ids = append(ids, info.GetJobId())
		if _, err := client.Cancel(ctx, &jobpb.CancelJobRequest{JobId: info.GetJobId()}); err != nil {
			return ids, fmt.Errorf("cancel %s: %w", info.GetJobId(), err)
		}
	}
	return ids, nil
}

// settled waits for a folder to be empty, since a job's end is told before its files are gone, and names what is still
// there after a while.
func settled(ctx context.Context, dir string) (left []string, err error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(process.Patience); ; {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if len(entries) == 0 {
			return nil, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-late:
			for _, entry := range entries {
				left = append(left, entry.Name())
			}
			return left, nil
		}
	}
}

// statusSize reads a size out of a process's status, 0 when it is not there.
func statusSize(status []byte, name string) int64 {
	found := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB$`).FindSubmatch(status)
	if found == nil {
		return 0
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}
