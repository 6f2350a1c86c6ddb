package jobapi_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/jobapi"
)

const (
	basic   = jobpb.JobMessage_JOB_MESSAGE_BASIC
	errorIs = jobpb.JobMessage_JOB_MESSAGE_ERROR
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func equal(t testing.TB, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// TestLife is a job from Prepare to its end, with every question that can be asked about it.
func TestLife(t *testing.T) {
	s := serve(t, t.TempDir())
	options, err := structpb.NewStruct(map[string]any{
		"beam:option:job_name:v1":       "Word Count",
		"beam:option:parallelism:v1":    "2",
		"beam:option:of_no_one:v1":      []any{"kept", 1.5, nil, map[string]any{"as": "it is"}},
		"not even spelt like an option": true,
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: pipeline(), PipelineOptions: options, JobName: "job"})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.GetArtifactStagingEndpoint().GetUrl(); got != "127.0.0.1:8098" {
		t.Errorf("artifact staging endpoint %q", got)
	}
	if !strings.HasPrefix(p.GetStagingSessionToken(), "word-count-") {
		t.Errorf("staging token %q", p.GetStagingSessionToken())
	}
	id := s.submit(t, p.GetPreparationId())
	r := <-s.runner.starts
	if r.ID != id || r.Name != "Word Count" {
		t.Errorf("submitted as %q, %q; want %q, Word Count", r.ID, r.Name, id)
	}
	equal(t, "the engine's options", options, r.Options)
	staged := pipeline()
	staged.Components.Environments["go"].Dependencies[0].TypePayload = []byte("resolved")
	equal(t, "the engine's pipeline", staged, r.Pipeline)

	follower, err := s.GetMessageStream(t.Context(), &jobpb.JobMessagesRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	r.State(jobpb.JobState_RUNNING)
	r.Message(basic, "one stage")
	r.Message(jobpb.JobMessage_JOB_MESSAGE_DEBUG, "a detail")
	r.Metrics(nil, nil)
	infos := []*pipepb.MonitoringInfo{{Urn: "beam:metric:element_count:v1", Payload: []byte{3}}}
	r.Metrics(infos, infos[:0])
	metrics := func() *jobpb.MetricResults {
		m, err := s.GetJobMetrics(t.Context(), &jobpb.GetJobMetricsRequest{JobId: id})
		if err != nil {
			t.Fatal(err)
		}
		return m.GetMetrics()
	}
	wantMetrics := &jobpb.MetricResults{Attempted: infos}
	equal(t, "metrics while it runs", wantMetrics, metrics())
	r.end(jobpb.JobState_DONE)

	want := []string{"STOPPED", "STARTING", "RUNNING", "BASIC: one stage", "DEBUG: a detail", "DONE"}
	equal(t, "messages, followed", want, readMessages(follower))
	equal(t, "messages, late", want, s.messages(t, id))
	equal(t, "states", []string{"STOPPED", "STARTING", "RUNNING", "DONE"}, s.states(t, id))
	st, err := s.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id})
	if err != nil || st.GetState() != jobpb.JobState_DONE || !st.GetTimestamp().IsValid() {
		t.Errorf("state %v, %v", st, err)
	}
	equal(t, "metrics at the end", wantMetrics, metrics())
	jobs, err := s.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "jobs", []*jobpb.JobInfo{
		{JobId: id, JobName: "Word Count", PipelineOptions: options, State: jobpb.JobState_DONE},
	}, jobs.GetJobInfo())
	got, err := s.GetPipeline(t.Context(), &jobpb.GetJobPipelineRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "pipeline, as it was submitted", pipeline(), got.GetPipeline())
	if cancel, err := s.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id}); err != nil || cancel.GetState() != jobpb.JobState_DONE {
		t.Errorf("cancel after the end: %v, %v; want DONE", cancel, err)
	}
}

// TestPreparationIDIsNoJobID: see the package's comment.
func TestPreparationIDIsNoJobID(t *testing.T) {
	s := serve(t, t.TempDir())
	p := s.prepare(t, "x")
	equal(t, "states of a preparation id", []string{"NotFound"}, s.states(t, p.GetPreparationId()))
	equal(t, "messages of a preparation id", []string{"NotFound"}, s.messages(t, p.GetPreparationId()))
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetStagingSessionToken()})
	refused(t, err, codes.NotFound, "has not prepared")
}

func TestUnknownJob(t *testing.T) {
	s := serve(t, t.TempDir())
	id := "no-such-job"
	_, err := s.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id})
	refused(t, err, codes.NotFound, id)
	_, err = s.GetPipeline(t.Context(), &jobpb.GetJobPipelineRequest{JobId: id})
	refused(t, err, codes.NotFound, id)
	_, err = s.GetJobMetrics(t.Context(), &jobpb.GetJobMetricsRequest{JobId: id})
	refused(t, err, codes.NotFound, id)
	_, err = s.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id})
	refused(t, err, codes.NotFound, id)
	_, err = s.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id})
	refused(t, err, codes.NotFound, id)
	_, err = s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: id})
	refused(t, err, codes.NotFound, id)
	_, err = s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: "prepared:" + id})
	refused(t, err, codes.NotFound, id)
}

// TestDrain: a job that was asked to drain, while it starts or runs, is asked once, and ends as DRAINED.
func TestDrain(t *testing.T) {
	for _, when := range []string{"starts", "runs"} {
		t.Run(when, func(t *testing.T) {
			s := serve(t, t.TempDir())
			starts := make(chan struct{})
			s.runner.start = func(context.Context, jobapi.Submission) error {
				<-starts
				return nil
			}
			id := s.submit(t, s.prepare(t, "x").GetPreparationId())
			begin := func() *run {
				close(starts)
				r := <-s.runner.starts
				<-r.followed
				return r
			}
			var r *run
			if when == "runs" {
				r = begin()
			}
			for range 2 {
				answer, err := s.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id})
				if err != nil || answer.GetState() != jobpb.JobState_DRAINING {
					t.Fatalf("drain: %v, %v", answer, err)
				}
			}
			if when == "starts" {
				r = begin()
			}
			<-r.drained
			r.end(jobpb.JobState_DONE)
			equal(t, "states", []string{"STOPPED", "STARTING", "DRAINING", "DRAINED"}, s.states(t, id))
			answer, err := s.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id})
			if err != nil || answer.GetState() != jobpb.JobState_DRAINED {
				t.Errorf("drain a job that has ended: %v, %v", answer, err)
			}
		})
	}
}

// TestDrainAnEngineThatCannot: it is said at once, and changes nothing.
func TestDrainAnEngineThatCannot(t *testing.T) {
	s := serve(t, t.TempDir())
	s.runner.hide = true
	r := s.run(t, "x")
	<-r.followed // before, the service does not know yet what the engine can
	_, err := s.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: r.ID})
	refused(t, err, codes.Unimplemented, "cannot drain")
	r.end(jobpb.JobState_DONE)
	equal(t, "states", []string{"STOPPED", "STARTING", "DONE"}, s.states(t, r.ID))
}

// TestPrepareRefusesAll: every problem in one answer, and nothing left behind.
func TestPrepareRefusesAll(t *testing.T) {
	s := serve(t, t.TempDir())
	s.runner.check = func(*pipepb.Pipeline, *structpb.Struct) error {
		return errors.Join(errors.New(`transform "Read": unknown URN`), errors.New(`transform "Write": coder cycle`))
	}
	_, err := s.Prepare(t.Context(), &jobpb.PrepareJobRequest{JobName: "Bad", Pipeline: pipeline()})
	refused(t, err, codes.InvalidArgument, `pipeline "Bad" cannot run`, `transform "Read": unknown URN`, `transform "Write": coder cycle`)
	_, err = s.Prepare(t.Context(), &jobpb.PrepareJobRequest{})
	refused(t, err, codes.InvalidArgument, "no pipeline")
	if left, err := os.ReadDir(filepath.Join(s.dir, "jobs")); err != nil || len(left) > 0 || s.staging.open() > 0 {
		t.Errorf("left behind: %v, %v, %d staging sessions", left, err, s.staging.open())
	}
}

func TestRunsOnce(t *testing.T) {
	s := serve(t, t.TempDir())
	p := s.prepare(t, "x").GetPreparationId()
	s.staging.fail(errors.New("artifact worker.jar: wrong hash"))
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p})
	refused(t, err, codes.FailedPrecondition, "not staged", "worker.jar: wrong hash")
	s.staging.fail(nil)

	// Of many calls at a time, one runs the job.
	var calls sync.WaitGroup
	results := make(chan error, 10)
	for range cap(results) {
		calls.Go(func() {
			_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p})
			results <- err
		})
	}
	calls.Wait()
	close(results)
	ran := 0
	for err := range results {
		if err == nil {
			ran++
		} else {
			refused(t, err, codes.FailedPrecondition)
		}
	}
	if ran != 1 || len(s.runner.starts) > 1 {
		t.Fatalf("the job was run %d times", ran)
	}
	r := <-s.runner.starts
	r.end(jobpb.JobState_DONE)
	s.states(t, r.ID)
	_, err = s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p})
	refused(t, err, codes.FailedPrecondition, "was run before, and is DONE")
}

// TestRunAnswersQuickly: Run does not wait for the engine, and what the engine says against the job is the job's error.
func TestRunAnswersQuickly(t *testing.T) {
	s := serve(t, t.TempDir())
	goOn := make(chan struct{})
	s.runner.start = func(context.Context, jobapi.Submission) error {
		<-goOn
		return errors.New("flink at 10.0.0.1:8081 does not answer")
	}
	id := s.submit(t, s.prepare(t, "x").GetPreparationId())
	if st := s.state(t, id); st != jobpb.JobState_STARTING {
		t.Errorf("state %v; want STARTING", st)
	}
	close(goOn)
	equal(t, "messages", []string{"STOPPED", "STARTING", "ERROR: flink at 10.0.0.1:8081 does not answer", "FAILED"}, s.messages(t, id))
}

func (s *server) cancelJob(t testing.TB, id string) jobpb.JobState_Enum {
	t.Helper()
	r, err := s.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	return r.GetState()
}

func TestCancelBeforeRun(t *testing.T) {
	s := serve(t, t.TempDir())
	p := s.prepare(t, "x")
	if st := s.cancelJob(t, p.GetStagingSessionToken()); st != jobpb.JobState_CANCELLED {
		t.Errorf("cancelled a prepared job: %v", st)
	}
	equal(t, "states", []string{"STOPPED", "CANCELLED"}, s.states(t, p.GetStagingSessionToken()))
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()})
	refused(t, err, codes.FailedPrecondition, "is CANCELLED")
	if n := s.staging.open(); n > 0 {
		t.Errorf("%d staging sessions are left", n)
	}
}

// TestCancelWhileStaging: the job is cancelled while Run waits for its artifacts, and does not run.
func TestCancelWhileStaging(t *testing.T) {
	cfg := config(t, t.TempDir(), newRunner())
	wait := make(chan struct{})
	cfg.Staging.(*staging).wait = wait
	s := serveWith(t, cfg)
	p := s.prepare(t, "x")
	ran := make(chan error)
	go func() {
		_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()})
		ran <- err
	}()
	if st := s.cancelJob(t, p.GetStagingSessionToken()); st != jobpb.JobState_CANCELLED {
		t.Errorf("cancelled a prepared job: %v", st)
	}
	close(wait)
	refused(t, <-ran, codes.FailedPrecondition, "is CANCELLED")
	equal(t, "states", []string{"STOPPED", "CANCELLED"}, s.states(t, p.GetStagingSessionToken()))
}

// TestCancelWhileStarting: the engine's Start is told by its context.
func TestCancelWhileStarting(t *testing.T) {
	s := serve(t, t.TempDir())
	s.runner.start = func(ctx context.Context, _ jobapi.Submission) error {
		<-ctx.Done()
		return ctx.Err()
	}
	id := s.submit(t, s.prepare(t, "x").GetPreparationId())
	if st := s.cancelJob(t, id); st != jobpb.JobState_CANCELLING && st != jobpb.JobState_CANCELLED {
		t.Errorf("cancel: %v", st)
	}
	equal(t, "messages", []string{"STOPPED", "STARTING", "CANCELLING", "CANCELLED"}, s.messages(t, id))
}

// TestCancelMeetsStart: the engine has taken the job in the moment in which it was cancelled, and cancels the run.
func TestCancelMeetsStart(t *testing.T) {
	s := serve(t, t.TempDir())
	s.runner.start = func(ctx context.Context, _ jobapi.Submission) error {
		<-ctx.Done()
		return nil
	}
	id := s.submit(t, s.prepare(t, "x").GetPreparationId())
	s.cancelJob(t, id)
	r := <-s.runner.starts
	<-r.cancelled
	r.State(jobpb.JobState_RUNNING)
	r.end(jobpb.JobState_CANCELLED)
	equal(t, "messages", []string{"STOPPED", "STARTING", "CANCELLING", "CANCELLED"}, s.messages(t, id))
}

func TestCancelWhileRunning(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "x")
	r.State(jobpb.JobState_RUNNING)
	r.onCancel = func() { r.Message(basic, "stopping the harnesses") }
	var calls sync.WaitGroup
	for range 5 {
		calls.Go(func() {
			if st := s.cancelJob(t, r.ID); st != jobpb.JobState_CANCELLING {
				t.Errorf("cancel: %v", st)
			}
		})
	}
	calls.Wait()
	<-r.cancelled
	r.end(jobpb.JobState_CANCELLED)
	equal(t, "messages",
		[]string{"STOPPED", "STARTING", "RUNNING", "CANCELLING", "BASIC: stopping the harnesses", "CANCELLED"}, s.messages(t, r.ID))
	if st := s.cancelJob(t, r.ID); st != jobpb.JobState_CANCELLED {
		t.Errorf("cancelled again: %v", st)
	}
}

// TestEngineBreaksItsWord: whatever an engine reports, a job has one end and a reason for it, and streams end with it.
func TestEngineBreaksItsWord(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "reports twice")
	r.State(jobpb.JobState_RUNNING)
	r.State(jobpb.JobState_RUNNING)
	r.State(jobpb.JobState_STOPPED)
	r.State(jobpb.JobState_DONE)
	r.Message(basic, "too late")
	r.end(jobpb.JobState_FAILED)
	equal(t, "reports twice", []string{"STOPPED", "STARTING", "RUNNING", "DONE"}, s.messages(t, r.ID))

	r = s.run(t, "gives no reason")
	r.end(jobpb.JobState_FAILED)
	equal(t, "gives no reason",
		[]string{"STOPPED", "STARTING", "ERROR: The job failed, and the engine gave no reason.", "FAILED"}, s.messages(t, r.ID))

	r = s.run(t, "reports no end")
	r.State(jobpb.JobState_RUNNING)
	r.release()
	equal(t, "reports no end",
		[]string{"STOPPED", "STARTING", "RUNNING", "ERROR: The engine's run ended, and it told no result.", "FAILED"}, s.messages(t, r.ID))
}

// TestFirstState: the first GetState after Run waits for the job's end, for FirstStateWait at most; no other call waits.
func TestFirstState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRunner()
		s, err := jobapi.Open(config(t, t.TempDir(), r))
		if err != nil {
			t.Fatal(err)
		}
		start := func() *run {
			p, err := s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: pipeline()})
			if err != nil {
				t.Fatal(err)
			}
			if st, took := poll(t, s, p.GetStagingSessionToken()); st != jobpb.JobState_STOPPED || took != 0 {
				t.Errorf("before Run: %v after %v", st, took)
			}
			if _, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()}); err != nil {
				t.Fatal(err)
			}
			return <-r.starts
		}
		long := start()
		long.State(jobpb.JobState_RUNNING)
		if st, took := poll(t, s, long.ID); st != jobpb.JobState_RUNNING || took != jobapi.FirstStateWait {
			t.Errorf("a long job's first state: %v after %v", st, took)
		}
		if st, took := poll(t, s, long.ID); st != jobpb.JobState_RUNNING || took != 0 {
			t.Errorf("a long job's second state: %v after %v", st, took)
		}
		short := start()
		time.AfterFunc(jobapi.FirstStateWait/2, func() { short.end(jobpb.JobState_DONE) })
		if st, took := poll(t, s, short.ID); st != jobpb.JobState_DONE || took != jobapi.FirstStateWait/2 {
			t.Errorf("a short job's first state: %v after %v", st, took)
		}
		long.end(jobpb.JobState_DONE)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func poll(t *testing.T, s *jobapi.Service, id string) (jobpb.JobState_Enum, time.Duration) {
	t.Helper()
	since := time.Now()
	st, err := s.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	return st.GetState(), time.Since(since)
}

// TestLargePipeline: with ServerOptions, a pipeline may be larger than gRPC's 4 MiB.
func TestLargePipeline(t *testing.T) {
	s := serve(t, t.TempDir())
	p := pipeline()
	p.Components.Transforms = map[string]*pipepb.PTransform{
		"create": {Spec: &pipepb.FunctionSpec{Payload: make([]byte, 10<<20)}}}
	prepared, err := s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: p})
	if err != nil {
		t.Fatal(err)
	}
	s.submit(t, prepared.GetPreparationId())
	r := <-s.runner.starts
	if n := len(r.Pipeline.GetComponents().GetTransforms()["create"].GetSpec().GetPayload()); n != 10<<20 {
		t.Errorf("the engine's pipeline has a payload of %d bytes", n)
	}
	r.end(jobpb.JobState_DONE)
	got, err := s.GetPipeline(t.Context(), &jobpb.GetJobPipelineRequest{JobId: r.ID}, grpc.MaxCallRecvMsgSize(20<<20))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(p, got.GetPipeline()) {
		t.Error("GetPipeline is not the pipeline that was submitted")
	}
}

// TestMessagesThatClientsTake: whatever a message's bytes are, it arrives.
func TestMessagesThatClientsTake(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "x")
	r.Message(basic, "broken: \xff\xfe.")
	r.Message(errorIs, "the cause"+strings.Repeat("\nat some.java.Frame(ü)", 1<<20)+"\nthe place")
	r.end(jobpb.JobState_FAILED)
	got := s.messages(t, r.ID)
	if len(got) != 5 || got[2] != "BASIC: broken: \uFFFD." {
		t.Fatalf("%.300q", got)
	}
	if long := got[3]; len(long) > 1<<20+20 || !strings.HasPrefix(long, "ERROR: the cause\nat") || !strings.HasSuffix(long, "\nthe place") ||
		!contains(long, "bytes left out") {
		t.Errorf("%d bytes: %.100q", len(long), long)
	}
}

// TestManyOptions: with more options than fit an answer, all jobs are listed, and the newest with theirs.
func TestManyOptions(t *testing.T) {
	s := serve(t, t.TempDir())
	options, err := structpb.NewStruct(map[string]any{"beam:option:big:v1": strings.Repeat("x", 500<<10)})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := s.Prepare(t.Context(), &jobpb.PrepareJobRequest{Pipeline: pipeline(), PipelineOptions: options}); err != nil {
			t.Fatal(err)
		}
	}
	jobs, err := s.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var with []bool
	for _, j := range jobs.GetJobInfo() {
		with = append(with, j.GetPipelineOptions() != nil)
	}
	equal(t, "jobs with options", []bool{false, false, false, false, true, true, true, true, true, true}, with)
}

// TestOptionsFeedPythonsParser: names, types and texts as Python's client hands them to argparse.
func TestOptionsFeedPythonsParser(t *testing.T) {
	s := serve(t, t.TempDir())
	r, err := s.DescribePipelineOptions(t.Context(), &jobpb.DescribePipelineOptionsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range r.GetOptions() {
		names = append(names, o.GetName())
		if o.GetDescription() == "" || o.GetGroup() == "" {
			t.Errorf("option %v lacks a description or a group", o)
		}
	}
	equal(t, "options", []string{"parallelism", "bundle_attempts", "engine"}, names)
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"WordCount": "wordcount", "": "job", "../../etc/passwd": "etc-passwd", "żółw 7!": "w-7", "--": "job",
		strings.Repeat("long", 20): strings.Repeat("long", 10), "a..b__c": "a-b-c",
	} {
		if got := jobapi.Slug(name); got != want {
			t.Errorf("slug of %q: %q; want %q", name, got, want)
		}
	}
	options, err := structpb.NewStruct(map[string]any{"beam:option:app_name:v1": "app", "beam:option:job_name:v1": nil})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		requested string
		options   *structpb.Struct
		want      string
	}{{"mine", options, "mine"}, {"job", options, "app"}, {"", options, "app"}, {"job", nil, "job"}, {"", nil, "job"}} {
		if got := jobapi.JobName(c.requested, c.options); got != c.want {
			t.Errorf("name of %q with %v: %q; want %q", c.requested, c.options, got, c.want)
		}
	}
}
