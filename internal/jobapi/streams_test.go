package jobapi_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestSlowReader: a client that does not read holds up neither the job nor other clients, and misses nothing.
func TestSlowReader(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "x")
	slow, err := s.GetMessageStream(t.Context(), &jobpb.JobMessagesRequest{JobId: r.ID})
	if err != nil {
		t.Fatal(err)
	}
	r.State(jobpb.JobState_RUNNING)
	want := []string{"STOPPED", "STARTING", "RUNNING"}
	for i := range 20_000 { // far more than fits any window
		text := fmt.Sprintf("message %d of a job whose client does not read at all", i)
		r.Message(basic, text)
		want = append(want, "BASIC: "+text)
	}
	r.end(jobpb.JobState_DONE)
	want = append(want, "DONE")
	equal(t, "another reader", want, s.messages(t, r.ID))
	equal(t, "the slow reader", want, readMessages(slow))
}

// TestDisconnectedClient: a stream's call ends when its client goes, whether it was waiting or sending.
func TestDisconnectedClient(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "x")
	for i := range 20_000 {
		r.Message(basic, fmt.Sprintf("message %d, to fill the windows", i))
	}
	for _, first := range []int{0, 20_002} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := s.GetMessageStream(ctx, &jobpb.JobMessagesRequest{JobId: r.ID})
		if err != nil {
			t.Fatal(err)
		}
		for range first {
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		<-s.handlers
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled && err != nil {
			t.Errorf("after %d messages: %v", first, err)
		}
	}
	r.end(jobpb.JobState_DONE)
}

// TestDeadline: a client's own deadline ends its stream with that, and not with an error of the server's.
func TestDeadline(t *testing.T) {
	s := serve(t, t.TempDir())
	r := s.run(t, "x")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	stream, err := s.GetStateStream(ctx, &jobpb.GetJobStateRequest{JobId: r.ID}) // which may come too late already
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v; want DeadlineExceeded", err)
	}
	r.end(jobpb.JobState_DONE)
}

// TestManyAtOnce: jobs run, are cancelled, and are asked about from many sides at a time; each reader sees the same history
// of a job, and it ends with a terminal state.
func TestManyAtOnce(t *testing.T) {
	s := serve(t, t.TempDir())
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			id := s.submit(t, s.prepare(t, fmt.Sprintf("job %d", n)).GetPreparationId())
			var readers sync.WaitGroup
			got := make([][]string, 3)
			for i := range got {
				readers.Go(func() { got[i] = s.messages(t, id) })
			}
			if n%2 == 0 {
				s.cancelJob(t, id)
			}
			if _, err := s.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id}); err != nil {
				t.Error(err)
			}
			if _, err := s.GetJobMetrics(t.Context(), &jobpb.GetJobMetricsRequest{JobId: id}); err != nil {
				t.Error(err)
			}
			readers.Wait()
			for i := range got {
				equal(t, id, got[0], got[i])
			}
			if last := got[0][len(got[0])-1]; last != "DONE" && last != "CANCELLED" {
				t.Errorf("%s ended with %s", id, last)
			}
		})
	}
	go func() {
		for range 8 {
			go func() {
				r := <-s.runner.starts
				r.State(jobpb.JobState_RUNNING)
				for i := range 50 {
					r.Message(basic, fmt.Sprint(i))
					r.Metrics(nil, nil)
				}
				select {
				case <-r.cancelled:
					r.end(jobpb.JobState_CANCELLED)
				default:
					r.end(jobpb.JobState_DONE)
				}
			}()
		}
	}()
	all.Wait()
}
