package server

import (
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestWarm: the parts of a pipeline are met, at any depth, and each once.
func TestWarm(t *testing.T) {
	if err := warm(); err != nil {
		t.Fatal(err)
	}
	m := new(jobpb.PrepareJobRequest)
	populate(m.ProtoReflect(), map[protoreflect.FullName]bool{})
	if m.GetPipeline().GetComponents().GetTransforms()["x"].GetSpec() == nil || m.GetPipelineOptions() == nil {
		t.Errorf("got %v", m)
	}
}
