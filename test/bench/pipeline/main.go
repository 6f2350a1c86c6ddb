// Command pipeline is a benchmark's pipeline: one of a few shapes, as large as it is told to be. It runs on the job server
// that Beam's own flags name (--endpoint, --environment_type), or with -runner direct in this process, checks by the
// job's counters that every record arrived, and prints what it measured as one line of JSON.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct" //nolint:staticcheck // deprecated for users; here it is the SDK without any runner
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"
)

// Measured is what the command prints.
type Measured struct {
	// Seconds is from the pipeline's submission to its end, without the start of this process; the median of several runs.
	Seconds float64 `json:"seconds"`
	Records int64   `json:"records"`
	// Latency is of the shape that measures it.
	Latency *Latency `json:"latency,omitempty"`
}

func main() {
	var sh shape
	flag.StringVar(&sh.name, "shape", "", "what the pipeline does; see shapes.go")
	flag.Int64Var(&sh.records, "records", 1000, "how many records the source makes")
	flag.Int64Var(&sh.keys, "keys", 100, "over how many keys")
	flag.IntVar(&sh.bytes, "bytes", 100, "how large each value is")
	flag.IntVar(&sh.shards, "shards", 1, "into how many parts the source is split; a Reshuffle spreads more than one")
	flag.Int64Var(&sh.rate, "rate", 10_000, "how many events a second the shape latency makes")
	flag.BoolVar(&sh.stream, "stream", false, "the source is an unbounded one, for the shapes of model.go")
	repeat := flag.Int("repeat", 1, "how many times to run it, one after the other")
	runner := flag.String("runner", "universal", "Beam's runner: universal, or direct for this process alone")
	flag.Parse()
	beam.Init()
	if err := runAll(*runner, sh, *repeat); err != nil {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(1)
	}
}

func runAll(runner string, sh shape, times int) error {
	all := make([]Measured, times)
	for i := range all {
		var err error
		if all[i], err = run(runner, sh); err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(a, b Measured) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return json.NewEncoder(os.Stdout).Encode(all[times/2])
}

func run(runner string, sh shape) (Measured, error) {
	p, s := beam.NewPipelineWithRoot()
	want, err := sh.build(s)
	if err != nil {
		return Measured{}, err
	}
	start := time.Now()
	result, err := beam.Run(context.Background(), runner, p)
	if err != nil {
		return Measured{}, err
	}
	took := time.Since(start)
	var got int64
	for _, counter := range result.Metrics().AllMetrics().Counters() {
		if counter.Name() == arrivedName {
			got += counter.Result()
		}
	}
	if got != want {
		return Measured{}, fmt.Errorf("%d records arrived of %d", got, want)
	}
	return Measured{Seconds: took.Seconds(), Records: got, Latency: takeLatency()}, nil
}
