package submission

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
)

const pipeline = `
env go
impulse start() > I
pardo source(I) > words:kv(string,string) env=go
gbk group(words) > groups
pardo count(groups) > counts:string env=go
`

func job(t testing.TB) *Job {
	t.Helper()
	p, err := plantest.Parse(pipeline + "pardo next(counts) > end env=go\n")
	if err != nil {
		t.Fatal(err)
	}
	planned, err := plan.Build(p, plan.Options{DisableFusion: true})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := planned.Digest()
	if err != nil {
		t.Fatal(err)
	}
	options, err := structpb.NewStruct(map[string]any{"beam:option:job_name:v1": "wörds", "n": 3.5})
	if err != nil {
		t.Fatal(err)
	}
	return &Job{
		Trestle: "1", ID: "words-1", Name: "wörds", Pipeline: p, Planned: plan.Options{DisableFusion: true}, Digest: digest, Options: options,
		KeyGroups: 128, Artifacts: Artifacts{Bucket: "s3://b/p"}, Memory: 1 << 40, Attempts: 2, BundleBytes: 3, Containers: []byte(`{"pull":"never"}`),
	}
}

// A job comes out as it went in, and is planned to the same plan.
func TestJob(t *testing.T) {
	want := job(t)
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeJob(b, "1")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := got.Build(); err != nil {
		t.Error(err)
	}
	got.Planned = plan.Options{}
	if _, err := got.Build(); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("another plan: %v", err)
	}
	if _, err := DecodeJob(b, "2"); err == nil || !strings.Contains(err.Error(), "trestle 1") || !strings.Contains(err.Error(), "trestle 2") {
		t.Errorf("another version: %v; want an error that names both", err)
	}
}

// A stage's uid is that of its transforms, whatever else is in the pipeline.
func TestUIDs(t *testing.T) {
	uids := func(text string) map[string]string {
		p, err := plantest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		planned, err := plan.Build(p, plan.Options{})
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]string{}
		for _, s := range planned.Stages {
			all[s.Name] = uid(planned, s)
		}
		return all
	}
	before := uids(pipeline)
	after := uids(strings.Replace(pipeline, "gbk group", "pardo other(I) > others:string env=go\ngbk group", 1))
	seen := map[string]bool{}
	for name, id := range before {
		if seen[id] {
			t.Errorf("two stages have the uid %s", id)
		}
		seen[id] = true
		if name == "count" && after[name] != id {
			t.Errorf("stage %s: uid %s became %s", name, id, after[name])
		}
	}
	if before["count"] == "" {
		t.Fatalf("no stage is named count: %v", before)
	}
}

// The graph ends in the job, whole.
func TestGraph(t *testing.T) {
	j := job(t)
	planned, err := j.Build()
	if err != nil {
		t.Fatal(err)
	}
	g := Graph{Name: "wörds", KeyGroups: 128, Plan: planned, Settings: map[string]string{"b": "2", "a": "1"}, Job: []byte("the job")}
	b := g.Encode()
	if !bytes.HasPrefix(b, []byte("TRSG\x00\x01\x00\x00\x00\x06wörds")) || !bytes.HasSuffix(b, []byte("\x00\x00\x00\x07the job")) {
		t.Errorf("%q", b)
	}
	if !bytes.Equal(b, g.Encode()) {
		t.Error("encoded again it is another")
	}
}

// FuzzDecodeJob: what is no job is an error.
func FuzzDecodeJob(f *testing.F) {
	b, err := job(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if j, err := DecodeJob(b, "1"); err == nil && (j.ID == "" || j.Pipeline == nil) {
			t.Errorf("a job without id or pipeline: %+v", j)
		}
	})
}
