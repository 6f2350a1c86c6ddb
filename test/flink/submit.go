package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/test/cluster/flink"
)

const (
	// submitEarly is the fault's name, submissions how many jobs are struck while they are handed to Flink.
	submitEarly = "submit-early"
	submissions = 20
	// handing is the time after a job has come to the server in which it is struck: Flink takes some half of that to have it.
	handing = time.Second
)

// submitOne strikes a job while it is handed to Flink: it is cancelled, or the server is killed and started again, in turn. Then what
// the server says of the job must be what Flink says.
func (r *rig) submitOne(ctx context.Context, y young) error {
	s := y.server
	if err := await(ctx, func() (bool, error) {
		begun := false
		err := s.jobs(ctx, func(_ jobpb.JobServiceClient, info *jobpb.JobInfo) error {
			begun = info.GetState() != jobpb.JobState_STOPPED
			return nil
		})
		if errors.Is(err, errNoJob) {
			err = nil // not yet
		}
		return begun, err
	}); err != nil {
		return err
	}
	age := rand.N(handing)
	if err := pass(ctx, age); err != nil {
		return err
	}
	killed := y.n%2 == 0
	if killed {
		if err := s.killed(ctx); err != nil {
			return err
		}
	} else if err := s.jobs(ctx, func(client jobpb.JobServiceClient, running *jobpb.JobInfo) error {
		_, err := client.Cancel(ctx, &jobpb.CancelJobRequest{JobId: running.GetJobId()})
		return err
	}); err != nil {
		return err
	}
	state, err := s.state(ctx)
	if err != nil {
		return err
	}
	// Flink may have got it after the server had given it up.
	if err := pass(ctx, handing); err != nil {
		return err
	}
	fresh, err := r.fresh(ctx, y.known)
	if err != nil {
		return err
	}
	if !agree(state, killed, fresh) {
		return fmt.Errorf("struck %v after it came to the server (killed: %v), it is %v, and Flink has %v: %w", age, killed, state, fresh, r.why(ctx, y.known))
	}
	return nil
}

// agree says whether a job's state at the server is one that follows from what Flink has of it.
func agree(state jobpb.JobState_Enum, killed bool, fresh []flink.Job) bool {
	switch {
	case len(fresh) > 1:
		return false
	case len(fresh) == 0 && killed:
		return state == jobpb.JobState_FAILED
	case len(fresh) == 0:
		return state == jobpb.JobState_CANCELLED
	case killed:
		return state == jobpb.JobState_DONE && fresh[0].State == "FINISHED"
	}
	return state == jobpb.JobState_CANCELLED && fresh[0].State == "CANCELED"
}
