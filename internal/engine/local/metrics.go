package local

import (
	"sync"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/metric"
	"trestle/internal/engine/local/streaming"
)

// measured are a job's metrics.
type measured struct {
	sync.Mutex
	succeeded metric.Set // what attempts measured that succeeded, also those that a job which began again does once more
	lost      metric.Set // what others had measured, as far as that is known
	// stream is the running job of a streaming plan, of which only what is in effect is committed: it goes back, with all that
	// the job has done, to the snapshot that it goes on from. Nil for other plans.
	stream   *streaming.Job
	reported time.Time
}

// attempted is what all attempts measured. The caller holds the lock.
func (m *measured) attempted() ([]*pipepb.MonitoringInfo, error) {
	infos := m.succeeded.Snapshot()
	if m.lost.Len() == 0 {
		return infos, nil
	}
	var all metric.Set
	if err := all.Add(infos); err != nil {
		return nil, err
	}
	err := all.Add(m.lost.Snapshot())
	return all.Snapshot(), err
}

// both are the attempted and the committed metrics. The caller holds the lock.
func (m *measured) both() (attempted, committed []*pipepb.MonitoringInfo, err error) {
	// What is committed was attempted before: looked at in this order, there is never more of it.
	if m.stream != nil {
		if committed, err = m.stream.Metrics(); err != nil {
			return nil, nil, err
		}
	} else {
		committed = m.succeeded.Snapshot()
	}
	attempted, err = m.attempted()
	return attempted, committed, err
}

// addMetrics adds what an attempt measured: see stage.Output.
func (r *run) addMetrics(infos []*pipepb.MonitoringInfo, counts bool) {
	r.metrics.Lock()
	to := &r.metrics.succeeded
	if !counts {
		to = &r.metrics.lost
	}
	err := to.Add(infos)
	r.metrics.Unlock()
	if err != nil {
		r.log.Warn("metrics of a bundle", "error", err)
	}
	r.reportMetrics(false)
}

// attemptedMetrics is what the job has attempted so far.
func (r *run) attemptedMetrics() ([]*pipepb.MonitoringInfo, error) {
	r.metrics.Lock()
	defer r.metrics.Unlock()
	return r.metrics.attempted()
}

// reportEvery is how often a running job's metrics are brought up to date.
const reportEvery = time.Second

func (r *run) reportMetrics(final bool) {
	r.metrics.Lock()
	defer r.metrics.Unlock()
	if !final && time.Since(r.metrics.reported) < reportEvery {
		return
	}
	r.metrics.reported = time.Now()
	attempted, committed, err := r.metrics.both()
	if err != nil {
		r.log.Warn("metrics of the job", "error", err)
		return
	}
	r.job.Events.Metrics(attempted, committed)
}

// goOnMeasuring has the metrics be those of a job of a streaming plan that is about to run. A server that has just begun knows what was
// attempted from the job's snapshot; one that runs the job again knows more.
func (r *run) goOnMeasuring(job *streaming.Job) error {
	r.metrics.Lock()
	defer r.metrics.Unlock()
	first := r.metrics.stream == nil
	r.metrics.stream = job
	if !first {
		return nil
	}
	infos, err := job.Attempted()
	if err != nil {
		return err
	}
	return r.metrics.succeeded.Add(infos)
}
