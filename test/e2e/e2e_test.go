package e2e

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/ptest"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"trestle/internal/cli"
	"trestle/internal/server"
	"trestle/test/gopipeline"
)

// TestMain becomes what the binary was started as: `trestle boot`, an SDK harness, a command of the scripts, or the tests.
func TestMain(m *testing.M) {
	commands := map[string]func(){
		"trestle":  func() { os.Exit(cli.Main()) },
		"pipeline": pipelineMain,
	}
	if commands[filepath.Base(os.Args[0])] == nil {
		if len(os.Args) > 1 && os.Args[1] == "boot" {
			os.Exit(cli.Main())
		}
		// A harness, which ends in there: before the scripts' commands get a folder, which a harness that is killed would leave.
		if flag.Parse(); flag.Lookup("worker").Value.String() == "true" {
			beam.Init()
		}
	}
	testscript.Main(tests{m}, commands)
}

// tests are the tests, with the SDK's own set-up.
type tests struct{ m *testing.M }

func (t tests) Run() int {
	code := ptest.MainRet(t.m)
	if err := engine.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// start starts a server for the test. When the test ends, nothing of it may be left: no file but histories and
// artifacts, and no goroutine but those to ignore.
func start(t *testing.T, cfg server.Config, ignore ...goleak.Option) *server.Server {
	t.Helper()
	s, err := gopipeline.Start(t.Context(), config(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := s.Close(append(ignore,
			// Beam's Go SDK never closes the connection of a loopback worker.
			goleak.IgnoreAnyFunction("google.golang.org/grpc.(*addrConn).resetTransportAndUnlock"),
			goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"),
		)...)
		if err != nil {
			t.Error(err)
		}
	})
	return s.Server
}

// config completes a server's configuration.
func config(t *testing.T, cfg server.Config) server.Config {
	if cfg.Data == "" {
		cfg.Data = t.TempDir()
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	return cfg
}

// execute runs a pipeline with a LOOPBACK harness and waits for its end.
func execute(t *testing.T, s *server.Server, build func(s beam.Scope)) (beam.PipelineResult, error) {
	t.Helper()
	p, scope := beam.NewPipelineWithRoot()
	build(scope)
	return submit(t, s, p, "LOOPBACK", "")
}

func submit(t *testing.T, s *server.Server, p *beam.Pipeline, environment, config string) (beam.PipelineResult, error) {
	t.Helper()
	set(t, jobopts.Endpoint, s.Endpoint())
	set(t, jobopts.EnvironmentType, environment)
	set(t, jobopts.EnvironmentConfig, config)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	set(t, jobopts.WorkerBinary, self)
	set(t, jobopts.JobName, strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return universal.Execute(ctx, p)
}

// patience is how long a test waits for what must come. Most comes in milliseconds; on a busy machine the staging of
// this binary alone, built for the race detector, has taken 20 s.
const patience = 5 * time.Minute

func set(t *testing.T, option *string, value string) {
	t.Helper()
	old := *option
	*option = value
	t.Cleanup(func() { *option = old })
}

// mustRun is execute for a pipeline that must succeed. Pipelines check their own results (passert).
func mustRun(t *testing.T, s *server.Server, build func(s beam.Scope)) beam.PipelineResult {
	t.Helper()
	result, err := execute(t, s, build)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
