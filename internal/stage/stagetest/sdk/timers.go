package sdk

import (
	"fmt"
	"maps"
	"slices"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// Timers are encoded timers of one family.
type Timers struct {
	Transform, Family string
	Data              []byte
}

// family is a timer family of a transform.
type family struct{ transform, name string }

// declare notes the timer families of a transform.
func (b *Bundle) declare(id string, t *pipepb.PTransform) error {
	var pardo pipepb.ParDoPayload
	if err := proto.Unmarshal(t.GetSpec().GetPayload(), &pardo); err != nil {
		return fmt.Errorf("sdk: transform %s: %w", id, err)
	}
	for _, name := range slices.Sorted(maps.Keys(pardo.GetTimerFamilySpecs())) {
		b.families = append(b.families, family{id, name})
	}
	return nil
}

func (b *Bundle) fire(timers []*fnpb.Elements_Timers) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range timers {
		if len(t.GetTimers()) > 0 {
			b.fired = append(b.fired, Timers{t.GetTransformId(), t.GetTimerFamilyId(), t.GetTimers()})
		}
	}
}

// Fired are the timers that the bundle has to fire. They are all there when Each has returned.
func (b *Bundle) Fired() []Timers {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.fired)
}

// SetTimers sets or clears timers.
func (b *Bundle) SetTimers(t Timers) error {
	return b.sendTimers(&fnpb.Elements_Timers{TransformId: t.Transform, TimerFamilyId: t.Family, Timers: t.Data})
}

// endTimers says that no more timers will be set.
func (b *Bundle) endTimers() error {
	for _, f := range b.families {
		if err := b.sendTimers(&fnpb.Elements_Timers{TransformId: f.transform, TimerFamilyId: f.name, IsLast: true}); err != nil {
			return err
		}
	}
	b.families = nil
	return nil
}

func (b *Bundle) sendTimers(t *fnpb.Elements_Timers) error {
	t.InstructionId = b.ID
	b.h.writing.Lock()
	defer b.h.writing.Unlock()
	if err := b.h.data.Send(&fnpb.Elements{Timers: []*fnpb.Elements_Timers{t}}); err != nil {
		return fmt.Errorf("sdk: timers: %w", err)
	}
	return nil
}
