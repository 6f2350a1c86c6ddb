// Package probe is the subcommand `trestle probe`: it tries from this host what workers need.
package probe

import (
	"os"

	"github.com/spf13/cobra"

	"trestle/internal/worker"
)

// NewCommand is the subcommand; version is the program's. People do not call it: trestle doctor has an engine's hosts do.
func NewCommand(version *string) *cobra.Command {
	var scratch string
	cmd := &cobra.Command{
		Use:    "probe",
		Short:  "Try from this host what a worker needs: what, comes on standard input",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return worker.TryHost(cmd.Context(), *version, scratch, os.Stdin, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&scratch, "scratch", os.TempDir(), "folder in which workers would make theirs")
	return cmd
}
