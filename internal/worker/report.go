package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/metric"
	"trestle/internal/job/submission"
	"trestle/internal/kit/here"
)

// A report's messages are bounded in number and in bytes: reports are kept by an engine's master, for all tasks.
const (
	reportMessages = 64
	reportText     = 64 << 10
)

// report is a task's report while it runs. Its methods may be called concurrently.
type report struct {
	attempt int // how often the engine had started the task before
	log     *slog.Logger
	memory  func() submission.Memory

	mu       sync.Mutex
	set      metric.Set // of attempts that counted
	lost     metric.Set // of those that failed
	messages []submission.Message
	text     int // bytes of the messages
	said     int // how many messages there were
	changed  bool
	ended    bool
	sent     submission.Memory // with the last report
}

func (r *report) measured(infos []*pipepb.MonitoringInfo, counts bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := &r.set
	if !counts {
		to = &r.lost
	}
	if err := to.Add(infos); err != nil {
		r.log.Warn("metrics of a bundle", "error", err)
	}
	r.changed = true
}

func (r *report) message(importance jobpb.JobMessage_MessageImportance, text string) {
	if len(text) > reportText/4 {
		text = text[:reportText/4] + fmt.Sprintf("… (%d bytes more)", len(text)-reportText/4)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said++
	r.messages = append(r.messages, submission.Message{N: r.said, Time: time.Now().UTC(), Importance: importance.String(), Text: text})
	r.text += len(text)
	for len(r.messages) > reportMessages || r.text > reportText {
		r.text -= len(r.messages[0].Text)
		r.messages = r.messages[1:]
	}
	r.changed = true
}

// end is for a task that has failed: there are no reports of it any more.
func (r *report) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// encode is the report as it is now; nil when nothing has changed since the last time.
func (r *report) encode() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return nil, nil
	}
	memory := r.memory()
	if !r.changed && !differs(memory, r.sent) {
		return nil, nil
	}
	r.changed, r.sent = false, memory
	metrics, err := r.metrics()
	if err != nil {
		return nil, fmt.Errorf("encode a task's metrics: %w", err)
	}
	return json.Marshal(submission.Report{
		Host: here.Host(), Worker: os.Getpid(), Attempt: r.attempt, Metrics: metrics, Messages: r.messages,
		Time: time.Now().UTC(), Memory: memory,
	})
}

// metrics is a MetricResults. It has what was attempted when that is more than what was committed.
func (r *report) metrics() ([]byte, error) {
	results := &jobpb.MetricResults{Committed: r.set.Snapshot()}
	if r.lost.Len() > 0 {
		var all metric.Set
		if err := errors.Join(all.Add(results.GetCommitted()), all.Add(r.lost.Snapshot())); err != nil {
			return nil, err
		}
		results.Attempted = all.Snapshot()
	}
	return proto.Marshal(results)
}
