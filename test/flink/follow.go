package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
)

// restartServer kills the job server and starts it again. Who follows the job by the command line is told its end, and nothing twice.
func restartServer(ctx context.Context, r *rig, s *server, _ flink.Job) error {
	follower, err := r.follow(ctx, s)
	if err != nil {
		return err
	}
	if err := s.killed(ctx); err != nil {
		return errors.Join(err, follower.Kill())
	}
	return r.followed(ctx, follower)
}

// follow starts the command line that follows the server's one job, and waits until it has told that the job runs.
func (r *rig) follow(ctx context.Context, s *server) (follower *cluster.Process, err error) {
	id := ""
	if err := s.jobs(ctx, func(_ jobpb.JobServiceClient, running *jobpb.JobInfo) error {
		id = running.GetJobId()
		return nil
	}); err != nil {
		return nil, err
	}
	follower, err = r.cluster.Host(jobServer).Start(cluster.Command{Name: "follower", Argv: []string{r.trestle, "jobs", "--server", s.endpoint, id}})
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, cluster.Patience, errors.New("the follower of the job does not tell that it runs"))
	defer cancel()
	return follower, await(limited, func() (bool, error) {
		told, err := os.ReadFile(follower.Log)
		return strings.Contains(string(told), "RUNNING"), err
	})
}

// followed waits for a follower's end, and looks at what it has told.
func (r *rig) followed(ctx context.Context, follower *cluster.Process) error {
	select {
	case <-follower.Ended():
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), follower.Kill())
	}
	text, err := os.ReadFile(follower.Log)
	if err := errors.Join(err, follower.Err()); err != nil {
		return err
	}
	told := string(text)
	seen := map[string]bool{}
	for line := range strings.Lines(told) {
		if seen[line] {
			return fmt.Errorf("the follower of the job has told twice %q; all of it:\n%s", line, told)
		}
		seen[line] = true
	}
	for _, part := range []string{" STARTING\n", " RUNNING\n", "does not answer, and is asked for", " DONE\n"} {
		if !strings.Contains(told, part) {
			return fmt.Errorf("the follower of the job has not told %q; all of it:\n%s", part, told)
		}
	}
	return nil
}
