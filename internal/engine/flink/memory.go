package flink

import (
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/metric"
	"trestle/internal/job/submission"
)

// memories are the latest that workers have reported of their memory, by host. A host has one worker of a job at a time; where one
// was lost, the peaks are the highest of all.
type memories map[string]*submission.Report

func (m memories) add(r *submission.Report) {
	was := m[r.Host]
	if was == nil {
		m[r.Host] = r
		return
	}
	latest, other := *was, r
	if r.Time.After(was.Time) {
		latest, other = *r, was
	}
	latest.Memory.ResidentPeak = max(latest.Memory.ResidentPeak, other.Memory.ResidentPeak)
	latest.Memory.HeldPeak = max(latest.Memory.HeldPeak, other.Memory.HeldPeak)
	m[r.Host] = &latest
}

// gauges are the job's metrics of it: see docs/flink.md.
func (m memories) gauges() (infos []*pipepb.MonitoringInfo) {
	for host, r := range m {
		for name, value := range map[string]int64{
			"resident_bytes": r.Memory.Resident, "resident_peak_bytes": r.Memory.ResidentPeak,
			"held_bytes": r.Memory.Held, "held_peak_bytes": r.Memory.HeldPeak, "budget_bytes": r.Memory.Budget,
		} {
			infos = append(infos, metric.Gauge("trestle.worker", name, "worker on "+host, r.Time, value))
		}
	}
	return infos
}
