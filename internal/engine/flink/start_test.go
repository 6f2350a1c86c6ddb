package flink

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// A submission that has begun is not cut off when it is not wanted any more: Flink would go on with it, and nobody would know.
func TestStartIsNotCutOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		select {
		case <-r.Context().Done():
		case <-time.After(100 * time.Millisecond): // the client would have hung up by then
		}
		fmt.Fprint(w, `{}`)
	}))
	defer server.Close()
	e := at(t, server.URL)
	if err := e.start(ctx, "a jar", "a job", ""); err != nil {
		t.Errorf("cancelled while Flink was asked: %v", err)
	}
	if err := e.start(ctx, "a jar", "a job", ""); !errors.Is(err, context.Canceled) || errors.Is(err, errUnheard) {
		t.Errorf("cancelled before: %v", err)
	}
}

// Where the answer to a submission is not heard, Flink may have the job; where it was refused, or nobody was there, not.
func TestStartUnheard(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "refused") {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		panic(http.ErrAbortHandler) // the connection breaks
	}))
	defer server.Close()
	e := at(t, server.URL)
	if err := e.start(t.Context(), "a jar", "a job", ""); !errors.Is(err, errUnheard) {
		t.Errorf("the connection breaks: %v", err)
	}
	if err := e.start(t.Context(), "refused", "a job", ""); err == nil || errors.Is(err, errUnheard) {
		t.Errorf("refused: %v", err)
	}
	server.Close()
	if err := e.start(t.Context(), "a jar", "a job", ""); err == nil || errors.Is(err, errUnheard) {
		t.Errorf("nobody there: %v", err)
	}
}

// A job that Flink was asked to run is followed although Flink does not know it yet; one that does not come is given up.
func TestFollowBeforeItIsThere(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/jobs/never"), asked.Add(1) < 4:
			// As Flink 1.20.5 answers for a job's status.
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"errors": ["Internal server error.", "<Exception on server side:\norg.apache.flink.runtime.messages.FlinkJobNotFoundException: Could not find Flink job (dabbcf5433983cae9913539d53f73120)\n\tat org.apache.flink.runtime.dispatcher.Dispatcher.lambda$requestJobStatus$20(Dispatcher.java:903)\n\nEnd of exception on server side>"]}`)
		case r.URL.Path == "/jobs/x/status":
			fmt.Fprint(w, `{"status": "FINISHED"}`)
		default:
			fmt.Fprint(w, `{"state": "FINISHED"}`)
		}
	}))
	defer server.Close()
	for _, test := range []struct {
		id     string
		within time.Duration
		cancel bool
		want   jobpb.JobState_Enum
	}{
		{"x", time.Hour, false, jobpb.JobState_DONE},
		{"never", 100 * time.Millisecond, false, jobpb.JobState_FAILED},
		{"never", 100 * time.Millisecond, true, jobpb.JobState_CANCELLED},
		{"never", 0, false, jobpb.JobState_FAILED},
	} {
		var l listener
		run := at(t, server.URL).follow(test.id, &l, test.within)
		if test.cancel {
			run.Cancel()
		}
		<-run.Done()
		if len(l.states) != 1 || l.states[0] != test.want {
			t.Errorf("%+v: states %v", test, l.states)
		}
	}
}
