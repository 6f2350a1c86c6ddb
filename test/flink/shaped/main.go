// Command shaped runs a pipeline of package shapes on the job server that Beam's own flags name. What the pipeline puts out is
// known beforehand; who started it reads it and compares.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"

	"trestle/test/shapes"
)

func main() {
	encoded := flag.String("pipeline", "", "the pipeline, as JSON")
	result := flag.String("result", "", "an empty folder, the same on every host, for what it puts out")
	runner := flag.String("runner", "universal", "Beam's runner")
	flag.Parse()
	beam.Init()
	var p shapes.Pipeline
	err := json.Unmarshal([]byte(*encoded), &p)
	if err == nil {
		_, err = beam.Run(context.Background(), *runner, p.Build(*result, shapes.None))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shaped:", err)
		os.Exit(1)
	}
}
