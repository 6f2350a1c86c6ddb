package metric

import (
	"errors"
	"fmt"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// histogram adds up histograms of the same buckets: message HistogramValue in metrics.proto.
type histogram struct {
	value   *pipepb.HistogramValue
	encoded []byte
}

func (c *histogram) merge(p []byte) error {
	var m pipepb.HistogramValue
	if err := proto.Unmarshal(p, &m); err != nil {
		return fmt.Errorf("payload is no histogram: %w", err)
	}
	if c.value == nil {
		c.value = &m
		return c.encode()
	}
	if !proto.Equal(c.value.GetBucketOptions(), m.GetBucketOptions()) {
		return errors.New("payload is a histogram of other buckets than the ones before")
	}
	if m.Count != nil {
		c.value.Count = proto.Int64(c.value.GetCount() + m.GetCount())
	}
	// Fewer counts than buckets stand for zeros at the end.
	for i, n := range m.GetBucketCounts() {
		if i < len(c.value.BucketCounts) {
			c.value.BucketCounts[i] += n
		} else {
			c.value.BucketCounts = append(c.value.BucketCounts, n)
		}
	}
	return c.encode()
}

func (c *histogram) encode() (err error) {
	c.encoded, err = proto.MarshalOptions{Deterministic: true}.Marshal(c.value)
	return err
}

func (c *histogram) payload() []byte { return slices.Clone(c.encoded) }
