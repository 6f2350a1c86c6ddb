// Package jobs is `trestle jobs`: the jobs of a server, and what one of them tells.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type flags struct {
	server  string
	verbose bool
}

// NewCommand makes the subcommand.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "jobs [JOB]",
		Short: "List a server's jobs, or show what one of them tells",
		Long: `List the jobs of a running server, the oldest first, with the state of each. With a job's id show its states and messages from the
first one on, and those to come until it ends: attempts that failed, what a side input is waited for and since when, why the job
failed. A streaming job tells again of what it still waits for, every ten minutes at least.`,
		Example: `  trestle jobs
  trestle jobs --server jobserver:8099 go-job-1-1795751570489936692-qip2p3ku`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			conn, err := grpc.NewClient(f.server, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return fmt.Errorf("--server %s: %w", f.server, err)
			}
			defer func() { err = errors.Join(err, conn.Close()) }()
			client := jobpb.NewJobServiceClient(conn)
			if len(args) == 0 {
				err = list(cmd.Context(), client, cmd.OutOrStdout())
			} else {
				err = follow(cmd.Context(), client, args[0], cmd.OutOrStdout(), f.verbose)
			}
			if err != nil {
				return fmt.Errorf("job server %s: %w", f.server, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&f.server, "server", "127.0.0.1:8099", "the job server's host:port")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show what is of interest to developers of Trestle only, too")
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

// follow shows a job's states and messages until it has ended, or ctx has: whoever interrupts it has seen enough.
func follow(ctx context.Context, client jobpb.JobServiceClient, job string, out io.Writer, verbose bool) error {
	stream, err := client.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: job})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
			return nil
		}
		if err != nil {
			return err
		}
		if err := show(out, r, verbose); err != nil {
			return err
		}
	}
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
