// Package doctor is `trestle doctor`: it tries, before any job and from every host, what jobs on an engine need.
package doctor

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"trestle/internal/cli/exit"
	"trestle/internal/cli/serverflags"
	"trestle/internal/obs"
	"trestle/internal/server"
)

type flags struct {
	server            serverflags.Flags
	containers        serverflags.Containers
	listen, advertise string
}

// NewCommand makes the subcommand.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Try what jobs need, before any job and from every host",
		Long: `Try what jobs need, before any job and from every host: Flink's version against the adapters of this program, the
staging store, the way back to the job server, the container engine, free disk. Give it the flags that trestle serve gets. Each line
says what was tried, from which host, and what to do. The exit status is 1 when something that every job needs is missing.`,
		Example: `  trestle doctor --engine flink --flink http://jobmanager:8081 --staging s3://bucket/path`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.server.Version = cmd.Root().Version
			return run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), f)
		},
	}
	cmd.Flags().StringVar(&f.listen, "listen", server.DefaultListen, "host:port on which the server listens, or is to listen")
	cmd.Flags().StringVar(&f.advertise, "advertise", "", "host:port under which others reach the server (default: where it listens)")
	f.server.Bind(cmd.Flags())
	f.containers.Bind(cmd.Flags())
	return cmd
}

// marks begin the lines.
var marks = map[server.Grade]string{server.Good: "ok  ", server.Lacking: "note", server.Bad: "FAIL"}

func run(ctx context.Context, stdout, stderr io.Writer, f flags) error {
	cfg, err := f.server.Config()
	if err != nil {
		return err
	}
	cfg.Listen, cfg.Advertise = f.listen, f.advertise
	if cfg.Containers, err = f.containers.Config(); err != nil {
		return err
	}
	cfg.Log = obs.Warnings(stderr)
	failed := false
	err = server.Examine(ctx, cfg, func(host, text string, g server.Grade) {
		failed = failed || g == server.Bad
		fmt.Fprintf(stdout, "%s  %s  %s\n", marks[g], host, text)
	})
	if err == nil && failed {
		return &exit.Code{Status: 1}
	}
	return err
}
