// Package cli is the trestle command: its root, and what its subcommands, each in a package of its own, have in common.
//
// Standard output is for data (endpoints, plans), standard error for people.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"trestle/internal/cli/boot"
	"trestle/internal/cli/doctor"
	"trestle/internal/cli/exit"
	"trestle/internal/cli/explain"
	"trestle/internal/cli/jobs"
	"trestle/internal/cli/probe"
	"trestle/internal/cli/run"
	"trestle/internal/cli/serve"
	"trestle/internal/cli/worker"
)

// Version is the program's version, set by the linker.
var Version = "development"

// Main runs the program with the process's arguments and returns its exit code.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return exitCode(NewCommand().ExecuteContext(ctx))
}

// NewCommand makes the root command.
func NewCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "trestle",
		Short:         "Run Apache Beam pipelines",
		Long:          "Trestle runs Apache Beam pipelines, written with any SDK, on its own embedded engine.",
		Version:       Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serve.NewCommand(), run.NewCommand(), explain.NewCommand(), jobs.NewCommand(), boot.NewCommand(), worker.NewCommand(&Version), probe.NewCommand(&Version), doctor.NewCommand())
	return root
}

func exitCode(err error) int {
	var code *exit.Code
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.Status
	default:
		fmt.Fprintln(os.Stderr, "trestle:", err)
		return 1
	}
}
