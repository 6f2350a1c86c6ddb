package jobapi_test

import (
	"log/slog"
	"strings"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
)

// TestCancelWhenStaged: the job is cancelled when its artifacts are all there, and Run is about to go on.
func TestCancelWhenStaged(t *testing.T) {
	var log strings.Builder
	cfg := config(t, t.TempDir(), newRunner())
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	s := serveWith(t, cfg)
	p := s.prepare(t, "x")
	s.staging.resolved = func() {
		if st := s.cancelJob(t, p.GetStagingSessionToken()); st != jobpb.JobState_CANCELLED {
			t.Errorf("cancelled a prepared job: %v", st)
		}
	}
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()})
	refused(t, err, codes.FailedPrecondition, "is CANCELLED")
	equal(t, "states", []string{"STOPPED", "CANCELLED"}, s.states(t, p.GetStagingSessionToken()))
	if log.Len() > 0 {
		t.Errorf("the server's log has errors: %s", &log)
	}
}

// TestStopWhenStaged: the server is stopped when a job's artifacts are all there, and Run is about to go on. The client is
// told that, and no fault of its own.
func TestStopWhenStaged(t *testing.T) {
	cfg := config(t, t.TempDir(), newRunner())
	s := serveWith(t, cfg)
	p := s.prepare(t, "x")
	s.staging.resolved = func() {
		if err := s.service.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()})
	refused(t, err, codes.Unavailable, "is being stopped")
}
