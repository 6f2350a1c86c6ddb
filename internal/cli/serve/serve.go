// Package serve is `trestle serve`: a job server.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"trestle/internal/cli/sdk"
	"trestle/internal/cli/serverflags"
	"trestle/internal/obs"
	"trestle/internal/server"
)

type flags struct {
	server     serverflags.Flags
	containers serverflags.Containers
	listen     string
	advertise  string
	pprof      string
	verbose    bool
}

// NewCommand makes the subcommand.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve Beam's job API",
		Long: `Serve Beam's job API, with the embedded engine. Prints the endpoint on standard output, and for each SDK the options
that send a pipeline to it. Ends, with its jobs, on SIGINT or SIGTERM.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.server.Version = cmd.Root().Version
			return run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), f)
		},
	}
	cmd.Flags().StringVar(&f.listen, "listen", server.DefaultListen, "host:port for all services; port 0 takes any free one")
	cmd.Flags().StringVar(&f.advertise, "advertise", "", "host:port under which others reach the server (default: where it listens)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log what harnesses log")
	cmd.Flags().StringVar(&f.pprof, "pprof", "", "loopback host:port for profiles of the server (net/http/pprof)")
	cmd.Flags().Lookup("pprof").Hidden = true // for those who work on trestle
	f.server.Bind(cmd.Flags())
	f.containers.Bind(cmd.Flags())
	return cmd
}

// stopTimeout is how long running jobs get to end when the server is told to stop.
const stopTimeout = 20 * time.Second

func run(ctx context.Context, stdout, stderr io.Writer, f flags) (err error) {
	cfg, err := f.server.Config()
	if err != nil {
		return err
	}
	if cfg.Containers, err = f.containers.Config(); err != nil {
		return err
	}
	serverflags.LimitHeap(cfg.Memory)
	cfg.Listen, cfg.Advertise = f.listen, f.advertise
	cfg.Log = obs.NewLogger(stderr, f.verbose)
	if f.pprof != "" {
		stop, failed := serveProfiles(f.pprof)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	s, err := server.Start(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s\n", s.Endpoint())
	fmt.Fprintf(stderr, "Trestle listens on %s. Options to send a pipeline there, by SDK:\n", s.Endpoint())
	for _, kind := range sdk.Kinds {
		fmt.Fprintf(stderr, "  %-10s  %s\n", kind.Name, kind.Line(s.Endpoint()))
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(stderr, "Stopping.")
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return s.Stop(stop)
	case err := <-s.Done():
		stop, cancel := context.WithTimeout(ctx, stopTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("the server ended: %w", err), s.Stop(stop))
	}
}
