package jobapi_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/codes"

	"trestle/internal/jobapi"
	"trestle/internal/store/journal"
)

// failing is a journal's file that fails to write when it is told to.
type failing struct {
	*os.File
	fail *atomic.Bool
}

func (f failing) WriteAt(b []byte, off int64) (int, error) {
	if f.fail.Load() {
		return 0, errors.New("no space left on device")
	}
	return f.File.WriteAt(b, off)
}

// serveFailing is a server whose jobs' logs cannot be written while fail is set.
func serveFailing(t *testing.T) (s *server, fail *atomic.Bool) {
	t.Helper()
	fail = new(atomic.Bool)
	r := newRunner()
	s = serveWith(t, jobapi.WithWrap(config(discard{t}, t.TempDir(), r), func(f *os.File) journal.File { return failing{f, fail} }))
	s.runner = r
	return s, fail
}

// TestFullDisk: with no room for a job's log nothing begins; what has begun comes to its end, and is not written.
func TestFullDisk(t *testing.T) {
	s, fail := serveFailing(t)
	started := s.run(t, "started")
	p := s.prepare(t, "prepared")
	fail.Store(true)
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()})
	refused(t, err, codes.Internal, "no space left on device")
	_, err = s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: pipeline(), JobName: "late"})
	refused(t, err, codes.Internal, "no space left on device")
	if late, err := filepath.Glob(filepath.Join(s.dir, "jobs", "late-*")); err != nil || len(late) > 0 {
		t.Errorf("left behind: %v, %v", late, err)
	}
	started.State(jobpb.JobState_RUNNING)
	started.Message(basic, "lost")
	started.end(jobpb.JobState_DONE)
	equal(t, "states without a disk", []string{"STOPPED", "STARTING", "DONE"}, s.states(t, started.ID))
	fail.Store(false)
	s.submit(t, p.GetPreparationId())
	again := <-s.runner.starts
	again.end(jobpb.JobState_DONE)
	equal(t, "states once there is room", []string{"STOPPED", "STARTING", "DONE"}, s.states(t, again.ID))
}

// TestFullDiskTellsWhy: what a job has to say for itself is told without a disk, by the server that it ran on.
func TestFullDiskTellsWhy(t *testing.T) {
	s, fail := serveFailing(t)
	run := s.run(t, "x")
	run.Metrics(nil, []*pipepb.MonitoringInfo{{Urn: "written"}})
	fail.Store(true)
	run.Message(basic, "lost")
	run.Message(errorIs, "a first reason")
	run.Message(errorIs, "shuffle.run.3: no space left on device")
	run.Metrics(nil, []*pipepb.MonitoringInfo{{Urn: "not written"}})
	run.end(jobpb.JobState_FAILED)
	equal(t, "messages", []string{"STOPPED", "STARTING", "ERROR: shuffle.run.3: no space left on device", "FAILED"}, s.messages(t, run.ID))
	for !s.service.Sealed(run.ID) {
		runtime.Gosched()
	}
	equal(t, "messages of long ago", []string{"STOPPED", "STARTING", "ERROR: shuffle.run.3: no space left on device", "FAILED"}, s.messages(t, run.ID))
	m, err := s.GetJobMetrics(t.Context(), &jobpb.GetJobMetricsRequest{JobId: run.ID})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.GetMetrics().GetCommitted(); len(got) != 1 || got[0].GetUrn() != "not written" {
		t.Errorf("the metrics are %v", got)
	}
}
