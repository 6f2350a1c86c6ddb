package jobapi_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/codes"

	"trestle/internal/engine"
	"trestle/internal/job"
	"trestle/internal/jobapi"
	"trestle/internal/store/journal"
)

// killed is a copy of a server's folder as it is now: what a server finds that starts after the first was killed.
func (s *server) killed(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

const restarted = "ERROR: The server was restarted while the job ran, and what it had done is lost; submit it again."

// TestRestart: after a server was killed, the next one has its jobs and all that was told of them.
func TestRestart(t *testing.T) {
	s := serve(t, t.TempDir())
	done := s.run(t, "done")
	done.State(jobpb.JobState_RUNNING)
	done.Message(basic, "all read")
	infos := []*pipepb.MonitoringInfo{{Urn: "beam:metric:element_count:v1", Payload: []byte{3}}}
	done.Metrics(infos, infos)
	done.end(jobpb.JobState_DONE)
	s.states(t, done.ID)
	running := s.run(t, "running")
	running.State(jobpb.JobState_RUNNING)
	running.Message(basic, "half read")
	running.Metrics(infos, nil)
	cancelling := s.run(t, "cancelling")
	s.cancelJob(t, cancelling.ID)
	prepared := s.prepare(t, "prepared")

	for _, how := range []string{"killed", "killed twice"} {
		t.Run(how, func(t *testing.T) {
			again := serve(t, s.killed(t))
			if how == "killed twice" {
				again = serve(t, again.killed(t))
			}
			jobs, err := again.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "jobs", []*jobpb.JobInfo{
				{JobId: done.ID, JobName: "done", State: jobpb.JobState_DONE},
				{JobId: running.ID, JobName: "running", State: jobpb.JobState_FAILED},
				{JobId: cancelling.ID, JobName: "cancelling", State: jobpb.JobState_CANCELLED},
				{JobId: prepared.GetStagingSessionToken(), JobName: "prepared", State: jobpb.JobState_STOPPED},
			}, jobs.GetJobInfo())
			equal(t, "done", []string{"STOPPED", "STARTING", "RUNNING", "BASIC: all read", "DONE"}, again.messages(t, done.ID))
			equal(t, "running", []string{"STOPPED", "STARTING", "RUNNING", "BASIC: half read", restarted, "FAILED"},
				again.messages(t, running.ID))
			equal(t, "cancelling", []string{"STOPPED", "STARTING", "CANCELLING",
				"WARNING: The server was restarted while the job was being cancelled.", "CANCELLED"}, again.messages(t, cancelling.ID))
			for id, want := range map[string]*jobpb.MetricResults{
				done.ID:       {Attempted: infos, Committed: infos},
				running.ID:    {Attempted: infos},
				cancelling.ID: {},
			} {
				m, err := again.GetJobMetrics(t.Context(), &jobpb.GetJobMetricsRequest{JobId: id})
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "metrics of "+id, want, m.GetMetrics())
			}
			p, err := again.GetPipeline(t.Context(), &jobpb.GetJobPipelineRequest{JobId: done.ID})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "pipeline", pipeline(), p.GetPipeline())
			_, err = again.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
			refused(t, err, codes.FailedPrecondition, "before the server was restarted")
			if st := again.cancelJob(t, prepared.GetStagingSessionToken()); st != jobpb.JobState_CANCELLED {
				t.Errorf("cancelled a prepared job of before: %v", st)
			}
			equal(t, "prepared, then cancelled", []string{"STOPPED", "CANCELLED"}, again.states(t, prepared.GetStagingSessionToken()))
		})
	}
	running.end(jobpb.JobState_DONE)
	cancelling.end(jobpb.JobState_CANCELLED)
}

// TestKilledAnywhere cuts a job's log at every byte, as a killed server may leave it. The next server has the whole
// prefix of the history and brings the job to an end; or, where not even the preparation is whole, has nothing of it.
func TestKilledAnywhere(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "x")
	r.State(jobpb.JobState_RUNNING)
	r.Message(basic, "one")
	r.end(jobpb.JobState_DONE)
	want := s.messages(t, r.ID)
	data := s.killed(t)
	log := filepath.Join(data, "jobs", r.ID, "journal")
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for cut := range len(whole) + 1 {
		dir := filepath.Join(t.TempDir(), "data")
		if err := os.CopyFS(dir, os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "jobs", r.ID, "journal"), whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		service, got := history(t, dir, r.ID)
		if got == nil {
			if _, err := os.Stat(filepath.Join(dir, "jobs", r.ID)); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("cut at %d: the folder is still there: %v", cut, err)
			}
			seen[0] = true
			continue
		}
		kept := 0
		for kept < len(want) && kept < len(got) && want[kept] == got[kept] {
			kept++
		}
		seen[kept] = true
		switch rest := got[kept:]; {
		case kept == len(want) && len(rest) == 0: // it was whole
		case kept == 1 && len(rest) == 0: // prepared, and never run
		case kept > 1 && len(rest) == 2 && rest[0] == restarted && rest[1] == "FAILED":
		default:
			t.Fatalf("cut at %d: %q", cut, got)
		}
		if err := service.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != len(want)+1 {
		t.Errorf("histories of these lengths were seen: %v", seen)
	}
}

// history opens a service and reads a job's records from the file; nil when there is no job.
func history(t testing.TB, dir, id string) (*jobapi.Service, []string) {
	t.Helper()
	service, err := jobapi.Open(jobapi.WithWrap(config(discard{t}, dir, newRunner()),
		func(f *os.File) journal.File { return unsynced{f} }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.GetPipeline(t.Context(), &jobpb.GetJobPipelineRequest{JobId: id}); err != nil {
		if err := service.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return nil, nil
	}
	var got []string
	for _, r := range records(t, dir, id) {
		if m, ok := r.(*job.Message); ok {
			got = append(got, m.GetImportance().String()[len("JOB_MESSAGE_"):]+": "+m.GetMessageText())
		} else if st := job.StateEvent(r); st != nil {
			got = append(got, st.GetState().String())
		}
	}
	return service, got
}

// unsynced is a file whose contents may be lost with the machine, as tests' may, and which is faster for it.
type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }

// discard is a test that logs nothing.
type discard struct{ testing.TB }

func (discard) Logf(string, ...any) {}

// records reads a job's event log from its file.
func records(t testing.TB, dir, id string) []job.Record {
	t.Helper()
	r, err := journal.OpenReader(filepath.Join(dir, "jobs", id, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	var all []job.Record
	for {
		b, err := r.Next(t.Context())
		if err != nil {
			return all
		}
		record, err := job.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, record)
	}
}

// TestDamagedLog: a job whose log or pipeline is damaged is told of, and keeps no other from being served.
func TestDamagedLog(t *testing.T) {
	s := serve(t, t.TempDir())
	var ids []string
	for _, name := range []string{"good", "damaged log", "damaged pipeline", "stray"} {
		r := s.run(t, name)
		r.end(jobpb.JobState_DONE)
		s.states(t, r.ID)
		ids = append(ids, r.ID)
	}
	dir := s.killed(t)
	damage := func(id, file string) {
		path := filepath.Join(dir, "jobs", id, file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	damage(ids[1], "journal")
	damage(ids[2], "pipeline.pb")
	if err := os.Rename(filepath.Join(dir, "jobs", ids[3]), filepath.Join(dir, "jobs", "renamed")); err != nil {
		t.Fatal(err)
	}
	again := serve(t, dir)
	jobs, err := again.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, j := range jobs.GetJobInfo() {
		listed = append(listed, j.GetJobId())
	}
	equal(t, "jobs", []string{ids[0], ids[2]}, listed)
	_, err = again.GetPipeline(t.Context(), &jobpb.GetJobPipelineRequest{JobId: ids[2]})
	refused(t, err, codes.Internal, "pipeline.pb is not what was written")
	for _, left := range []string{ids[1], "renamed"} {
		if _, err := os.Stat(filepath.Join(dir, "jobs", left, "journal")); err != nil {
			t.Errorf("a log that cannot be read is not left as it was: %v", err)
		}
	}
}

// TestAttach: a runner that can finds its runs again, and the job goes on in the same log.
func TestAttach(t *testing.T) {
	s := serve(t, t.TempDir())
	var first []*run
	for _, name := range []string{"goes on", "is lost", "is unreachable", "is being cancelled"} {
		r := s.run(t, name)
		r.State(jobpb.JobState_RUNNING)
		first = append(first, r)
	}
	s.cancelJob(t, first[3].ID)
	for _, r := range first {
		<-r.followed // from here on the handle is in the log
	}
	dir := s.killed(t)
	for _, r := range first {
		r.end(jobpb.JobState_DONE)
	}

	attached := make(chan *run, 2)
	again := serveWith(t, config(t, dir, &attacher{newRunner(), func(handle string, events engine.Events) (engine.Run, error) {
		switch handle {
		case "handle of " + first[1].ID:
			return nil, fmt.Errorf("attach: %w", engine.ErrLost)
		case "handle of " + first[2].ID:
			return nil, errors.New("flink at 10.0.0.1:8081 does not answer")
		}
		r := newRun(events)
		r.ID = strings.TrimPrefix(handle, "handle of ")
		attached <- r
		return r, nil
	}}))
	for range 2 {
		if r := <-attached; r.ID == first[0].ID {
			r.Message(basic, "attached")
			r.end(jobpb.JobState_DONE)
		} else {
			<-r.cancelled
			r.end(jobpb.JobState_CANCELLED)
		}
	}
	for i, want := range [][]string{
		{"BASIC: attached", "DONE"},
		{"ERROR: The server was restarted while the job ran, and could not attach to it again: attach: " + engine.ErrLost.Error() +
			": what it had done is lost; submit it again.", "FAILED"},
		{"ERROR: The server was restarted while the job ran, and could not attach to it again: flink at 10.0.0.1:8081 does not answer", "FAILED"},
		{"CANCELLING", "CANCELLED"},
	} {
		equal(t, first[i].Name, append([]string{"STOPPED", "STARTING", "RUNNING"}, want...), again.messages(t, first[i].ID))
	}
}

// TestClose cancels what runs, waits for it, and refuses what comes later; a job that was never run keeps its state.
func TestClose(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "running")
	r.State(jobpb.JobState_RUNNING)
	prepared := s.prepare(t, "prepared")
	follower, err := s.GetMessageStream(t.Context(), &jobpb.JobMessagesRequest{JobId: prepared.GetStagingSessionToken()})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- s.service.Close(t.Context()) }()
	<-r.cancelled
	select {
	case err := <-closed:
		t.Errorf("Close returned while a job ran: %v", err)
	default:
	}
	r.end(jobpb.JobState_CANCELLED)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	equal(t, "messages", []string{"STOPPED", "STARTING", "RUNNING",
		"WARNING: The server is being stopped, so the job is cancelled.", "CANCELLING", "CANCELLED"}, s.messages(t, r.ID))
	equal(t, "a stream of a job that never ran", []string{"STOPPED", "Unavailable"}, readMessages(follower))
	_, err = s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: pipeline()})
	refused(t, err, codes.Unavailable)
	_, err = s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: prepared.GetPreparationId()})
	refused(t, err, codes.Unavailable)
	if err := s.service.Close(t.Context()); err != nil {
		t.Errorf("closed again: %v", err)
	}
}

// TestCloseDetaches: a run that its engine keeps is left to go on, and the next server attaches to it.
func TestCloseDetaches(t *testing.T) {
	dir := t.TempDir()
	attached := make(chan *run, 1)
	runner := &attacher{newRunner(), func(_ string, events engine.Events) (engine.Run, error) {
		r := newRun(events)
		attached <- r
		return r, nil
	}}
	s := serveWith(t, config(t, dir, runner))
	s.runner = runner.runner
	r := s.run(t, "outlives")
	r.State(jobpb.JobState_RUNNING)
	<-r.followed
	if err := s.service.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := serveWith(t, config(t, dir, runner))
	(<-attached).end(jobpb.JobState_DONE)
	equal(t, "messages", []string{"STOPPED", "STARTING", "RUNNING", "DONE"}, again.messages(t, r.ID))
}

// TestCloseWhileAttaching: a server that is stopped while it asks an engine for a run leaves it, whatever the engine answers then.
func TestCloseWhileAttaching(t *testing.T) {
	s := serve(t, t.TempDir())
	var first []*run
	for _, name := range []string{"is there", "does not answer"} {
		r := s.run(t, name)
		r.State(jobpb.JobState_RUNNING)
		first = append(first, r)
	}
	dir := s.killed(t)
	for _, r := range first {
		r.end(jobpb.JobState_DONE)
	}
	answer := make(chan struct{})
	attached := make(chan *run, 1)
	service, err := jobapi.Open(config(t, dir, &attacher{newRunner(), func(handle string, events engine.Events) (engine.Run, error) {
		<-answer
		if handle == "handle of "+first[1].ID {
			return nil, errors.New("flink at 10.0.0.1:8081 does not answer")
		}
		r := newRun(events)
		r.onCancel = func() { r.end(jobpb.JobState_CANCELLED) }
		attached <- r
		return r, nil
	}}))
	if err != nil {
		t.Fatal(err)
	}
	hurry, cancel := context.WithCancel(t.Context())
	cancel()
	if err := service.Close(hurry); err == nil || !contains(err.Error(), first[0].ID) || !contains(err.Error(), first[1].ID) {
		t.Errorf("Close: %v; want an error that names %s and %s", err, first[0].ID, first[1].ID)
	}
	close(answer)
	if err := service.Close(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-(<-attached).cancelled:
		t.Fatal("the run was cancelled")
	default:
	}

	again := make(chan *run, len(first))
	last := serveWith(t, config(t, dir, &attacher{newRunner(), func(_ string, events engine.Events) (engine.Run, error) {
		r := newRun(events)
		again <- r
		return r, nil
	}}))
	for range first {
		(<-again).end(jobpb.JobState_DONE)
	}
	for _, r := range first {
		equal(t, r.Name, []string{"STOPPED", "STARTING", "RUNNING", "DONE"}, last.messages(t, r.ID))
	}
}

// TestSubmissionIsFoundAgain: an engine that may have a job although its Submit did not return has told the handle before, so
// that the next server finds the job, whether this one was killed or stopped.
func TestSubmissionIsFoundAgain(t *testing.T) {
	for _, killed := range []bool{true, false} {
		t.Run(map[bool]string{true: "killed", false: "stopped"}[killed], func(t *testing.T) {
			data := t.TempDir()
			told, answer := make(chan string), make(chan struct{})
			runner := &attacher{newRunner(), nil}
			runner.start = func(_ context.Context, s jobapi.Submission) error {
				if err := s.Events.Handle("handle of " + s.ID); err != nil {
					t.Error(err)
				}
				told <- s.ID
				<-answer
				return nil
			}
			s := serveWith(t, config(t, data, runner))
			s.submit(t, s.prepare(t, "is being submitted").GetPreparationId())
			id := <-told
			if killed {
				data = s.killed(t)
				close(answer)
				(<-runner.starts).end(jobpb.JobState_DONE)
			} else {
				hurry, cancel := context.WithCancel(t.Context())
				cancel()
				if err := s.service.Close(hurry); err == nil || !contains(err.Error(), id) {
					t.Errorf("Close: %v; want an error that names %s", err, id)
				}
				close(answer)
				if err := s.service.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			attached := make(chan *run, 1)
			again := serveWith(t, config(t, data, &attacher{newRunner(), func(handle string, events engine.Events) (engine.Run, error) {
				if handle != "handle of "+id {
					t.Errorf("attached to %q", handle)
				}
				r := newRun(events)
				attached <- r
				return r, nil
			}}))
			(<-attached).end(jobpb.JobState_DONE)
			equal(t, "messages", []string{"STOPPED", "STARTING", "DONE"}, again.messages(t, id))
		})
	}
}

// TestOneServer: a data folder has one server at a time.
func TestOneServer(t *testing.T) {
	dir := t.TempDir()
	first, err := jobapi.Open(config(t, dir, newRunner()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jobapi.Open(config(t, dir, newRunner())); !errors.Is(err, jobapi.ErrInUse) || !contains(err.Error(), dir) {
		t.Errorf("opened by a second server: %v; want ErrInUse, and the folder", err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := jobapi.Open(config(t, dir, newRunner()))
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestCloseIsBounded: a run that does not end keeps nothing from ending, and is named.
func TestCloseIsBounded(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "stuck")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-r.cancelled
		cancel()
	}()
	err := s.service.Close(ctx)
	if err == nil || !contains(err.Error(), r.ID) || !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v; want an error that names %s", err, r.ID)
	}
	equal(t, "states", []string{"STOPPED", "STARTING", "CANCELLING", "Unavailable"}, s.states(t, r.ID))
	r.end(jobpb.JobState_CANCELLED)
}

// TestEndlessMessages: a job that never stops talking does not fill the disk, and its end and the reason for it are told.
func TestEndlessMessages(t *testing.T) {
	r := newRunner()
	s := serveWith(t, jobapi.WithQuota(config(t, t.TempDir(), r), 100<<10))
	s.runner = r
	run := s.run(t, "x")
	text := strings.Repeat("x", 1000)
	for range 1000 {
		run.Message(basic, text)
	}
	for range 1000 {
		run.Message(errorIs, text)
	}
	run.Message(errorIs, "the reason")
	run.end(jobpb.JobState_FAILED)
	got := s.messages(t, run.ID)
	if size, err := os.Stat(filepath.Join(s.dir, "jobs", run.ID, "journal")); err != nil || size.Size() > 210<<10 {
		t.Errorf("the log takes %d bytes (%v)", size.Size(), err)
	}
	notes := 0
	for _, m := range got {
		if contains(m, "from here on") {
			notes++
		}
	}
	if notes != 2 {
		t.Errorf("%d notes that messages are left out; want 2", notes)
	}
	equal(t, "the end", []string{"ERROR: the reason", "FAILED"}, got[len(got)-2:])
}

// TestMetricsAreJournaledRarely: once a second at most, ever more rarely in a long job, and at the end.
func TestMetricsAreJournaledRarely(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	r := newRunner()
	cfg := config(t, t.TempDir(), r)
	cfg.Clock = func() time.Time { return now }
	s := serveWith(t, cfg)
	s.runner = r
	job1 := s.run(t, "x")
	report := func(n int) {
		job1.Metrics([]*pipepb.MonitoringInfo{{Payload: []byte{byte(n)}}}, nil)
	}
	journaled := func() (n int, last byte) {
		for _, r := range records(t, s.dir, job1.ID) {
			if m, ok := r.(*job.Metrics); ok {
				n++
				last = m.GetAttempted()[0].GetPayload()[0]
			}
		}
		return n, last
	}
	for i := range 100 { // 10 seconds
		report(i)
		now = now.Add(100 * time.Millisecond)
	}
	if n, _ := journaled(); n != 10 {
		t.Errorf("%d records in 10 s; want 10", n)
	}
	for range 24 * 3600 { // a day
		report(1)
		now = now.Add(time.Second)
	}
	if n, _ := journaled(); n > 1000 {
		t.Errorf("%d records in a day", n)
	}
	report(2)
	job1.State(jobpb.JobState_RUNNING)
	job1.State(jobpb.JobState_DONE)
	if _, last := journaled(); last != 2 {
		t.Errorf("last metrics in the log: %d; want 2", last)
	}
	report(3)
	if _, last := journaled(); last != 3 {
		t.Errorf("metrics that come after the end: %d; want 3", last)
	}
	job1.release()
}
