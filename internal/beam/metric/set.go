// Package metric merges what harnesses report of their metrics: the monitoring infos of many bundles and workers
// become one for each metric.
//
// How two values merge, and how they are encoded, is the type's affair: MonitoringInfoTypeUrns in metrics.proto. The
// package is pure.
package metric

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/urn"
)

// Set holds one value for each metric, which is told by URN, type and labels. The zero Set is empty and ready. A Set
// is for one goroutine at a time.
type Set struct {
	metrics map[string]*entry
}

// entry is one metric and what it has come to.
type entry struct {
	urn, typ string
	labels   map[string]string
	start    *timestamppb.Timestamp
	cell     cell
}

// cell is the merged value of one metric.
type cell interface {
	// merge takes in an encoded value. When that is malformed the cell stays as it was.
	merge(payload []byte) error
	// payload encodes the merged value.
	payload() []byte
}

// cells make the cell for each type whose values can be merged: MonitoringInfoTypeUrns.Enum in metrics.proto.
var cells = map[string]func() cell{
	urn.MetricTypeSumInt64:           func() cell { return new(sumInt64) },
	urn.MetricTypeSumDouble:          func() cell { return new(sumDouble) },
	urn.MetricTypeDistributionInt64:  func() cell { return &distribution[int64]{number: int64s} },
	urn.MetricTypeDistributionDouble: func() cell { return &distribution[float64]{number: doubles} },
	urn.MetricTypeLatestInt64:        func() cell { return &latest[int64]{number: int64s} },
	urn.MetricTypeLatestDouble:       func() cell { return &latest[float64]{number: doubles} },
	urn.MetricTypeTopNInt64:          func() cell { return &extremes[int64]{number: int64s, largest: true} },
	urn.MetricTypeTopNDouble:         func() cell { return &extremes[float64]{number: doubles, largest: true} },
	urn.MetricTypeBottomNInt64:       func() cell { return &extremes[int64]{number: int64s} },
	urn.MetricTypeBottomNDouble:      func() cell { return &extremes[float64]{number: doubles} },
	urn.MetricTypeSetString:          func() cell { return new(stringSet) },
	urn.MetricTypeBoundedTrie:        func() cell { return new(boundedTrie) },
	urn.MetricTypeHistogramInt64:     func() cell { return new(histogram) },
}

// Add merges infos into the set. A metric of a type that the runner does not know, and one that is a state rather
// than a total (urn.MetricTypeProgress), keeps the value that came last. The infos are not kept.
//
// The error names the URN of each info whose payload is not what its type says; all others are merged all the same.
func (s *Set) Add(infos []*pipepb.MonitoringInfo) error {
	var errs []error
	for _, info := range infos {
		if err := s.add(info); err != nil {
			errs = append(errs, fmt.Errorf("merge metric %s of type %s: %w", name(info), info.GetType(), err))
		}
	}
	return errors.Join(errs...)
}

func (s *Set) add(info *pipepb.MonitoringInfo) error {
	key := identity(info)
	e := s.metrics[key]
	if e == nil {
		e = &entry{urn: info.GetUrn(), typ: info.GetType(), labels: maps.Clone(info.GetLabels())}
		e.cell = new(last)
		if mergeable := cells[e.typ]; mergeable != nil {
			e.cell = mergeable()
		}
	}
	if err := e.cell.merge(info.GetPayload()); err != nil {
		return err
	}
	if t := info.GetStartTime(); t != nil && (e.start == nil || t.AsTime().Before(e.start.AsTime())) {
		e.start = proto.CloneOf(t)
	}
	if s.metrics == nil {
		s.metrics = map[string]*entry{}
	}
	s.metrics[key] = e
	return nil
}

// identity is a string that two infos share when they are of one metric. Sorting by it sorts by URN, type, labels.
func identity(info *pipepb.MonitoringInfo) string {
	var b strings.Builder
	b.WriteString(strconv.Quote(info.GetUrn()))
	b.WriteString(strconv.Quote(info.GetType()))
	labels := info.GetLabels()
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		b.WriteString(strconv.Quote(k))
		b.WriteString(strconv.Quote(labels[k]))
	}
	return b.String()
}

// name tells a metric to a person: its URN and its labels.
func name(info *pipepb.MonitoringInfo) string {
	var b strings.Builder
	b.WriteString(info.GetUrn())
	for _, k := range slices.Sorted(maps.Keys(info.GetLabels())) {
		fmt.Fprintf(&b, " %s=%q", k, info.GetLabels()[k])
	}
	return b.String()
}

// Len is the number of metrics in the set.
func (s *Set) Len() int { return len(s.metrics) }

// Snapshot returns the merged infos, sorted by URN, type and labels. They are the caller's; equal sets give equal
// snapshots, and a snapshot can be added to another set. An info's start time is the earliest that was reported.
func (s *Set) Snapshot() []*pipepb.MonitoringInfo {
	infos := make([]*pipepb.MonitoringInfo, 0, len(s.metrics))
	for _, key := range slices.Sorted(maps.Keys(s.metrics)) {
		e := s.metrics[key]
		info := &pipepb.MonitoringInfo{Urn: e.urn, Type: e.typ, Labels: maps.Clone(e.labels), Payload: e.cell.payload()}
		if e.start != nil {
			info.StartTime = proto.CloneOf(e.start)
		}
		infos = append(infos, info)
	}
	return infos
}

// last keeps the value that came last.
type last struct{ value []byte }

func (c *last) merge(p []byte) error { c.value = slices.Clone(p); return nil }
func (c *last) payload() []byte      { return slices.Clone(c.value) }
