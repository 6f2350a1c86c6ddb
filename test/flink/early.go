package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/test/cluster"
	"trestle/test/cluster/flink"
)

const (
	// cancelEarly is the fault's name, cancels how many jobs are cancelled, one after the other.
	cancelEarly = "cancel-early"
	cancels     = 30
	// youngest is the age that they get before, at most: of a third of them from when Flink lists them, of another from when one of the
	// TaskManagers has a worker, and of the last from when both have.
	youngest = time.Second
	// idleWorker is how long a worker stays that has no task and that Flink does not end: it may keep what it has of a job that was
	// cancelled while its slots were being handed over. The adapter's Limits have the number.
	idleWorker = 60 * time.Second
)

// early is a fault of many young jobs, one after the other.
type early struct {
	name string
	jobs int
	// strike has something happen to one of them.
	strike func(ctx context.Context, r *rig, y young) error
}

var struckYoung = []early{
	{cancelEarly, cancels, func(ctx context.Context, r *rig, y young) error { return r.cancelOne(ctx, y) }},
	{submitEarly, submissions, func(ctx context.Context, r *rig, y young) error { return r.submitOne(ctx, y) }},
}

// strikeEarly runs a fault's jobs, and looks at what is left of all of them.
func (r *rig) strikeEarly(ctx context.Context, f early) (one result) {
	one.cell = of("go", inProcess, onS3, onS3)
	s, err := r.serve(ctx, one.staging, f.name)
	if err != nil {
		one.err = err
		return one
	}
	start := time.Now()
	one.err = func() error {
		before, err := r.look(ctx)
		if err != nil {
			return err
		}
		for n := range f.jobs {
			if err := r.strikeYoung(ctx, f, s, n); err != nil {
				return fmt.Errorf("job %d: %w", n+1, err)
			}
		}
		last := time.Now()
		if err := r.nothingLeftIn(ctx, before, idleWorker+cluster.Patience); err != nil {
			return err
		}
		fmt.Printf("    nothing was left %.1f s after the last of %d\n", time.Since(last).Seconds(), f.jobs)
		return nil
	}()
	one.took = time.Since(start)
	one.err = errors.Join(one.err, s.Stop())
	return one
}

// young is a job that is being submitted, the n-th of a fault's.
type young struct {
	n      int
	server *server
	client *cluster.Process
	// known are the jobs that Flink had before.
	known []flink.Job
}

// strikeYoung runs a job for something to happen to, and leaves none.
func (r *rig) strikeYoung(ctx context.Context, f early, s *server, n int) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cellTimeout, fmt.Errorf("it took longer than %v", cellTimeout))
	defer cancel()
	known, err := r.flink.Jobs(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.cancelled(ctx, known)) }()
	c := of("go", inProcess, onS3, onS3)
	c.mark = fmt.Sprintf("%s-%d", f.name, n+1)
	command, _, err := r.command(c, s.endpoint)
	if err != nil {
		return err
	}
	client, err := r.cluster.Host(jobServer).Start(command)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Kill()) }()
	return f.strike(ctx, r, young{n, s, client, known})
}

// pass lets a job grow older.
func pass(ctx context.Context, age time.Duration) error {
	select {
	case <-time.After(age):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cancelOne cancels a job soon after Flink has got it, from either end in turn.
func (r *rig) cancelOne(ctx context.Context, y young) error {
	var j flink.Job
	if err := await(ctx, func() (bool, error) {
		fresh, err := r.fresh(ctx, y.known)
		if err != nil || len(fresh) == 0 {
			return false, err
		}
		j = fresh[0]
		workers, err := r.workers()
		return workers >= y.n%3, err
	}); err != nil {
		return err
	}
	age := rand.N(youngest)
	if err := pass(ctx, age); err != nil {
		return err
	}
	var err error
	if y.n/3%2 == 0 {
		err = r.flink.Cancel(ctx, j.ID)
	} else {
		err = y.server.jobs(ctx, func(client jobpb.JobServiceClient, running *jobpb.JobInfo) error {
			_, err := client.Cancel(ctx, &jobpb.CancelJobRequest{JobId: running.GetJobId()})
			return err
		})
	}
	if err != nil {
		return err
	}
	select {
	case <-y.client.Ended():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	state, err := y.server.state(ctx)
	if err != nil {
		return err
	}
	if state != jobpb.JobState_CANCELLED {
		return fmt.Errorf("cancelled %v after it was seen, it is %v: %w", age, state, r.why(ctx, y.known))
	}
	return nil
}

// workers is on how many of the TaskManagers' hosts a worker runs.
func (r *rig) workers() (n int, err error) {
	for _, h := range r.taskManagers() {
		found, err := h.Find("worker", "--scratch")
		if err != nil {
			return 0, err
		}
		if len(found) > 0 {
			n++
		}
	}
	return n, nil
}
