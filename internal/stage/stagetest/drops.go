package stagetest

import (
	"encoding/binary"

	"trestle/internal/beam/urn"
)

// wantDropped checks how many elements a transform is reported to have dropped for lateness.
func (r *rig) wantDropped(transform string, want uint64) {
	r.t.Helper()
	var got uint64
	for _, o := range r.outputs {
		o.mu.Lock()
		for _, infos := range o.metrics {
			for _, info := range infos {
				l := info.GetLabels()
				if info.GetUrn() != urn.MetricUserSumInt64 || l["NAME"] != "droppedDueToLateness" || l["PTRANSFORM"] != transform {
					continue
				}
				n, size := binary.Uvarint(info.GetPayload())
				if size <= 0 {
					r.t.Fatalf("a counter with the payload %x", info.GetPayload())
				}
				got += n
			}
		}
		o.mu.Unlock()
	}
	if got != want {
		r.t.Errorf("%s is reported to have dropped %d elements, not %d", transform, got, want)
	}
}
