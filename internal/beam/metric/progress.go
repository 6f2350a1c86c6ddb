package metric

import (
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

// Labels by which a metric names its PCollection or transform (MonitoringInfo.MonitoringInfoLabels in metrics.proto).
const (
	pcollectionLabel = "PCOLLECTION"
	transformLabel   = "PTRANSFORM"
)

// Output tells whether elements came out of a bundle so far: whether any PCollection but its input has one
// (beam:metric:element_count in metrics.proto). ok is false when the harness counts nothing at all; Java's leaves out
// those that are 0.
func Output(infos []*pipepb.MonitoringInfo, input string) (some, ok bool, err error) {
	for _, info := range infos {
		if info.GetUrn() != urn.MetricElementCount {
			continue
		}
		ok = true
		if info.GetLabels()[pcollectionLabel] == input {
			continue
		}
		r := reader{b: info.GetPayload()}
		n := r.varint()
		if err := r.end(); err != nil {
			return false, false, fmt.Errorf("%s: %w", info.GetUrn(), err)
		}
		some = some || n > 0
	}
	return some, ok, nil
}

// ReadIndex is how many elements a bundle has read from a source (beam:metric:data_channel:read_index in metrics.proto); ok is
// false when the harness does not say.
func ReadIndex(infos []*pipepb.MonitoringInfo, source string) (n int64, ok bool, err error) {
	for _, info := range infos {
		if info.GetUrn() != urn.MetricDataChannelReadIndex || info.GetLabels()[transformLabel] != source {
			continue
		}
		r := reader{b: info.GetPayload()}
		n = r.varint()
		if err := r.end(); err != nil {
			return 0, false, fmt.Errorf("%s: %w", info.GetUrn(), err)
		}
		return n, true, nil
	}
	return 0, false, nil
}

// Progress is the fraction, from 0 to 1, of a bundle's known work that is done, as its splittable DoFns report it
// (beam:metric:ptransform_progress in metrics.proto); ok is false when none reports.
func Progress(infos []*pipepb.MonitoringInfo) (fraction float64, ok bool, err error) {
	var completed, remaining float64
	for _, info := range infos {
		var to *float64
		switch info.GetUrn() {
		case urn.MetricWorkCompleted:
			to = &completed
		case urn.MetricWorkRemaining:
			to = &remaining
		default:
			continue
		}
		r := reader{b: info.GetPayload()}
		r.iterable(func() { *to += r.double() })
		if err := r.end(); err != nil {
			return 0, false, fmt.Errorf("%s: %w", info.GetUrn(), err)
		}
	}
	// Written so that NaN and infinities, which come from outside, are no progress.
	if all := completed + remaining; all > 0 && completed >= 0 && completed <= all {
		return completed / all, true, nil
	}
	return 0, false, nil
}
