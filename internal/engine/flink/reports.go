package flink

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/metric"
	"trestle/internal/engine"
	"trestle/internal/job/submission"
)

// reports are what a job's tasks have reported so far.
type reports struct {
	events engine.Events
	log    *slog.Logger
	// heard has, by task, how many of the messages of its latest attempt were passed on.
	heard map[string]heard
	// former is what earlier attempts at tasks had attempted, as far as they had reported it.
	former metric.Set
}

type heard struct {
	attempt, messages int
	attempted         []*pipepb.MonitoringInfo
}

func newReports(events engine.Events, log *slog.Logger) reports {
	return reports{events: events, log: log, heard: map[string]heard{}}
}

// accumulatorPrefix begins the names of the accumulators that hold reports.
const accumulatorPrefix = "trestle/"

// readReports brings the job's metrics and messages up to date.
func (r *run) readReports() error {
	values, err := r.engine.rest.accumulators(r.ctx, r.id)
	if err != nil {
		r.engine.cfg.Log.Debug("read the tasks' reports", "job", r.id, "error", err)
		return err
	}
	r.reports.take(values)
	return nil
}

// take passes on what accumulators say: the sums of all tasks' metrics, and the messages that are new. What was committed is what
// the tasks of now have done; what those had that Flink has started again was attempted.
func (r *reports) take(values map[string]string) {
	var committed, attempted metric.Set
	memory := memories{}
	any := false
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !strings.HasPrefix(name, accumulatorPrefix) || values[name] == "" {
			continue
		}
		reported, metrics, err := decodeReport(values[name])
		tried := metrics.GetAttempted()
		if len(tried) == 0 {
			tried = metrics.GetCommitted()
		}
		if err == nil {
			err = errors.Join(committed.Add(metrics.GetCommitted()), attempted.Add(tried))
		}
		if err != nil {
			r.log.Warn("a task's report", "task", name, "error", err)
			continue
		}
		any = true
		memory.add(reported)
		r.messages(name, reported)
		r.tried(name, tried)
	}
	if any {
		gauges := memory.gauges()
		if err := errors.Join(committed.Add(gauges), attempted.Add(gauges), attempted.Add(r.former.Snapshot())); err != nil {
			r.log.Warn("the job's metrics", "error", err)
		}
		r.events.Metrics(attempted.Snapshot(), committed.Snapshot())
	}
}

func decodeReport(value string) (*submission.Report, *jobpb.MetricResults, error) {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return nil, nil, err
	}
	decoded, metrics := &submission.Report{}, &jobpb.MetricResults{}
	if err := json.Unmarshal(b, decoded); err != nil {
		return nil, nil, err
	}
	return decoded, metrics, proto.Unmarshal(decoded.Metrics, metrics)
}

func (r *reports) messages(task string, reported *submission.Report) {
	was := r.heard[task]
	if reported.Attempt != was.attempt {
		if err := r.former.Add(was.attempted); err != nil {
			r.log.Warn("what an earlier attempt at a task reported", "task", task, "error", err)
		}
		was = heard{attempt: reported.Attempt}
	}
	for _, m := range reported.Messages {
		if m.N <= was.messages {
			continue
		}
		was.messages = m.N
		importance := jobpb.JobMessage_MessageImportance(jobpb.JobMessage_MessageImportance_value[m.Importance])
		r.events.Message(importance, m.Text)
	}
	r.heard[task] = was
}

// tried keeps what a task has attempted so far, should it be started again.
func (r *reports) tried(task string, infos []*pipepb.MonitoringInfo) {
	was := r.heard[task]
	was.attempted = infos
	r.heard[task] = was
}
