package flink

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/job/submission"
)

// deaf takes a job's events and does nothing with them.
type deaf struct{}

// listener keeps how a job has ended, and its metrics.
type listener struct {
	deaf
	states             []jobpb.JobState_Enum
	attempted, metrics []*pipepb.MonitoringInfo
}

func (l *listener) State(state jobpb.JobState_Enum) { l.states = append(l.states, state) }
func (l *listener) Metrics(attempted, committed []*pipepb.MonitoringInfo) {
	l.attempted, l.metrics = attempted, committed
}

func (deaf) State(jobpb.JobState_Enum)                             {}
func (deaf) Message(jobpb.JobMessage_MessageImportance, string)    {}
func (deaf) Metrics(attempted, committed []*pipepb.MonitoringInfo) {}
func (deaf) Handle(string) error                                   { return nil }

// A Flink that does not take the request to cancel a job is asked again, with pauses.
func TestCancelIsAskedWithPauses(t *testing.T) {
	asked := make(chan time.Time, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			select {
			case asked <- time.Now():
			default:
			}
		}
		http.Error(w, "not now", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	e := at(t, server.URL)
	run := e.follow("a job", deaf{}, 0)
	defer run.Detach()
	run.Cancel()
	first := <-asked
	const more = 4
	last := first
	for range more {
		last = <-asked
	}
	if took := last.Sub(first); took < more*pollFirst {
		t.Errorf("asked %d times more in %v", more, took)
	}
}

// An answer about a job that has ended and that breaks off is asked for again: it has the job's metrics.
func TestLastReportsAreInsistedOn(t *testing.T) {
	metrics, err := proto.Marshal(&jobpb.MetricResults{Committed: []*pipepb.MonitoringInfo{{
		Urn: urn.MetricUserSumInt64, Type: urn.MetricTypeSumInt64, Payload: []byte{7}, Labels: map[string]string{"NAME": "n"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := json.Marshal(submission.Report{Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	broken := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/jobs/x/status":
			fmt.Fprint(w, `{"status": "FINISHED"}`)
		case "/jobs/x":
			fmt.Fprint(w, `{"state": "FINISHED"}`)
		case "/jobs/x/accumulators":
			if !broken {
				broken = true
				w.Header().Set("Content-Length", "1000") // which do not come
				return
			}
			fmt.Fprintf(w, `{"user-task-accumulators": [{"name": "trestle/0/0", "value": %q}]}`, base64.StdEncoding.EncodeToString(report))
		}
	}))
	defer server.Close()
	var l listener
	<-at(t, server.URL).follow("x", &l, 0).Done()
	if len(l.states) != 1 || l.states[0] != jobpb.JobState_DONE {
		t.Errorf("states %v", l.states)
	}
	for _, info := range l.metrics {
		if info.GetLabels()["NAME"] == "n" {
			return
		}
	}
	t.Errorf("metrics %v", l.metrics)
}
