package jobapi_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/job"
	"trestle/internal/jobapi"
	"trestle/internal/store/journal"
)

// TestExpire removes what ended long ago and what was never run; and nothing that runs, is about to run, or ended lately.
func TestExpire(t *testing.T) {
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	r := newRunner()
	cfg := config(discard{t}, t.TempDir(), r)
	cfg.Clock = func() time.Time { return now }
	s := serveWith(t, cfg)
	s.runner = r
	ended := func(name string) string {
		run := s.run(t, name)
		run.end(jobpb.JobState_DONE)
		s.states(t, run.ID)
		return run.ID
	}
	old, failed, runs := ended("old"), s.run(t, "failed"), s.run(t, "runs")
	failed.end(jobpb.JobState_FAILED)
	s.states(t, failed.ID)
	prepared := s.prepare(t, "prepared")
	now = now.Add(23 * time.Hour)
	staging := now
	s.prepare(t, "being staged")
	now = now.Add(2 * time.Hour)
	ended("lately")
	ready := s.prepare(t, "ready")
	stream, err := s.GetMessageStream(t.Context(), &jobpb.JobMessagesRequest{JobId: prepared.GetStagingSessionToken()})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetStateResponse().GetState() != jobpb.JobState_STOPPED {
		t.Fatalf("%v, %v", r, err)
	}
	s.sealed(t, old, failed.ID)

	kept, err := s.service.Expire(now.Add(-time.Hour))
	if err != nil || !kept.Known || !kept.Staging.Equal(staging) {
		t.Errorf("expired: %+v, %v", kept, err)
	}
	s.lists(t, "runs", "being staged", "lately", "ready")
	for _, id := range []string{old, failed.ID, prepared.GetStagingSessionToken()} {
		if _, err := os.Stat(filepath.Join(s.dir, "jobs", id)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the folder is still there: %v", id, err)
		}
		_, err := s.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id})
		refused(t, err, codes.NotFound)
	}
	_, err = s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
	refused(t, err, codes.NotFound)
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream of a job that was removed goes on")
	}
	s.submit(t, ready.GetPreparationId())
	(<-r.starts).end(jobpb.JobState_DONE)
	runs.end(jobpb.JobState_DONE)
	s.states(t, runs.ID)

	again := serve(t, s.killed(t))
	again.lists(t, "runs", "being staged", "lately", "ready")
	if kept, err := again.service.Expire(time.Now().Add(1000 * time.Hour)); err != nil || !kept.Staging.IsZero() {
		t.Errorf("expired after a restart: %+v, %v", kept, err)
	}
	again.lists(t)
}

// sealed waits until the service holds nothing of jobs that have ended.
func (s *server) sealed(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		for !s.service.Sealed(id) {
			if t.Context().Err() != nil {
				t.Fatal("not sealed")
			}
			<-time.After(time.Millisecond)
		}
	}
}

// lists checks the names of all jobs.
func (s *server) lists(t *testing.T, want ...string) {
	t.Helper()
	jobs, err := s.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, j := range jobs.GetJobInfo() {
		got = append(got, j.GetJobName())
	}
	if !slices.Equal(got, want) {
		t.Errorf("jobs: %q; want %q", got, want)
	}
}

// TestExpireKnowsArtifacts: what kept jobs were given is known, after a restart too; a log of an earlier version does not
// say, and the answer says so.
func TestExpireKnowsArtifacts(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	s := serve(t, t.TempDir())
	s.staging.digest = digest
	run := s.run(t, "x")
	run.end(jobpb.JobState_DONE)
	s.states(t, run.ID)
	for _, service := range []*jobapi.Service{s.service, serve(t, s.killed(t)).service} {
		kept, err := service.Expire(time.Time{})
		if err != nil || !kept.Known || len(kept.Artifacts) != 1 || !kept.Artifacts[digest] {
			t.Errorf("kept: %+v, %v", kept, err)
		}
	}
	dir := s.killed(t)
	old := filepath.Join(dir, "jobs", "old-aaaaaaaa")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Create(filepath.Join(old, "journal"), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []job.Record{
		&job.Prepared{Info: &jobpb.JobInfo{JobId: "old-aaaaaaaa"}, Time: timestamppb.Now()},
		&job.StateChange{JobStateEvent: &jobpb.JobStateEvent{State: jobpb.JobState_STARTING, Timestamp: timestamppb.Now()}},
		&job.StateChange{JobStateEvent: &jobpb.JobStateEvent{State: jobpb.JobState_DONE, Timestamp: timestamppb.Now()}},
	} {
		b, err := job.Encode(r)
		if err == nil {
			err = j.Append(b, journal.Buffered)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	kept, err := serve(t, dir).service.Expire(time.Time{})
	if err != nil || kept.Known || !kept.Artifacts[digest] {
		t.Errorf("kept with a job of an earlier version: %+v, %v", kept, err)
	}
}
