package triggertest

import pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

// Instant is when something happened to a key and window: elements arrived, or time moved on.
type Instant struct {
	Elements              int64
	Watermark, Processing int64
}

// Reference is a trigger as its rules say it, to hold a Machine against: of a window that does not merge, and of which
// everything that has happened is known. It remembers where it began and nothing else, and looks through all that has
// happened since whenever it is asked.
type Reference struct {
	trigger *pipepb.Trigger
	end     int64
	start   int // the first instant that it knows of
	// subs are a composite's; of an AfterEach those that are left, of an AfterEndOfWindow the one that fires now, if any.
	subs []*Reference
	late bool // the end has been fired for
}

// NewReference returns a trigger that begins at an instant, of a window of which end is the last millisecond.
func NewReference(t *pipepb.Trigger, end int64, start int) *Reference {
	if t == nil {
		return nil
	}
	r := &Reference{trigger: t, end: end, start: start}
	var subs []*pipepb.Trigger
	switch t := t.GetTrigger().(type) {
	case *pipepb.Trigger_AfterAll_:
		subs = t.AfterAll.GetSubtriggers()
	case *pipepb.Trigger_AfterAny_:
		subs = t.AfterAny.GetSubtriggers()
	case *pipepb.Trigger_AfterEach_:
		subs = t.AfterEach.GetSubtriggers()
	case *pipepb.Trigger_Repeat_:
		subs = []*pipepb.Trigger{t.Repeat.GetSubtrigger()}
	case *pipepb.Trigger_OrFinally_:
		subs = []*pipepb.Trigger{t.OrFinally.GetMain(), t.OrFinally.GetFinally()}
	case *pipepb.Trigger_AfterEndOfWindow_:
		if early := t.AfterEndOfWindow.GetEarlyFirings(); early != nil {
			subs = []*pipepb.Trigger{early}
		}
	}
	for _, s := range subs {
		r.subs = append(r.subs, NewReference(s, end, start))
	}
	return r
}

// Ready tells whether it wants to fire at the last instant.
func (r *Reference) Ready(happened []Instant) bool {
	now := happened[len(happened)-1]
	switch t := r.trigger.GetTrigger().(type) {
	case *pipepb.Trigger_Default_:
		return now.Watermark > r.end
	case *pipepb.Trigger_Always_:
		return true
	case *pipepb.Trigger_ElementCount_:
		var n int64
		for _, i := range happened[r.start:] {
			n += i.Elements
		}
		return n >= int64(t.ElementCount.GetElementCount())
	case *pipepb.Trigger_AfterProcessingTime_:
		first, ok := r.first(happened)
		for _, f := range t.AfterProcessingTime.GetTimestampTransforms() {
			if a := f.GetAlignTo(); a != nil {
				for (first-a.GetOffset())%a.GetPeriod() != 0 {
					first++
				}
			}
			first += f.GetDelay().GetDelayMillis()
		}
		return ok && now.Processing >= first
	case *pipepb.Trigger_AfterSynchronizedProcessingTime_:
		first, ok := r.first(happened)
		return ok && now.Processing > first
	case *pipepb.Trigger_AfterEndOfWindow_:
		return !r.late && now.Watermark > r.end || len(r.subs) > 0 && r.subs[0].Ready(happened)
	case *pipepb.Trigger_AfterAll_:
		for _, s := range r.subs {
			if !s.Ready(happened) {
				return false
			}
		}
		return true
	case *pipepb.Trigger_AfterAny_, *pipepb.Trigger_OrFinally_:
		for _, s := range r.subs {
			if s.Ready(happened) {
				return true
			}
		}
		return false
	case *pipepb.Trigger_AfterEach_, *pipepb.Trigger_Repeat_:
		return r.subs[0].Ready(happened)
	default: // Never
		return false
	}
}

// first is the processing time of the first element since it began.
func (r *Reference) first(happened []Instant) (int64, bool) {
	for _, i := range happened[r.start:] {
		if i.Elements > 0 {
			return i.Processing, true
		}
	}
	return 0, false
}

// Stirred tells whether a part of it that matters now has become ready by the last instant's time: whoever waits for time
// asks it then, and not else.
func (r *Reference) Stirred(happened []Instant) bool {
	before := happened[:len(happened)-1]
	if len(before) == 0 || len(before) < r.start {
		return false
	}
	switch r.trigger.GetTrigger().(type) {
	case *pipepb.Trigger_Default_, *pipepb.Trigger_AfterProcessingTime_, *pipepb.Trigger_AfterSynchronizedProcessingTime_:
		return r.Ready(happened) && !r.Ready(before)
	case *pipepb.Trigger_AfterEndOfWindow_:
		if !r.late && happened[len(happened)-1].Watermark > r.end && before[len(before)-1].Watermark <= r.end {
			return true
		}
	case *pipepb.Trigger_AfterEach_:
		return r.subs[0].Stirred(happened)
	}
	for _, s := range r.subs {
		if s.Stirred(happened) {
			return true
		}
	}
	return false
}

// Fired returns what it is when it has fired at the last instant; nil if it has finished.
func (r *Reference) Fired(happened []Instant) *Reference {
	next := *r
	next.start = len(happened)
	again := func(s *Reference, t *pipepb.Trigger) []*Reference {
		if s = s.Fired(happened); s == nil {
			s = NewReference(t, r.end, len(happened))
		}
		return []*Reference{s}
	}
	switch t := r.trigger.GetTrigger().(type) {
	case *pipepb.Trigger_Default_, *pipepb.Trigger_Always_:
		return &next
	case *pipepb.Trigger_Repeat_:
		next.subs = again(r.subs[0], t.Repeat.GetSubtrigger())
		return &next
	case *pipepb.Trigger_AfterEndOfWindow_:
		early, late := t.AfterEndOfWindow.GetEarlyFirings(), t.AfterEndOfWindow.GetLateFirings()
		switch {
		case r.late:
			next.subs = again(r.subs[0], late)
		case happened[len(happened)-1].Watermark <= r.end:
			next.subs = again(r.subs[0], early)
		case late == nil:
			return nil
		default:
			next.late, next.subs = true, []*Reference{NewReference(late, r.end, len(happened))}
		}
		return &next
	case *pipepb.Trigger_AfterEach_:
		next.subs = nil
		if s := r.subs[0].Fired(happened); s != nil {
			next.subs = append(next.subs, s)
		}
		for _, s := range r.subs[1:] {
			next.subs = append(next.subs, NewReference(s.trigger, r.end, len(happened)))
		}
		if next.subs == nil {
			return nil
		}
		return &next
	case *pipepb.Trigger_OrFinally_:
		if r.subs[1].Ready(happened) {
			return nil
		}
		main := r.subs[0].Fired(happened)
		if main == nil {
			return nil
		}
		next.subs = []*Reference{main, r.subs[1]}
		return &next
	default:
		return nil
	}
}
