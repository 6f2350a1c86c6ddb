package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/test/cluster"
)

// bad is a job with which something is wrong, and what its user is to read about it: all of says, in the program's output or in
// the job's messages.
type bad struct {
	name, environment string
	// staging is onS3 when it is "". With it, server adds to the job server's options, and argv to the program's.
	staging      string
	server, argv []string
	// cut is a host that the TaskManagers' cannot reach; there is none when it is "".
	cut string
	// store does something to the staging store when the job server is up, and returns what undoes that.
	store func(ctx context.Context, r *rig) (undo func(context.Context) error, err error)
	// engines starts container engines on the TaskManagers' hosts before.
	engines bool
	// runs is set where the job succeeds all the same.
	runs bool
	says []string
}

var bads = []bad{
	{name: "flink-unreachable", environment: inProcess, server: []string{"--flink", "http://jobmanager:9"},
		says: []string{"the Flink at http://jobmanager:9 cannot be reached from jobserver", "refused"}},
	{name: "slots", environment: inProcess, runs: true, argv: []string{"--parallelism=16"},
		says: []string{"It wants 16 slots", "cluster's 4, 4 are free: 12 are missing"}},
	{name: "user-code", environment: inProcess, argv: []string{"--output=s3://trestle-nowhere/out"},
		says: []string{"textio", "trestle-nowhere", "host taskmanager"}},
	{name: "server-unreachable", environment: inProcess, staging: onNothing, cut: jobServer, says: []string{"jobserver:8099", "taskmanager", "--advertise"}},
	{name: "store-down", environment: inProcess, store: storeDown,
		says: []string{"the artifact store (--staging) cannot be used", "s3://trestle/staging", "from host jobserver", "refused"}},
	// In a folder of its own, where no job before has left what is to be staged.
	{name: "store-read-only", environment: inProcess, store: storeReadOnly, server: []string{"--staging", "s3://trestle/staging-read-only"},
		says: []string{"artifacts/", "s3://trestle/staging", "from host jobserver", "permission denied"}},
	{name: "store-unreachable", environment: inProcess, cut: storageHost,
		says: []string{"artifact", "s3://trestle/staging", "from host taskmanager", "no route to host"}},
	{name: "engine-by-option", environment: inProcess, runs: true, server: []string{"--engine", "local"}, argv: []string{"--experiments=engine=flink"},
		says: []string{"Flink at http://jobmanager:8081 has the job as "}},
	{name: "harness-dies", environment: inProcess, argv: []string{"--worker_binary=/bin/false"}, says: []string{"exit", "host taskmanager"}},
	{name: "no-container-engine", environment: inDocker, says: []string{"docker on host taskmanager", "does not answer"}},
	{name: "no-image", environment: inDocker, engines: true, argv: []string{"--environment_config=trestle-test/none"}, says: []string{"trestle-test/none", "host taskmanager"}},
	{name: "container-dies", environment: inDocker, engines: true, argv: []string{"--worker_binary=/bin/false"}, says: []string{"container", "exit", "host taskmanager"}},
}

// try runs a bad job, and looks at what its user reads and at what is left of it.
func (r *rig) try(ctx context.Context, b bad) (one result) {
	one.cell = of("go", b.environment, onS3, onS3)
	one.mark = b.name
	if b.staging != "" {
		one.staging = b.staging
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cellTimeout, fmt.Errorf("it took longer than %v", cellTimeout))
	defer cancel()
	if b.engines {
		for _, h := range r.taskManagers() {
			if r.engines[h.Name] != nil {
				continue
			}
			if one.err = r.loadImage(ctx, h, "go"); one.err != nil {
				return one
			}
		}
	}
	if b.cut != "" {
		if one.err = r.cut(ctx, "add", b.cut); one.err != nil {
			return one
		}
		defer func() { one.err = errors.Join(one.err, r.cut(context.WithoutCancel(ctx), "del", b.cut)) }()
	}
	before, err := r.look(ctx)
	if err != nil {
		one.err = err
		return one
	}
	known, err := r.flink.Jobs(ctx)
	if err != nil {
		one.err = err
		return one
	}
	s, err := r.serve(ctx, one.staging, b.name, b.server...)
	if err != nil {
		one.err = err
		return one
	}
	start := time.Now()
	if b.store == nil {
		one.err = r.tryOn(ctx, s, b, &one)
	} else {
		one.err = r.withStore(ctx, b, func() error { return r.tryOn(ctx, s, b, &one) })
	}
	one.took = time.Since(start)
	one.err = errors.Join(one.err, r.cancelled(ctx, known), r.nothingLeft(ctx, before), s.Stop())
	return one
}

// withStore does something while the staging store is not as it should be.
func (r *rig) withStore(ctx context.Context, b bad, do func() error) error {
	undo, err := b.store(ctx, r)
	if err != nil {
		return err
	}
	err = do()
	return errors.Join(err, undo(context.WithoutCancel(ctx)))
}

// storeDown kills the S3 server.
func storeDown(_ context.Context, r *rig) (undo func(context.Context) error, err error) {
	return r.s3.Revive, r.s3.Process().Kill()
}

// storeReadOnly has another S3 server in its place, which has the same objects and takes no more.
func storeReadOnly(ctx context.Context, r *rig) (undo func(context.Context) error, err error) {
	other, err := r.s3.ReadOnly(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return errors.Join(other.Kill(), r.s3.Revive(ctx)) }, nil
}

// cut adds or deletes what keeps the TaskManagers' hosts from reaching another.
func (r *rig) cut(ctx context.Context, action, from string) error {
	for _, h := range r.taskManagers() {
		argv := []string{"ip", "route", action, "unreachable", r.cluster.Host(from).IP.String() + "/32"}
		if _, err := h.Run(ctx, cluster.Command{Name: "route", Argv: argv}); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) tryOn(ctx context.Context, s *server, b bad, one *result) error {
	command, words, err := r.command(one.cell, s.endpoint)
	if err != nil {
		return err
	}
	command.Argv = append(command.Argv, b.argv...)
	said, failure := r.cluster.Host(jobServer).Run(ctx, command)
	if ctx.Err() != nil {
		return failure
	}
	if failure != nil {
		said += failure.Error()
	}
	messages, err := s.messages(ctx)
	if err != nil {
		return err
	}
	said += "\n" + messages
	if b.runs && failure != nil {
		return failure
	}
	if !b.runs && failure == nil {
		return fmt.Errorf("the program ended well; what there was to read:\n%s", said)
	}
	for _, part := range b.says {
		if !strings.Contains(said, part) {
			return fmt.Errorf("nowhere is %q in what there was to read:\n%s", part, said)
		}
	}
	if !b.runs {
		return nil
	}
	one.got, err = r.exact(ctx, one.cell, words)
	return err
}

// messages are those of all jobs of a server, which have ended or were never run.
func (s *server) messages(ctx context.Context) (_ string, err error) {
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := jobpb.NewJobServiceClient(conn)
	all, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, info := range all.GetJobInfo() {
		if info.GetState() == jobpb.JobState_STOPPED {
			continue // its artifacts could not be staged, and it was not run
		}
		stream, err := client.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: info.GetJobId()})
		if err != nil {
			return "", err
		}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return "", err
			}
			if m := r.GetMessageResponse(); m != nil {
				fmt.Fprintf(&text, "%s: %s\n", m.GetImportance(), m.GetMessageText())
			}
		}
	}
	return text.String(), nil
}
