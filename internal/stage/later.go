package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/metric"
)

// Checkpointer is a task of a streaming plan that can be asked to put off what is left of the bundle under way. Those with
// a splittable DoFn at their mouth are.
type Checkpointer interface {
	// Checkpoint asks the harness to end the bundle under way early, if there is one: what is left of it is processed in
	// another, soon. Until a bundle has ended, what it put out is held back, and so is the watermark. It may be called at
	// any time, from any goroutine, also while another event is under way.
	//
	// Unless always is set, a bundle of which nothing has come out yet is left alone: there is nothing to let out, and a source
	// that needs longer than it is given to get its first element would never get one.
	Checkpoint(ctx context.Context, always bool) error
}

// Checkpoint implements Checkpointer.
func (t *task) Checkpoint(ctx context.Context, always bool) error {
	b := t.puttingOff()
	if b == nil || !always && !t.putOut(ctx, b) {
		return nil
	}
	if err := b.checkpoint(ctx); err != nil {
		return t.errorf("checkpoint", err)
	}
	return nil
}

// putOut says whether the bundle on offer has put anything out, as far as the harness says. One that counts nothing may
// have.
func (t *task) putOut(ctx context.Context, b *bundles) bool {
	b.asking.Lock()
	asked := b.offered
	b.asking.Unlock()
	if asked == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	response, err := asked.bundle.Progress(ctx)
	if err != nil {
		return false // it has just ended, or the SDK cannot tell
	}
	some, ok, err := metric.Output(response.GetMonitoringInfos(), t.spec.Stage.Input.PCollection)
	if err != nil {
		t.spec.Log.Warn("progress of a bundle", "stage", t.spec.Stage.Name, "error", err)
	}
	return some || !ok
}

// later is what a splittable DoFn of a streaming plan has put off: parts of elements, to be processed when processing time
// has come to a point. There is at most one for each restriction.
type later struct {
	*shelf
	endless bool             // the DoFn is an unbounded one
	clock   func() time.Time // Spec.Now
	now     time.Time        // by Clock; guarded by bundles.asking, but for the task's own reading
	split   []putOff         // given back by the bundle under way, on request; guarded by bundles.asking
	running resumed          // guarded by bundles.asking
	most    int              // how many parts the next bundle resumes at the most
	away    int              // parts that the bundle under way did not come to, and another task has got; guarded by bundles.asking
	// draining says that the job is being drained: only what has been truncated is processed any more.
	draining bool
	warned   bool // of a watermark that went back
}

// resumed is what the bundle under way resumes.
type resumed struct {
	parts map[string]held // by their records
	count int
	hold  int64 // the least of all
}

// held is what is known of a part of an element.
type held struct {
	// hold is a lower bound of the timestamps that it puts out; coder.MinTimestamp when the SDK did not say.
	hold int64
	// unbounded tells that it may never come to an end by itself: a drain drops it, unless the SDK truncates it.
	unbounded bool
}

// putOff is a part of an element.
type putOff struct {
	record    []byte
	due       int64 // in nanoseconds, as nanos has it
	hold      int64 // as in held
	unbounded bool  // as in held
	whole     bool  // the bundle did not come to it
}

const (
	// resumeBytes is about how much of what is due is resumed in a bundle, and truncated in one. It is in memory until the bundle has
	// ended.
	resumeBytes = 1 << 20
	// leastResumed and mostResumed bound how many parts that is. What an SDK does not come to before it is asked to put off what is
	// left is put off as it was: that is not to be most of what there is, each time.
	leastResumed, mostResumed = 16, 16 << 10
)

// newLater is for a stage with a splittable DoFn at its mouth.
func newLater(s Spec) (*later, error) {
	l := &later{clock: s.Now, most: mostResumed}
	c := s.Plan.Pipeline.GetComponents()
	for _, pc := range c.GetTransforms()[s.Stage.Transforms[0]].GetOutputs() {
		l.endless = l.endless || c.GetPcollections()[pc].GetIsBounded() == pipepb.IsBounded_UNBOUNDED
	}
	var err error
	l.shelf, err = newShelf(s)
	return l, err
}

// time is what time it is: by Clock, which may have been told before a bundle began that has taken long, or later.
func (l *later) time() time.Time {
	if l.clock == nil {
		return l.now
	}
	if at := l.clock(); at.After(l.now) {
		return at
	}
	return l.now
}

// nanos is a time in nanoseconds since the epoch. What an int64 does not hold, before 1677 or after 2262, is the first or the last
// of what it does: whatever is due then is due when a clock can say no more.
func nanos(t time.Time) int64 {
	switch s := t.Unix(); {
	case s < math.MinInt64/int64(time.Second):
		return math.MinInt64
	case s >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// dueIn is when something is due that an SDK wants to wait from a time on. Of what protobuf does not allow (more than 10 000 years,
// seconds and nanoseconds of different signs) it is the sum that counts, as far as there is one; a negative delay is none.
func dueIn(now time.Time, delay *durationpb.Duration) int64 {
	at, d := nanos(now), max(int64(delay.AsDuration()), 0)
	if at > math.MaxInt64-d {
		return math.MaxInt64
	}
	return at + d
}

// outputHold is the least of the watermarks that an SDK says the outputs of a part to have.
func outputHold(a *fnpb.BundleApplication) int64 {
	if len(a.GetOutputWatermarks()) == 0 {
		return coder.MinTimestamp
	}
	hold := coder.MaxTimestamp
	for _, w := range a.GetOutputWatermarks() {
		hold = min(hold, millis(w))
	}
	return hold
}

// millis is a timestamp in milliseconds, in Beam's bounds.
func millis(t *timestamppb.Timestamp) int64 {
	const last = coder.MaxTimestamp / 1000
	part := int64(t.GetNanos()) / int64(time.Millisecond)
	if int64(t.GetNanos())%int64(time.Millisecond) < 0 {
		part-- // it is a lower bound
	}
	return min(max(min(max(t.GetSeconds(), -last-1), last+1)*1000+part, coder.MinTimestamp), coder.MaxTimestamp)
}

// part reads what an SDK has given back just now (DelayedBundleApplication in beam_fn_api.proto): the delay that it wants begins now.
func (l *later) part(r *fnpb.DelayedBundleApplication) putOff {
	a := r.GetApplication()
	p := putOff{
		record:    bytes.Clone(a.GetElement()),
		due:       dueIn(l.time(), r.GetRequestedTimeDelay()),
		hold:      outputHold(a),
		unbounded: a.GetIsBounded() == pipepb.IsBounded_UNBOUNDED,
	}
	if a.GetIsBounded() == pipepb.IsBounded_UNSPECIFIED {
		p.unbounded = l.endless // the Go SDK does not say
	}
	return p
}

// line is where what is put off now belongs: whatever bundle ends while the job is drained had truncated restrictions, and so are their
// parts.
func (l *later) line() *line {
	if l.draining {
		return &l.drained
	}
	return &l.rests
}

// resume processes what is due, in one bundle: what does not go into it is due all the same, and wakes the task at once.
func (b *bundles) resume(ctx context.Context, t times) error {
	l := b.later
	b.asking.Lock()
	l.now = t.now
	b.asking.Unlock()
	if t.draining {
		if err := b.drain(ctx); err != nil {
			return err
		}
	}
	due, err := l.take(l.line(), nanos(l.time()), l.most)
	if err != nil || len(due) == 0 {
		return err
	}
	b.asking.Lock()
	l.running = resumedOf(due)
	b.asking.Unlock()
	// What is under way holds the watermark.
	for _, p := range due {
		// It passed the gate when it came.
		if err := b.add(ctx, p.record); err != nil {
			return err
		}
	}
	return b.cut(ctx)
}

func resumedOf(parts []putOff) resumed {
	r := resumed{parts: make(map[string]held, len(parts)), count: len(parts), hold: coder.MaxTimestamp}
	for _, p := range parts {
		h := held{p.hold, p.unbounded}
		if same, ok := r.parts[string(p.record)]; ok { // two restrictions that are the same
			h = held{min(h.hold, same.hold), h.unbounded || same.unbounded}
		}
		r.parts[string(p.record)] = h
		r.hold = min(r.hold, p.hold)
	}
	return r
}

// hold is the earliest timestamp of what may come out of what is put off.
func (l *later) hold() (int64, error) {
	hold, err := l.first(&l.holds)
	return min(hold, coder.MaxTimestamp), err
}

// wake is when the next part is due; zero when none is put off.
func (l *later) wake() (wake time.Time, err error) {
	for _, line := range []*line{&l.rests, &l.drained} {
		at, err := l.first(line)
		if err != nil {
			return wake, err
		}
		if due := time.Unix(0, at); line.from != nil && (wake.IsZero() || due.Before(wake)) {
			wake = due
		}
	}
	return wake, nil
}

// checkpoint splits the bundle on offer so that nothing is left to it.
func (b *bundles) checkpoint(ctx context.Context) error {
	b.asking.Lock()
	defer b.asking.Unlock()
	given, roots, err := b.splitOff(ctx, 0)
	if err != nil {
		return err
	}
	return b.keepGiven(given, roots)
}

// untouched is an element that a bundle gives back as it got it: what it was known to hold, it still does. The caller holds
// asking.
func (l *later) untouched(record []byte) putOff {
	p := putOff{record: bytes.Clone(record), due: nanos(l.time()), hold: coder.MinTimestamp, unbounded: l.endless, whole: true}
	if was, ok := l.running.parts[string(record)]; ok {
		p.hold, p.unbounded = was.hold, was.unbounded
	}
	return p
}

// takeBack keeps what the bundle that has ended gave back. What it did not come to is first next time: otherwise a
// restriction that takes long each time, such as one of a quiet topic that waits for records, would keep the others from
// ever being processed.
func (b *bundles) takeBack(roots []*fnpb.DelayedBundleApplication) error {
	b.asking.Lock()
	defer b.asking.Unlock()
	l := b.later
	b.wentBack(roots)
	l.fit()
	for _, p := range l.split {
		if err := l.put(l.line(), p); err != nil {
			return err
		}
	}
	l.split, l.running = nil, resumed{}
	for _, r := range roots {
		if !b.spec.Stage.Input.Splittable {
			return fmt.Errorf("the SDK gave back a part of an element of %s, which is no splittable DoFn", r.GetApplication().GetTransformId())
		}
		if len(r.GetApplication().GetElement()) == 0 {
			return errors.New("the SDK gave back a part of an element that is empty")
		}
		if err := l.put(l.line(), l.part(r)); err != nil {
			return err
		}
	}
	if !l.opened() {
		return nil
	}
	return l.over.Commit()
}

// fit has the next bundle resume about as many parts as this one has come to, and more where that was all.
func (l *later) fit() {
	left := l.away
	l.away = 0
	for _, p := range l.split {
		if p.whole {
			left++
		}
	}
	switch n := l.running.count; {
	case n == 0: // it was of new elements
	case left > 0:
		l.most = max(min(2*(n-left), n), leastResumed)
	case n >= l.most:
		l.most = min(2*l.most, mostResumed)
	}
}

// wentBack tells the job, once, of a watermark estimator that goes back: no part of what the bundle has resumed was where a part
// of it says to be now. The output watermark stays where it is, and what comes before it is late.
func (b *bundles) wentBack(roots []*fnpb.DelayedBundleApplication) {
	l := b.later
	if l.warned || l.running.count == 0 {
		return
	}
	was := l.running.hold
	for _, r := range roots {
		if now := outputHold(r.GetApplication()); now < was && now > coder.MinTimestamp { // which stands for an SDK that says nothing
			l.warned = true
			name := b.spec.Plan.Pipeline.GetComponents().GetTransforms()[b.spec.Stage.Transforms[0]].GetUniqueName()
			b.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf(
				"transform %s: the watermark of a restriction went back, from %s to %s. The transform's watermark does not; what it puts out before that comes late",
				name, timeText(was), timeText(now)))
			return
		}
	}
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
