package e2e

import (
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/teststream"

	"trestle/internal/server"
)

// TestDroppedDueToLateness: a user finds how many elements a grouping has dropped among the job's metrics.
func TestDroppedDueToLateness(t *testing.T) {
	s := start(t, server.Config{})
	events := teststream.NewConfig()
	for _, err := range []error{
		events.AddElements(1_000, 1), events.AdvanceWatermark(20_000), events.AddElements(2_000, 4, 7), events.AddElements(21_000, 10),
		events.AdvanceWatermarkToInfinity(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.WindowInto(scope, window.NewFixedWindows(10*time.Second), teststream.Create(scope, events))
	beam.ParDo(scope, sumValues, beam.GroupByKey(scope, beam.ParDo(scope, modThree, numbers)))
	client := jobs(t, s)
	id := submitPipeline(t, client, portable(t, p))
	if state := lastState(t, client, id); state != jobpb.JobState_DONE {
		t.Fatalf("the job is %v", state)
	}
	answer, err := client.GetJobMetrics(t.Context(), &jobpb.GetJobMetricsRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	counts := 0
	for _, info := range answer.GetMetrics().GetCommitted() {
		if info.GetLabels()["NAME"] != "droppedDueToLateness" {
			continue
		}
		counts++
		if payload := info.GetPayload(); len(payload) != 1 || payload[0] != 2 || info.GetLabels()["PTRANSFORM"] == "" {
			t.Errorf("not two elements of a transform: %v", info)
		}
	}
	if counts != 1 {
		t.Errorf("%d counters of dropped elements", counts)
	}
}
