// Package jobs is `trestle jobs`: the jobs of a server, and what one of them tells.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"trestle/internal/jobapi"
)

type flags struct {
	server  string
	verbose bool
	resume  bool
}

// NewCommand makes the subcommand.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "jobs [JOB]",
		Short: "List a server's jobs, or show what one of them tells",
		Long: `List the jobs of a running server, the oldest first, with the state of each. With a job's id show its states and messages from the
first one on, and those to come until it ends: attempts that failed, what a side input is waited for and since when, why the job
failed. With --resume have a streaming job of the embedded engine which has FAILED go on from its last snapshot, once what it failed of
is mended: its messages then go on, too. A server that is restarted meanwhile is asked again. A streaming job tells again of what it still waits for, every ten minutes at least.`,
		Example: `  trestle jobs
  trestle jobs --server jobserver:8099 go-job-1-1795751570489936692-qip2p3ku
  trestle jobs --resume go-job-1-1795751570489936692-qip2p3ku`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			conn, err := grpc.NewClient(f.server, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return fmt.Errorf("--server %s: %w", f.server, err)
			}
			defer func() { err = errors.Join(err, conn.Close()) }()
			client := jobpb.NewJobServiceClient(conn)
			switch {
			case f.resume && len(args) == 0:
				return errors.New("--resume: name the job that is to go on")
			case f.resume:
				err = resume(cmd.Context(), client, args[0], cmd.OutOrStdout())
			case len(args) == 0:
				err = list(cmd.Context(), client, cmd.OutOrStdout())
			default:
				err = follow(cmd.Context(), client, args[0], cmd.OutOrStdout(), cmd.ErrOrStderr(), f.verbose)
			}
			if err != nil {
				return fmt.Errorf("job server %s: %w", f.server, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.server, "server", "127.0.0.1:8099", "the job server's host:port")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show what is of interest to developers of Trestle only, too")
	cmd.Flags().BoolVar(&f.resume, "resume", false, "have a job that has FAILED go on from its last snapshot")
	return cmd
}

// answerTimeout is how long the server may take to list its jobs.
const answerTimeout = 20 * time.Second

func list(ctx context.Context, client jobpb.JobServiceClient, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := client.GetJobs(ctx, &jobpb.GetJobsRequest{})
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, j := range r.GetJobInfo() {
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\n", j.GetJobId(), j.GetState(), j.GetJobName()); err != nil {
			return err
		}
	}
	return table.Flush()
}

// resume has a job go on that has failed, and says so.
func resume(ctx context.Context, client jobpb.JobServiceClient, job string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := client.Run(ctx, &jobpb.RunJobRequest{PreparationId: jobapi.Resumption + job})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s goes on; `trestle jobs %s` tells how\n", r.GetJobId(), r.GetJobId())
	return err
}

// follow shows a job's states and messages until it has ended, or ctx has: whoever interrupts it has seen enough. A server that
// goes away in the middle is asked again, and goes on where it was: it may be restarted, and jobs outlive that.
func follow(ctx context.Context, client jobpb.JobServiceClient, job string, out, notes io.Writer, verbose bool) error {
	f := &follower{out: out, verbose: verbose}
	for {
		err := f.read(ctx, client, job)
		over := errors.Is(err, io.EOF) || ctx.Err() != nil || status.Code(err) == codes.Canceled
		switch {
		case over:
			return nil // the job has ended, or whoever looked on has seen enough
		case status.Code(err) != codes.Unavailable || f.heard.IsZero() || time.Since(f.heard) > patience:
			return err
		}
		if !f.told {
			f.told = true
			if _, err := fmt.Fprintf(notes, "the job server does not answer, and is asked for %v: %v\n", patience, status.Convert(err).Message()); err != nil {
				return err
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

const (
	// patience is for how long a server that has told of a job may be away: one that is restarted takes some seconds.
	patience = 2 * time.Minute
	// pause is between two questions to a server that is away.
	pause = 200 * time.Millisecond
)

// follower knows how much of a job has been shown: every stream of it begins with the first message.
type follower struct {
	out     io.Writer
	verbose bool
	heard   time.Time // when the server told anything last
	told    bool      // that it is away, since then
	message int       // the number of the last message
	states  int       // how many states
}

// read shows what is new in one stream, until that ends.
func (f *follower) read(ctx context.Context, client jobpb.JobServiceClient, job string) error {
	stream, err := client.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: job})
	if err != nil {
		return err
	}
	states := 0 // in this stream
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		f.heard, f.told = time.Now(), false
		if r.GetStateResponse() != nil {
			states++
		}
		if !f.fresh(r, states) {
			continue
		}
		if err := show(f.out, r, f.verbose); err != nil {
			return err
		}
	}
}

// fresh tells whether something has not come before, and notes that it has. A state is the one of that number in its stream.
func (f *follower) fresh(r *jobpb.JobMessagesResponse, states int) bool {
	if r.GetStateResponse() != nil {
		if states <= f.states {
			return false
		}
		f.states = states
		return true
	}
	n, err := strconv.Atoi(r.GetMessageResponse().GetMessageId())
	if err != nil {
		return true // a server of another kind numbers them otherwise, and nothing of it is left out
	}
	if n <= f.message {
		return false
	}
	f.message = n
	return true
}

func show(out io.Writer, r *jobpb.JobMessagesResponse, verbose bool) error {
	if s := r.GetStateResponse(); s != nil {
		_, err := fmt.Fprintf(out, "%s %s\n", s.GetTimestamp().AsTime().Format(time.RFC3339), s.GetState())
		return err
	}
	m := r.GetMessageResponse()
	if m.GetImportance() < jobpb.JobMessage_JOB_MESSAGE_DETAILED && !verbose {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s %s\n", m.GetTime(), m.GetMessageText())
	return err
}
