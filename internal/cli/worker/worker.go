// Package worker is the subcommand `trestle worker`: it hosts a job's tasks beside an engine that runs elsewhere.
package worker

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"trestle/internal/cli/serverflags"
	"trestle/internal/obs"
	"trestle/internal/worker"
)

// NewCommand is the subcommand; version is the program's. People do not call it: it is hidden.
func NewCommand(version *string) *cobra.Command {
	var scratch string
	var tasks int
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Host a job's tasks beside an engine's own worker",
		Long: `Host a job's tasks beside an engine's own worker.

The adapter in a Flink TaskManager starts this, brings the job on standard input, and drives the job's tasks over sockets
(docs/protocols/socket.md). It ends when standard input does.`,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if scratch == "" {
				return errors.New("--scratch is missing: a folder that the worker makes and removes")
			}
			// A TaskManager that is killed takes the reader of the log with it. The worker is to clean up all the same, and not
			// to be killed by its next line. Not ignored, since what it starts would inherit that.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
			return worker.Run(cmd.Context(), worker.Config{
				Version: *version,
				Scratch: scratch,
				Tasks:   tasks,
				Stdin:   os.Stdin,
				Stdout:  cmd.OutOrStdout(),
				Log:     obs.NewLogger(cmd.ErrOrStderr(), false),
			}, serverflags.LimitHeap)
		},
	}
	cmd.Flags().StringVar(&scratch, "scratch", "", "folder for the worker's files (required)")
	cmd.Flags().IntVar(&tasks, "tasks", 1, "how many tasks of a stage the engine may run here side by side")
	return cmd
}
