package run

import (
	"strings"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// TestJobsThatEndBadly: a job has failed that fails, or that is cancelled because its program has ended; not one that the program
// cancels, even as it ends.
func TestJobsThatEndBadly(t *testing.T) {
	const settle = jobpb.JobState_UNSPECIFIED
	for name, c := range map[string]struct {
		happens []jobpb.JobState_Enum
		failed  int
	}{
		"done":                        {[]jobpb.JobState_Enum{jobpb.JobState_RUNNING, jobpb.JobState_DONE, settle}, 0},
		"done after its program":      {[]jobpb.JobState_Enum{jobpb.JobState_RUNNING, settle, jobpb.JobState_DONE}, 0},
		"failed":                      {[]jobpb.JobState_Enum{jobpb.JobState_FAILED, settle}, 1},
		"failed after its program":    {[]jobpb.JobState_Enum{settle, jobpb.JobState_FAILED}, 1},
		"cancelled":                   {[]jobpb.JobState_Enum{jobpb.JobState_CANCELLING, jobpb.JobState_CANCELLED, settle}, 0},
		"cancelled at its end":        {[]jobpb.JobState_Enum{jobpb.JobState_CANCELLING, settle, jobpb.JobState_CANCELLED}, 0},
		"cut off":                     {[]jobpb.JobState_Enum{jobpb.JobState_RUNNING, settle, jobpb.JobState_CANCELLING, jobpb.JobState_CANCELLED}, 1},
		"cut off before it was begun": {[]jobpb.JobState_Enum{jobpb.JobState_STOPPED, settle, jobpb.JobState_CANCELLED}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			w := &watcher{out: &out, asked: map[string]bool{}, ended: make(chan struct{}), cancel: func() {}}
			close(w.ended)
			for _, state := range c.happens {
				if state == settle {
					w.settle()
					continue
				}
				w.show("job-1", &jobpb.JobMessagesResponse{Response: &jobpb.JobMessagesResponse_StateResponse{
					StateResponse: &jobpb.JobStateEvent{State: state}}})
			}
			if w.failed != c.failed {
				t.Errorf("%d jobs have failed; want %d", w.failed, c.failed)
			}
			cut := strings.Contains(out.String(), "job-1 had not ended when its program did")
			if want := strings.HasPrefix(name, "cut off"); cut != want {
				t.Errorf("it said: %s", &out)
			}
		})
	}
}
