package stage

import (
	"encoding/binary"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

// The counters of elements that a task drops, by transform, as Beam's own runners call them.
const (
	droppedLate   = "droppedDueToLateness"     // the element's window is over
	droppedClosed = "droppedDueToClosedWindow" // its window's trigger has ended
)

// dropsNamespace is the namespace of counters that are the runner's own.
const dropsNamespace = "trestle"

// drops counts the elements that a transform has dropped and that were not reported yet.
type drops struct {
	transform    string
	late, closed int64
}

// dropper is an intake that drops elements.
type dropper interface{ dropped() *drops }

// report is what was counted since the last report, as metrics; nil when nothing was.
func (d *drops) report() []*pipepb.MonitoringInfo {
	var infos []*pipepb.MonitoringInfo
	for _, c := range []struct {
		name string
		n    *int64
	}{{droppedLate, &d.late}, {droppedClosed, &d.closed}} {
		if *c.n == 0 {
			continue
		}
		infos = append(infos, &pipepb.MonitoringInfo{
			Urn: urn.MetricUserSumInt64, Type: urn.MetricTypeSumInt64, Payload: binary.AppendUvarint(nil, uint64(*c.n)),
			Labels: map[string]string{"PTRANSFORM": d.transform, "NAMESPACE": dropsNamespace, "NAME": c.name},
		})
		*c.n = 0
	}
	return infos
}
