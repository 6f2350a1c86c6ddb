package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/textio"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestCLI runs the scripts in testdata/cli, in which trestle is the program and pipeline one that a user has written.
func TestCLI(t *testing.T) {
	pipelines, err := filepath.Abs("../../internal/plan/testdata/pipelines")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/cli",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PIPELINES", pipelines)
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			return nil
		},
	})
}

func init() { register.Function1x1(text) }

func text(x int) string { return fmt.Sprint(x) }

// pipelineMain is the user's program: it adds numbers up and writes the sum, unless it is told to fail.
func pipelineMain() {
	fail := flag.Bool("fail", false, "fail at an element")
	hang := flag.Bool("hang", false, "never come to an end")
	exit := flag.Int("exit", 0, "submit nothing, and exit with this status")
	output := flag.String("output", "", "file for the result")
	flag.Parse()
	if *exit != 0 {
		os.Exit(*exit)
	}
	beam.Init()
	p, s := beam.NewPipelineWithRoot()
	in := beam.CreateList(s, numbers(10))
	if *fail {
		in = beam.ParDo(s, failOnSeven, in)
	}
	if *hang {
		beam.ParDo(s, waitForFile, beam.Create(s, *output))
	} else {
		textio.Write(s, *output, beam.ParDo(s, text, stats.Sum(s, in)))
	}
	if _, err := universal.Execute(context.Background(), p); err != nil {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(1)
	}
}
