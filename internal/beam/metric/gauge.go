package metric

import (
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

// Gauge is a metric of the runner's own in the form in which SDKs show users' gauges: a value that something had at a time. They
// ask for the name of a step, which is whatever has the value.
func Gauge(namespace, name, step string, at time.Time, value int64) *pipepb.MonitoringInfo {
	return &pipepb.MonitoringInfo{
		Urn: urn.MetricUserLatestInt64, Type: urn.MetricTypeLatestInt64,
		Labels:  map[string]string{"NAMESPACE": namespace, "NAME": name, "PTRANSFORM": step},
		Payload: appendVarint(appendVarint(nil, at.UnixMilli()), value),
	}
}
