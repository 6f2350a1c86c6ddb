package worker

import (
	"encoding/json"
	"log/slog"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/job/submission"
)

// A report tells what was attempted apart from what was committed, when the two differ.
func TestReportOfFailedAttempts(t *testing.T) {
	r := &report{log: slog.New(slog.DiscardHandler), memory: func() submission.Memory { return submission.Memory{} }}
	count := func(infos []*pipepb.MonitoringInfo) int {
		if len(infos) == 0 {
			return -1
		}
		return int(infos[0].GetPayload()[0])
	}
	for i, step := range []struct {
		n                    byte
		counts               bool
		committed, attempted int // -1: none
	}{
		{2, true, 2, -1}, {3, false, 2, 5}, {4, true, 6, 9},
	} {
		r.measured([]*pipepb.MonitoringInfo{{Urn: urn.MetricUserSumInt64, Type: urn.MetricTypeSumInt64, Payload: []byte{step.n}}}, step.counts)
		b, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		var sent submission.Report
		if err := json.Unmarshal(b, &sent); err != nil {
			t.Fatal(err)
		}
		var results jobpb.MetricResults
		if err := proto.Unmarshal(sent.Metrics, &results); err != nil {
			t.Fatal(err)
		}
		if c, a := count(results.GetCommitted()), count(results.GetAttempted()); c != step.committed || a != step.attempted {
			t.Errorf("step %d: committed %d, attempted %d", i, c, a)
		}
	}
}
