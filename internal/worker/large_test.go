package worker

import (
	"errors"
	"net"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/kit/credit"
	"trestle/internal/plan"
	"trestle/internal/worker/wire"
)

// An element that is too large for an engine is refused with the name of the transform that made it, for good, and nothing of it
// is sent.
func TestTooLarge(t *testing.T) {
	p := &plan.Plan{
		Pipeline: &pipepb.Pipeline{Components: &pipepb.Components{Transforms: map[string]*pipepb.PTransform{
			"outer": {UniqueName: "Images", Subtransforms: []string{"inner"}, Outputs: map[string]string{"out": "pixels"}},
			"inner": {UniqueName: "Images/Decode", Outputs: map[string]string{"out": "pixels"}},
		}}},
		Stages:    []*plan.Stage{{Name: "Images/Decode", Outputs: []plan.Output{{PCollection: "pixels"}}}, {Name: "Group"}},
		Exchanges: []*plan.Exchange{{ID: 0, From: 0, To: 1}},
	}
	near, far := net.Pipe() // whoever writes to it waits for ever, since nobody reads
	defer near.Close()
	defer far.Close()
	out := &outbox{writer: wire.NewWriter(near), credit: credit.New(1 << 20), plan: p}
	err := out.Emit(t.Context(), 0, 0, make([]byte, wire.MaxBlock+1))
	var large *tooLarge
	if !errors.As(err, &large) {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{`transform "Images/Decode" has put out an element of 64 MiB for "Group"`, "64 MiB at most", "engine=local"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: it does not say %q", err, part)
		}
	}
	if kind := (&taskConn{}).kind(err); kind != final {
		t.Errorf("the task would be started again: kind %d", kind)
	}
}
