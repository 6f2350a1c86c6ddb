// Package run is `trestle run -- COMMAND`: a server for the life of one program that submits pipelines to it.
package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"trestle/internal/cli/exit"
	"trestle/internal/cli/sdk"
	"trestle/internal/cli/serverflags"
	"trestle/internal/obs"
	"trestle/internal/server"
)

// EndpointVariable is the environment variable in which the program finds the server's endpoint.
const EndpointVariable = "TRESTLE_ENDPOINT"

type flags struct {
	server  serverflags.Flags
	sdk     string
	verbose bool
}

// NewCommand makes the subcommand.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARG ...]",
		Short: "Run a program that submits pipelines",
		Long: `Start a server, run the program with the pipeline options that send its pipelines there (added at the end of its
arguments, as its SDK wants them; the endpoint is also in ` + EndpointVariable + `), and show the jobs' progress. The exit status is the
program's own, or 1 when a job failed, or had not ended when the program did, and the program did not say so.`,
		Example: `  trestle run -- python my_pipeline.py --input=text.txt
  trestle run -- go run ./my/pipeline
  trestle run -- java -cp my-pipeline.jar org.example.MyPipeline`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.server.Version = cmd.Root().Version
			return run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args, f)
		},
	}
	cmd.Flags().StringVar(&f.sdk, "sdk", "", "the program's SDK: python, java, go or typescript (default: told from the command)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log what harnesses log")
	f.server.Bind(cmd.Flags())
	return cmd
}

const (
	// stopTimeout is how long jobs get to end when the program has ended before them.
	stopTimeout = 20 * time.Second
	// killDelay is how long the program gets to end after a signal.
	killDelay = 10 * time.Second
)

func run(ctx context.Context, stdout, stderr io.Writer, command []string, f flags) error {
	kind, err := chosen(f.sdk, command)
	if err != nil {
		return err
	}
	cfg, err := f.server.Config()
	if err != nil {
		return err
	}
	serverflags.LimitHeap(cfg.Memory)
	cfg.Listen = "127.0.0.1:0"
	cfg.Log = obs.NewLogger(stderr, f.verbose)
	if !f.verbose {
		cfg.Log = obs.Warnings(stderr)
	}
	s, err := server.Start(ctx, cfg)
	if err != nil {
		return err
	}
	watch, err := watchJobs(s.Endpoint(), stderr)
	if err != nil {
		return errors.Join(err, stop(ctx, s))
	}
	err = program(ctx, stdout, stderr, append(command, kind.Options(s.Endpoint())...), s.Endpoint())
	watch.settle()
	stopped := stop(ctx, s)
	if failed := watch.failures(); err == nil && failed > 0 {
		err = &exit.Code{Status: 1} // the reason has been shown
	}
	return errors.Join(err, stopped)
}

func stop(ctx context.Context, s *server.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return s.Stop(ctx)
}

func chosen(name string, command []string) (sdk.Kind, error) {
	if name != "" {
		return sdk.ByName(name)
	}
	return sdk.Detect(command)
}

// program runs the user's program to its end.
func program(ctx context.Context, stdout, stderr io.Writer, command []string, endpoint string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.Env = append(os.Environ(), EndpointVariable+"="+endpoint)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = killDelay
	err := cmd.Run()
	var exited *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exited) && exited.ExitCode() > 0:
		return &exit.Code{Status: exited.ExitCode()}
	default:
		return fmt.Errorf("run %s: %w", strings.Join(command, " "), err)
	}
}
