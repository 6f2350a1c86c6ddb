// Command golang writes go-wordcount.pb to the path given as argument. See ../README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/graphx"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem/local"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/textio"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/stats"
	"google.golang.org/protobuf/proto"
)

func split(line string, emit func(string)) {
	for _, w := range strings.Fields(line) {
		emit(w)
	}
}

func format(word string, n int) string { return fmt.Sprint(word, n) }

func join(line string, words func(*string) bool, emit func(string)) { emit(line) }

func init() {
	register.Function2x0(split)
	register.Function2x1(format)
	register.Function3x0(join)
	register.Emitter1[string]()
	register.Iter1[string]()
}

func main() {
	beam.Init()
	p, s := beam.NewPipelineWithRoot()
	words := beam.ParDo(s, split, textio.Read(s, "in.txt"))
	lines := beam.ParDo(s, format, stats.Count(s, words))
	lines = beam.ParDo(s, join, lines, beam.SideInput{Input: beam.Reshuffle(s, words)})
	textio.Write(s, "out.txt", lines)
	edges, _, err := p.Build()
	if err != nil {
		log.Fatal(err)
	}
	endpoint := func(context.Context) string { return "localhost:50000" }
	env, err := graphx.CreateEnvironment(context.Background(), graphx.URNEnvExternal, endpoint)
	if err != nil {
		log.Fatal(err)
	}
	env.Dependencies = nil
	pipeline, err := graphx.Marshal(edges, &graphx.Options{Environment: env})
	if err != nil {
		log.Fatal(err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(pipeline)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[1], b, 0o644); err != nil {
		log.Fatal(err)
	}
}
