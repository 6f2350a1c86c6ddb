package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/fnapi"
	"trestle/internal/shuffle"
)

var errNoInput = errors.New("a block for an input that takes none")

// embedBytes is how much input travels inside the bundle's own instruction: a data stream's round trip costs a tiny
// bundle more than a second copy does.
const embedBytes = 16 << 10

// bundles is the runner of a stage with an environment: it takes records to the harness in bundles, one at a time. A
// bundle that fails is tried again (retry.go); what it has put out counts once it has succeeded.
type bundles struct {
	spec    Spec
	source  string
	sinks   map[string]int // sink transform id → index in the outlets
	outlets *outlets
	state   *stateServer
	splits  *coder.Windowed                         // of the input, if that can be split while it is processed
	embeds  bool                                    // the SDK takes elements inside the instruction
	tokens  []*fnpb.ProcessBundleRequest_CacheToken // of a bounded plan
	gate    *gate                                   // of a streaming plan's stage with side inputs; nil in others

	link
	open      *fnapi.Bundle // nil between bundles, and while all input of one is held back
	measured  measured      // by the open bundle
	back      []byte        // input that is held back: of a bundle that is not open yet, or the last of one that is
	input     *shuffle.Pages
	tries     tries
	residuals *shelf // work that the harness gave back, in a stage of a bounded plan that can have it; nil in others
	later     *later // the same of a streaming plan
	commits   bool   // bundles are finalized when a snapshot that has their effects is safe
	unsafe    []finalization
	kept      *kept    // of a stage with state; nil otherwise
	due       [][]byte // timers that the bundle under way is to fire, by family
	dueBytes  int

	asking  sync.Mutex
	offered *offered // the bundle that others may ask, if any
}

func newBundles(s Spec, o *outlets) (_ *bundles, err error) {
	b := &bundles{spec: s, source: s.Stage.Input.Source, outlets: o, sinks: map[string]int{}}
	for i, out := range s.Stage.Outputs {
		b.sinks[out.Sink] = i
	}
	environment := s.Plan.Pipeline.GetComponents().GetEnvironments()[s.Stage.Environment]
	b.embeds = slices.Contains(environment.GetCapabilities(), urn.ProtocolControlRequestElements)
	b.state = &stateServer{views: s.Views, stage: s.Stage}
	if s.Views != nil && !s.Plan.Streaming {
		b.tokens = s.Views.tokens(0)
	}
	if s.Stage.Input.Splittable {
		if b.splits, err = coder.CompileWindowed(s.coders(), s.Stage.Input.Coder); err != nil {
			return nil, err
		}
	}
	b.commits = s.Plan.Streaming && len(s.Plan.TestStreams) == 0 // which is played once, and never restored
	switch {
	case s.Stage.Input.Splittable && s.Plan.Streaming:
		b.later, err = newLater(s)
	case s.Stage.Input.Splittable:
		b.residuals, err = newShelf(s)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (b *bundles) process(ctx context.Context, records []byte) error {
	if b.gate != nil {
		return b.gate.admit(ctx, records)
	}
	return b.take(ctx, records)
}

// take has records processed that have just come; in a job that is being drained, once they are truncated.
func (b *bundles) take(ctx context.Context, records []byte) error {
	if b.later != nil && b.later.draining {
		return b.putOffWhole(records)
	}
	return b.add(ctx, records)
}

// add makes records a part of the bundle under way.
func (b *bundles) add(ctx context.Context, records []byte) error {
	if len(records) == 0 {
		return nil // a bundle of nothing would never end: it has no input to travel in its instruction
	}
	if err := b.remember(records); err != nil {
		return err
	}
	if b.tries.failed() {
		return nil // the whole bundle is tried again when it is cut
	}
	if b.open == nil && len(b.back)+len(records) <= embedBytes {
		b.back = append(b.back, records...)
		return nil
	}
	return b.failure(ctx, b.feed(ctx, records))
}

// feed sends records to the bundle, which it opens if need be. If the SDK takes no elements in instructions, the last
// ones are held back, to go out together with the end of the input: TypeScript's harness handles messages side by side,
// so that an end in a message of its own overtakes elements that wait for state.
func (b *bundles) feed(ctx context.Context, records []byte) error {
	if err := b.begin(ctx, false); err != nil {
		return err
	}
	if len(b.back) > 0 {
		if err := b.send(ctx, b.back); err != nil {
			return err
		}
		b.sent()
	}
	if b.embeds {
		return b.send(ctx, records)
	}
	b.back = append(b.back, records...)
	return nil
}

// begin opens a bundle unless one is open. All of its input is what is held back, if it is to be embedded.
func (b *bundles) begin(ctx context.Context, embed bool) error {
	if b.open != nil {
		return nil
	}
	if err := b.connect(ctx); err != nil {
		return err
	}
	sinks := make([]string, 0, len(b.sinks))
	for sink := range b.sinks {
		sinks = append(sinks, sink)
	}
	outlets := b.outlets
	spec := fnapi.BundleSpec{
		Descriptor: b.descriptor,
		Source:     b.source,
		Sinks:      sinks,
		Receive: func(ctx context.Context, sink string, data []byte) error {
			return asOwn(outlets.write(ctx, b.sinks[sink], data))
		},
		State:       b.state.answer,
		CacheTokens: b.tokens,
	}
	if b.gate != nil {
		b.state.thaw()
		b.state.frozen = b.spec.Views.acquire()
		spec.CacheTokens = b.state.frozen.tokens
	}
	if b.kept != nil {
		spec.Timers, spec.ReceiveTimers = b.kept.families, b.kept.setTimers
		spec.CacheTokens = slices.Concat(spec.CacheTokens, b.kept.token(b.session))
	}
	if embed {
		spec.Elements, spec.Due = b.back, b.due
	}
	// The bundle outlives this call: Close abandons it.
	open, err := b.session.StartBundle(context.WithoutCancel(ctx), spec)
	if err != nil {
		return err
	}
	b.open = open
	b.measured.begin(open)
	if embed {
		return nil
	}
	defer b.guard(ctx)()
	for family, timers := range b.due {
		if len(timers) > 0 {
			if err := open.Fire(family, timers); err != nil {
				return err
			}
		}
	}
	return nil
}

// connect sees to it that there is a harness that knows the stage.
func (b *bundles) connect(ctx context.Context) error {
	return b.link.connect(ctx, b.spec.Harness, b.spec.Stage.Descriptor)
}

func (b *bundles) send(ctx context.Context, records []byte) error {
	defer b.guard(ctx)()
	return b.open.Send(b.source, records)
}

// guard ends the open bundle when ctx ends, until the function that it returns is called.
func (b *bundles) guard(ctx context.Context) (stop func() bool) {
	open := b.open
	return context.AfterFunc(ctx, func() { open.Abort(context.Cause(ctx)) })
}

// complete ends the bundle's input and waits for the end of its work.
func (b *bundles) complete(ctx context.Context) (*fnpb.ProcessBundleResponse, error) {
	if err := b.end(ctx); err != nil {
		return nil, err
	}
	defer b.guard(ctx)()
	defer b.offer()()
	response, err := b.open.Wait()
	if err == nil {
		err = b.lateSplit(ctx)
	}
	if err == nil {
		err = b.heldTo(response)
	}
	return response, err
}

// end tells the harness that it has all of the bundle's input, with what has been held back of it.
func (b *bundles) end(ctx context.Context) error {
	if b.open == nil && b.embeds && b.dueBytes <= embedBytes && len(b.back)+b.dueBytes > 0 {
		defer b.sent()
		return b.begin(ctx, true)
	}
	if err := b.begin(ctx, false); err != nil {
		return err
	}
	defer b.sent()
	defer b.guard(ctx)()
	return b.open.End(b.source, b.back)
}

// sent says that what was held back is the harness's now.
func (b *bundles) sent() { b.back = b.back[:0] }

func (b *bundles) cut(ctx context.Context) error {
	if !b.busy() {
		return nil
	}
	response, err := b.attempt(ctx)
	if err != nil {
		return err
	}
	id := b.open.ID()
	b.open = nil
	b.measured.end() // the response has all of it
	if err := b.outlets.flush(ctx); err != nil {
		return err
	}
	if err := b.spec.Out.Settle(ctx, true); err != nil {
		return err
	}
	if b.kept != nil {
		if err := b.kept.commit(); err != nil {
			return err
		}
	}
	if err := b.forget(); err != nil {
		return err
	}
	b.spec.Out.Metrics(response.GetMonitoringInfos(), true)
	if b.later != nil {
		if err := b.takeBack(response.GetResidualRoots()); err != nil {
			return err
		}
	} else {
		for _, r := range response.GetResidualRoots() {
			if err := b.takeResidual(r); err != nil {
				return err
			}
		}
	}
	if response.GetRequiresFinalization() && b.commits {
		b.unsafe = append(b.unsafe, finalization{session: b.session, bundle: id})
		return nil
	}
	if response.GetRequiresFinalization() {
		// The outputs have been handed on: the bundle is committed as far as a bounded job ever is.
		if err := b.session.Finalize(ctx, id); err != nil && b.session.Err() == nil {
			return err
		} // if the harness is gone, nobody is left to be told
	}
	return nil
}

// takeResidual keeps a part of an element that the SDK has put off (DelayedBundleApplication in beam_fn_api.proto). Its
// record has the coder of the stage's input, because a splittable transform stands first in its stage.
func (b *bundles) takeResidual(r *fnpb.DelayedBundleApplication) error {
	a := r.GetApplication()
	if !b.spec.Stage.Input.Splittable {
		return fmt.Errorf("the SDK gave back a part of an element of %s, which is no splittable DoFn", a.GetTransformId())
	}
	if len(a.GetElement()) == 0 {
		return fmt.Errorf("the SDK gave back a part of an element of %s that is empty", a.GetTransformId())
	}
	return b.takeRest(a.GetElement(), dueIn(time.Now(), r.GetRequestedTimeDelay()))
}

// takeRest keeps what is to be processed from a time on, which may be long past; nothing holds the watermark of a bounded plan.
func (b *bundles) takeRest(record []byte, due int64) error {
	return b.residuals.put(&b.residuals.rests, putOff{record: record, due: due, hold: coder.MaxTimestamp})
}

func (b *bundles) finish(ctx context.Context) error {
	for {
		if err := b.cut(ctx); err != nil || b.residuals == nil {
			return err
		}
		at, err := b.residuals.first(&b.residuals.rests)
		if err != nil || b.residuals.rests.from == nil {
			return err
		}
		if err := waitUntil(ctx, time.Unix(0, at)); err != nil {
			return err
		}
		// What is due later does not keep back what is done now.
		due, err := b.residuals.take(&b.residuals.rests, max(at, nanos(time.Now())), mostResumed)
		if err != nil {
			return err
		}
		for _, p := range due {
			if err := b.add(ctx, p.record); err != nil {
				return err
			}
		}
	}
}

func (b *bundles) busy() bool { return b.input != nil || b.due != nil }

// keepFor lets the bundles' first transform have state and timers.
func (b *bundles) keepFor(k *kept) { b.kept, b.state.kept = k, k }

// fire has timers fired, in a bundle of their own, at the end of which windows are over.
func (b *bundles) fire(ctx context.Context, timers []timer, ending []expiredWindow) error {
	b.kept.firing, b.kept.ending = timers, ending
	if len(timers) == 0 {
		return b.kept.commit()
	}
	type turn struct {
		fires int64
		of    int
	}
	turns := make([]turn, len(timers)) // which are moved more cheaply than timers
	for i := range timers {
		turns[i] = turn{timers[i].fires, i}
	}
	slices.SortFunc(turns, func(a, b turn) int { return cmp.Or(cmp.Compare(a.fires, b.fires), cmp.Compare(a.of, b.of)) })
	b.due = make([][]byte, len(b.kept.families))
	for _, turn := range turns {
		t := &timers[turn.of]
		before := len(b.due[t.family])
		b.due[t.family] = t.append(b.due[t.family])
		b.dueBytes += len(b.due[t.family]) - before
	}
	return b.cut(ctx)
}

func (b *bundles) abandon() error {
	if b.open != nil {
		b.open.Abort(errClosed)
		b.open = nil
		b.lost()
	}
	err := b.forget()
	if b.later != nil {
		err = errors.Join(err, b.later.close())
	}
	if b.residuals != nil {
		err = errors.Join(err, b.residuals.close())
	}
	return err
}

func (b *bundles) keep(values *shuffle.Pages) []byte { return b.state.keep(values) }

func (b *bundles) newPages() *shuffle.Pages { return b.spec.Store.NewPages() }

// waitUntil waits until t, or until ctx ends, whose cause it then returns.
func waitUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
