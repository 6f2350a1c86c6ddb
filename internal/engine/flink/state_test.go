package flink

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// told keeps a job's states and its messages of importance, in their order.
type told struct {
	deaf
	mu    sync.Mutex
	lines []string
}

func (t *told) State(state jobpb.JobState_Enum) { t.add(state.String()) }

func (t *told) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	if importance >= jobpb.JobMessage_JOB_MESSAGE_WARNING {
		t.add(strings.TrimPrefix(importance.String(), "JOB_MESSAGE_") + ": " + text)
	}
}

func (t *told) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
}

// look is what Flink says of a job at one time: its state, and how many of its three tasks run and have ended.
type look struct {
	state             string
	running, finished int
}

// Flink's states of a job become Beam's: it is RUNNING when the first task runs, whatever Flink calls it before.
func TestStates(t *testing.T) {
	const trace = `{"exceptionHistory": {"entries": [{"stacktrace": "java.lang.Exception\nCaused by: trestle.flink.JobFailed: boom at line 7\n[trestle: stage s, task 1 of 2, host h, worker 3]\n\tat x"}]}}`
	for _, test := range []struct {
		name  string
		looks []look
		want  []string // %s is the address of Flink
	}{
		{"runs and ends", []look{{"INITIALIZING", 0, 0}, {"CREATED", 0, 0}, {"RUNNING", 0, 0}, {"RUNNING", 1, 0}, {"RUNNING", 1, 2}, {"FINISHED", 0, 3}}, []string{"RUNNING", "DONE"}},
		{"is over before anybody looks", []look{{"FINISHED", 0, 3}}, []string{"DONE"}},
		{"has no slots, and is cancelled in Flink", []look{{"CREATED", 0, 0}, {"RUNNING", 0, 0}, {"CANCELLING", 0, 0}, {"CANCELED", 0, 0}},
			[]string{"WARNING: The job was cancelled in Flink at %s.", "CANCELLED"}},
		{"restarts", []look{{"RUNNING", 2, 0}, {"RESTARTING", 0, 0}, {"RUNNING", 0, 0}, {"RUNNING", 3, 0}, {"FINISHED", 0, 3}}, []string{"RUNNING", "DONE"}},
		{"moves to another JobManager", []look{{"RUNNING", 2, 0}, {"SUSPENDED", 0, 0}, {"RECONCILING", 0, 0}, {"RUNNING", 2, 0}, {"FINISHED", 0, 3}}, []string{"RUNNING", "DONE"}},
		{"fails", []look{{"RUNNING", 2, 0}, {"FAILING", 1, 0}, {"FAILED", 0, 0}}, []string{"RUNNING", "ERROR: boom at line 7\n(task 1 of 2, host h, worker 3)", "FAILED"}},
		{"is forgotten", []look{{"RUNNING", 2, 0}, {"", 0, 0}}, []string{"RUNNING",
			"ERROR: the Flink at %s does not know the job x any more: its JobManager was restarted without high availability, or the job has ended longer ago than Flink keeps what it knows of such (jobstore.expiration-time, an hour by default)", "FAILED"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			looks, now := test.looks, look{} // used by the one goroutine that asks
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/jobs/x/status":
					now = looks[0]
					looks = looks[min(1, len(looks)-1):]
					if now.state == "" {
						http.NotFound(w, r)
						return
					}
					fmt.Fprintf(w, `{"status": %q}`, now.state)
				case "/jobs/overview":
					fmt.Fprintf(w, `{"jobs": [{"jid": "another", "tasks": {"total": 1, "running": 1}}, {"jid": "x", "tasks": {"total": 3, "running": %d, "finished": %d}}]}`, now.running, now.finished)
				case "/jobs/x":
					fmt.Fprintf(w, `{"state": %q}`, now.state)
				case "/jobs/x/accumulators":
					fmt.Fprint(w, `{}`)
				case "/jobs/x/exceptions":
					fmt.Fprint(w, trace)
				default:
					http.NotFound(w, r)
				}
			}))
			defer server.Close()
			var got told
			<-at(t, server.URL).follow("x", &got, 0).Done()
			var want []string
			for _, line := range test.want {
				want = append(want, strings.ReplaceAll(line, "%s", server.URL))
			}
			if !slices.Equal(got.lines, want) {
				t.Errorf("it tells\n%s\nand not\n%s", strings.Join(got.lines, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
