package plan_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	"trestle/internal/plan"
	"trestle/internal/plan/explain"
	"trestle/internal/plan/plantest"
)

// TestPipelines plans pipelines that SDKs made; testdata/pipelines/README.md tells how.
func TestPipelines(t *testing.T) {
	datadriven.RunTest(t, "testdata/pipelines/plans", func(t *testing.T, d *datadriven.TestData) string {
		p, err := readPipeline(filepath.Join("testdata/pipelines", d.Cmd+".pb"))
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		for _, o := range []plan.Options{{DisableFusion: true}, {DisableLifting: true}, {}} {
			built, err := plan.Build(p, o)
			if err != nil {
				return err.Error() + "\n"
			}
			check(t, built)
			if o == (plan.Options{}) {
				var b strings.Builder
				if err := explain.Text(&b, built); err != nil {
					t.Error(err)
				}
				return b.String()
			}
		}
		return ""
	})
}

func readPipeline(path string) (*pipepb.Pipeline, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &pipepb.Pipeline{}
	return p, proto.Unmarshal(b, p)
}

// FuzzBuild: no bytes that are a Pipeline make Build panic, and what it plans keeps the rules.
func FuzzBuild(f *testing.F) {
	files, err := filepath.Glob("testdata/pipelines/*.pb")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
	}
	for _, text := range seeds(f) {
		if p, err := plantest.Parse(text); err == nil {
			b, err := proto.Marshal(p)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, true)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, off bool) {
		p := &pipepb.Pipeline{}
		if err := proto.Unmarshal(b, p); err != nil {
			return
		}
		built, err := plan.Build(p, plan.Options{DisableFusion: off, DisableLifting: off})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a message")
			}
			return
		}
		check(t, built)
	})
}

// seeds are the pipelines of the scenarios.
func seeds(f *testing.F) []string {
	files, err := filepath.Glob("testdata/scenarios/*")
	if err != nil {
		f.Fatal(err)
	}
	var texts []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range strings.Split(string(b), "\n\n") {
			// A scenario is: comments, the command, the pipeline, a line of dashes, the outcome.
			input, _, ok := strings.Cut(part, "\n----\n")
			for strings.HasPrefix(input, "#") {
				_, input, _ = strings.Cut(input, "\n")
			}
			if _, pipeline, has := strings.Cut(input, "\n"); ok && has {
				texts = append(texts, pipeline)
			}
		}
	}
	if len(texts) < 20 {
		f.Fatalf("%d seeds only", len(texts))
	}
	return texts
}
