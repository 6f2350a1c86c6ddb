// Package gopipeline lets tests run pipelines, written with Beam's Go SDK, against a server in the test's process. The
// SDK's harnesses are the test's own binary, started in another role: see [Main].
package gopipeline

import (
	"fmt"
	"os"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/ptest"

	"trestle/internal/cli"
)

// Main is a test binary's main. It becomes what the binary was started as: `trestle boot`, a worker pool, an SDK harness,
// or the tests.
func Main(m *testing.M) {
	// What the SDK says of its daily work would bury what a test says.
	log.SetLogger(&log.Standard{Level: log.SevWarn})
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "boot":
			os.Exit(cli.Main())
		case poolRole:
			beam.Init()
			if err := servePool(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	ptest.Main(m)
}
