package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

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
	endless bool // the DoFn is an unbounded one
	now     time.Time
	fresh   []putOff // given back since the last Clock, with which their delays begin
	waiting []putOff
	split   []putOff // given back by the bundle under way, on request; guarded by bundles.asking
	running []putOff // what the bundle under way resumes; guarded by bundles.asking
	// draining says that the job is being drained: only what has been truncated is processed any more.
	draining bool
	warned   bool // of a watermark that went back
}

// putOff is a part of an element.
type putOff struct {
	record []byte
	delay  time.Duration // of what is fresh
	due    time.Time     // of what waits
	// hold is a lower bound of the timestamps that it puts out; coder.MinTimestamp when the SDK did not say.
	hold int64
	// unbounded tells that it may never come to an end by itself: a drain drops it, unless the SDK truncates it.
	unbounded bool
	// truncated tells that a drain has made it as short as it is going to be.
	truncated bool
}

// newLater is for a stage with a splittable DoFn at its mouth.
func newLater(s Spec) (*later, error) {
	l := &later{}
	c := s.Plan.Pipeline.GetComponents()
	for _, pc := range c.GetTransforms()[s.Stage.Transforms[0]].GetOutputs() {
		l.endless = l.endless || c.GetPcollections()[pc].GetIsBounded() == pipepb.IsBounded_UNBOUNDED
	}
	return l, l.restore(s)
}

// part reads what an SDK has given back (DelayedBundleApplication in beam_fn_api.proto).
func (l *later) part(r *fnpb.DelayedBundleApplication) putOff {
	a := r.GetApplication()
	p := putOff{
		record:    bytes.Clone(a.GetElement()),
		delay:     r.GetRequestedTimeDelay().AsDuration(),
		hold:      coder.MaxTimestamp,
		unbounded: a.GetIsBounded() == pipepb.IsBounded_UNBOUNDED,
	}
	if a.GetIsBounded() == pipepb.IsBounded_UNSPECIFIED {
		p.unbounded = l.endless // the Go SDK does not say
	}
	for _, w := range a.GetOutputWatermarks() {
		p.hold = min(p.hold, w.GetSeconds()*1000+int64(w.GetNanos())/int64(time.Millisecond))
	}
	if len(a.GetOutputWatermarks()) == 0 {
		p.hold = coder.MinTimestamp
	}
	p.hold = max(p.hold, coder.MinTimestamp)
	return p
}

// putOff keeps parts of elements for later.
func (b *bundles) putOff(parts ...putOff) { b.later.fresh = append(b.later.fresh, parts...) }

// resume processes what is due.
func (b *bundles) resume(ctx context.Context, t times) error {
	l := b.later
	l.now = t.now
	if t.draining {
		if err := b.drain(ctx); err != nil {
			return err
		}
	}
	l.dated()
	var due, rest []putOff
	for _, p := range l.waiting {
		if p.due.After(l.now) {
			rest = append(rest, p)
		} else {
			due = append(due, p)
		}
	}
	if len(due) == 0 {
		return nil
	}
	b.asking.Lock()
	l.running = due
	b.asking.Unlock()
	// What is under way holds the watermark.
	for _, p := range due {
		// It passed the gate when it came.
		if err := b.add(ctx, p.record); err != nil {
			return err
		}
	}
	l.waiting = rest
	return b.cut(ctx)
}

// dated gives what is fresh the time at which it is due.
func (l *later) dated() {
	for _, p := range l.fresh {
		p.due = l.now.Add(p.delay)
		l.waiting = append(l.waiting, p)
	}
	l.fresh = nil
}

// hold is the earliest timestamp of what may come out of what is put off.
func (l *later) hold() int64 {
	hold := coder.MaxTimestamp
	for _, parts := range [][]putOff{l.fresh, l.waiting} {
		for _, p := range parts {
			hold = min(hold, p.hold)
		}
	}
	return hold
}

// wake is when the next part is due; zero when none is put off.
func (l *later) wake() time.Time {
	if len(l.fresh) > 0 {
		return l.now
	}
	var wake time.Time
	for _, p := range l.waiting {
		if wake.IsZero() || p.due.Before(wake) {
			wake = p.due
		}
	}
	return wake
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
	for _, p := range l.running {
		if bytes.Equal(p.record, record) {
			return putOff{record: p.record, hold: p.hold, unbounded: p.unbounded}
		}
	}
	return putOff{record: bytes.Clone(record), hold: coder.MinTimestamp, unbounded: l.endless}
}

// takeBack keeps what the bundle that has ended gave back. What it did not come to is first next time: otherwise a
// restriction that takes long each time, such as one of a quiet topic that waits for records, would keep the others from
// ever being processed.
func (b *bundles) takeBack(roots []*fnpb.DelayedBundleApplication) error {
	b.asking.Lock()
	defer b.asking.Unlock()
	b.wentBack(roots)
	b.putOff(b.later.split...)
	b.later.split, b.later.running = nil, nil
	for _, r := range roots {
		if !b.spec.Stage.Input.Splittable {
			return fmt.Errorf("the SDK gave back a part of an element of %s, which is no splittable DoFn", r.GetApplication().GetTransformId())
		}
		if len(r.GetApplication().GetElement()) == 0 {
			return errors.New("the SDK gave back a part of an element that is empty")
		}
		b.putOff(b.later.part(r))
	}
	for i := range b.later.fresh {
		// Whatever bundle ends while the job is drained had truncated restrictions, and so are their parts.
		b.later.fresh[i].truncated = b.later.fresh[i].truncated || b.later.draining
	}
	return nil
}

// wentBack tells the job, once, of a watermark estimator that goes back: no part of what the bundle has resumed was where a part
// of it says to be now. The output watermark stays where it is, and what comes before it is late.
func (b *bundles) wentBack(roots []*fnpb.DelayedBundleApplication) {
	l := b.later
	if l.warned || len(l.running) == 0 {
		return
	}
	was := coder.MaxTimestamp
	for _, p := range l.running {
		was = min(was, p.hold)
	}
	for _, r := range roots {
		if now := l.part(r).hold; now < was && now > coder.MinTimestamp { // which stands for an SDK that says nothing
			l.warned = true
			name := b.spec.Plan.Pipeline.GetComponents().GetTransforms()[b.spec.Stage.Transforms[0]].GetUniqueName()
			b.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf(
				"transform %s: the watermark of a restriction went back, from %s to %s. The transform's watermark does not; what it puts out before that comes late",
				name, timeText(was), timeText(now)))
			return
		}
	}
}

// laterName is the file of a snapshot with what is put off.
const laterName = "later"

// snapshot writes what is put off.
func (l *later) snapshot(directory string) error {
	if len(l.fresh)+len(l.waiting) == 0 {
		return nil
	}
	return writeRecordFile(filepath.Join(directory, laterName), func(add func([]byte) error) error {
		for _, parts := range [][]putOff{l.fresh, l.waiting} {
			for _, p := range parts {
				if p.due.IsZero() {
					p.due = l.now.Add(p.delay)
				}
				b := binary.AppendVarint(nil, p.due.UnixNano())
				b = binary.AppendVarint(b, p.hold)
				b = append(b, boolByte(p.unbounded)|boolByte(p.truncated)<<1)
				if err := add(append(b, p.record...)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// restore reads what snapshots have: what tasks of another number put off is dealt out in turn, so that all get some.
func (l *later) restore(s Spec) error {
	n := 0
	for _, r := range s.Restore {
		err := readRecordFile(filepath.Join(r.Directory, laterName), func(b []byte) error {
			n++
			if !s.same() && (n-1)%s.Parallelism != s.Index {
				return nil
			}
			return l.take(b)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", r.Directory, err)
		}
	}
	return nil
}

// drained tells whether what was restored is of a job that was being drained already. A drain is not taken back, and the engine
// tells of it again only when the first of this may have been processed, whose parts are not to be truncated once more.
func (l *later) drained() bool {
	return slices.ContainsFunc(l.waiting, func(p putOff) bool { return p.truncated })
}

// take reads a part of an element.
func (l *later) take(b []byte) error {
	due, n := binary.Varint(b)
	hold, m := binary.Varint(b[max(n, 0):])
	if n <= 0 || m <= 0 || len(b) < n+m+1 || b[n+m] > 3 {
		return fmt.Errorf("a part of an element: %w", errSnapshotFormat)
	}
	l.waiting = append(l.waiting, putOff{
		record: b[n+m+1:], due: time.Unix(0, due), hold: hold, unbounded: b[n+m]&1 != 0, truncated: b[n+m]&2 != 0,
	})
	return nil
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
