package flink

import (
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/job/submission"
)

func counter(n byte) []*pipepb.MonitoringInfo {
	return []*pipepb.MonitoringInfo{{
		Urn: urn.MetricUserSumInt64, Type: urn.MetricTypeSumInt64, Payload: []byte{n}, Labels: map[string]string{"NAME": "n"},
	}}
}

// sumOf is what a job's counter has come to.
func sumOf(infos []*pipepb.MonitoringInfo) (n int) {
	for _, info := range infos {
		if info.GetLabels()["NAME"] == "n" {
			n += int(info.GetPayload()[0])
		}
	}
	return n
}

// What a task had done that Flink has started again counts as attempted, whether it reports that or not; committed is what the tasks
// of now have done.
func TestMetricsOfTasksThatBeginAgain(t *testing.T) {
	var l listener
	r := newReports(&l, slog.New(slog.DiscardHandler))
	values := map[string]string{}
	for i, step := range []struct {
		task                 string
		attempt              int
		committed, attempted byte // attempted is 0 where it is not more than what is committed
		wantC, wantA         int
	}{
		{"trestle/0/0", 0, 5, 0, 5, 5},
		{"trestle/0/1", 0, 7, 9, 12, 14}, // a bundle of it has failed
		{"trestle/0/0", 0, 6, 0, 13, 15},
		{"trestle/0/0", 1, 0, 0, 7, 15}, // it begins again
		{"trestle/0/0", 1, 2, 3, 9, 18},
		{"trestle/0/1", 2, 1, 0, 3, 19}, // so does the other, twice
		{"trestle/0/1", 2, 10, 0, 12, 28},
	} {
		results := &jobpb.MetricResults{Committed: counter(step.committed)}
		if step.attempted > 0 {
			results.Attempted = counter(step.attempted)
		}
		metrics, err := proto.Marshal(results)
		if err != nil {
			t.Fatal(err)
		}
		report, err := json.Marshal(submission.Report{Attempt: step.attempt, Metrics: metrics})
		if err != nil {
			t.Fatal(err)
		}
		values[step.task] = base64.StdEncoding.EncodeToString(report)
		for range 2 { // the same is read again and again
			r.take(values)
			if committed, attempted := sumOf(l.metrics), sumOf(l.attempted); committed != step.wantC || attempted != step.wantA {
				t.Errorf("step %d: committed %d, attempted %d; want %d and %d", i, committed, attempted, step.wantC, step.wantA)
			}
		}
	}
}
