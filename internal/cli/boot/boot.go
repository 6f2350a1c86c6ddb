// Package boot is the subcommand `trestle boot`: it starts an SDK's worker in a process environment.
package boot

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"trestle/internal/cli/exit"
	"trestle/internal/harness/boot"
)

// NewCommand is `trestle boot python|java|go`. Its error is an [exit.Code] when the worker ran and failed: with the
// worker's exit code, or 128+n when signal n ended it.
func NewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "Start an SDK's worker in a process environment",
		Long: `Start an SDK's worker in a process environment.

A job server runs this for pipelines that are submitted with --environment_type=PROCESS
and an environment config such as {"command": "trestle boot python"}. It asks the server
what the worker needs, fetches the staged artifacts, installs packages into a folder of
the job's own, and runs the SDK's worker program. It ends with the worker's exit code.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPython(), newJava(), newGo())
	return cmd
}

func newPython() *cobra.Command {
	var sdk boot.Python
	cmd := newSDK("python", "Start a worker of the Python SDK", func() boot.SDK { return sdk })
	cmd.Flags().StringVar(&sdk.Interpreter, "python", "", "the Python that has apache_beam (default: $VIRTUAL_ENV's, or else python3 from the PATH)")
	return cmd
}

func newJava() *cobra.Command {
	var sdk boot.Java
	var classpath string
	cmd := newSDK("java", "Start a worker of the Java SDK", func() boot.SDK {
		if classpath != "" {
			sdk.Classpath = filepath.SplitList(classpath)
		}
		return sdk
	})
	flags := cmd.Flags()
	flags.StringVar(&sdk.Command, "java", "", "the JVM's launcher (default: $JAVA_HOME's, or else java from the PATH)")
	flags.StringVar(&classpath, "classpath", "", "class path that follows the staged jars; the Beam harness must be in one of the two")
	flags.StringVar(&sdk.Heap, "heap", "", "limit of the JVM's heap, as in 2g (default: half of the memory)")
	flags.StringArrayVar(&sdk.Arguments, "jvm-arg", nil, "an argument for the JVM; may be repeated")
	return cmd
}

func newGo() *cobra.Command {
	return newSDK("go", "Start a worker of the Go SDK", func() boot.SDK { return boot.Go{} })
}

// newSDK is a language's subcommand, with the flags of the container contract.
func newSDK(use, short string, sdk func() boot.SDK) *cobra.Command {
	var cfg boot.Config
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true // from here on an error is not about the flags
			cfg.Stdout, cfg.Stderr = os.Stdout, os.Stderr
			cfg.Log = slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{NoColor: true, ReplaceAttr: plain}))
			// Boot passes signals on to the worker; the program's own way with them would end it here.
			err := boot.Run(context.WithoutCancel(cmd.Context()), cfg, sdk())
			var ended *boot.Exit
			if errors.As(err, &ended) {
				if s := ended.Signal; s != 0 && s != syscall.SIGTERM && s != syscall.SIGINT { // those are how workers are stopped
					cfg.Log.Info(ended.Error())
				}
				return &exit.Code{Status: ended.Code}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cfg.ID, "id", "", "the worker's id (required)")
	flags.StringVar(&cfg.Provision, "provision_endpoint", "", "host:port to ask for what to run (required)")
	flags.StringVar(&cfg.Logging, "logging_endpoint", "", "host:port of the logging service (default: what the provision info says)")
	flags.StringVar(&cfg.Artifact, "artifact_endpoint", "", "host:port of the artifact service (default: what the provision info says)")
	flags.StringVar(&cfg.Control, "control_endpoint", "", "host:port of the control service (default: what the provision info says)")
	flags.StringVar(&cfg.Dir, "semi_persist_dir", "", "folder for what is fetched and installed (default: the job's own)")
	return cmd
}

// plain leaves out the time and the level: the lines are a part of the job's messages, which have both.
func plain(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}
