// Package explain is `trestle explain`: the plan of a pipeline, with the reason for every cut.
package explain

import (
	"fmt"
	"io"
	"os"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"trestle/internal/plan"
	explained "trestle/internal/plan/explain"
)

type flags struct{ format string }

var formats = map[string]func(io.Writer, *plan.Plan) error{
	"text": explained.Text,
	"dot":  explained.DOT,
	"json": explained.JSON,
}

// NewCommand makes the subcommand.
func NewCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "explain PIPELINE",
		Short: "Show how a pipeline would be run, and why it is cut where it is",
		Long: `Show the fused stages of a pipeline, how data passes between them, and the reason for every cut. PIPELINE is a file with
a Pipeline proto, in binary, JSON or text form, or - for standard input. The job server keeps each job's as pipeline.pb.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.InOrStdin(), cmd.OutOrStdout(), args[0], f)
		},
	}
	cmd.Flags().StringVar(&f.format, "format", "text", "text, dot (Graphviz) or json")
	return cmd
}

func run(stdin io.Reader, stdout io.Writer, path string, f flags) error {
	write := formats[f.format]
	if write == nil {
		return fmt.Errorf("--format %q: must be text, dot or json", f.format)
	}
	p, err := read(stdin, path)
	if err != nil {
		return err
	}
	made, err := plan.Build(p, plan.Options{Streams: true})
	if err != nil {
		return err
	}
	return write(stdout, made)
}

// read reads a pipeline in whichever form it has.
func read(stdin io.Reader, path string) (*pipepb.Pipeline, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(stdin)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the pipeline: %w", err)
	}
	// A text is hardly ever a binary proto as well; the other way round is impossible.
	for _, unmarshal := range []func([]byte, proto.Message) error{protojson.Unmarshal, prototext.Unmarshal, proto.Unmarshal} {
		p := &pipepb.Pipeline{}
		if err = unmarshal(data, p); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("%s is no Pipeline proto, in neither JSON, text nor binary form: %w", path, err)
}
