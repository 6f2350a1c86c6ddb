package stage

import (
	"context"
	"errors"
	"fmt"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/fnapi"
	"trestle/internal/shuffle"
)

var errNoInput = errors.New("a block for an input that takes none")

// bundles is the runner of a stage with an environment: it takes records to the harness in bundles, one at a time.
type bundles struct {
	spec    Spec
	source  string
	sinks   map[string]int // sink transform id → index in the outlets
	outlets *outlets
	state   *stateServer

	session    *fnapi.Session // nil before the first bundle
	descriptor string
	open       *fnapi.Bundle // nil between bundles
	residuals  []residual    // work that the harness gave back
}

// residual is a part of an element that a bundle did not do.
type residual struct {
	record []byte
	due    time.Time // not to be processed before
}

func newBundles(s Spec, o *outlets) *bundles {
	b := &bundles{spec: s, source: s.Stage.Input.Source, outlets: o, sinks: map[string]int{}}
	for i, out := range s.Stage.Outputs {
		b.sinks[out.Sink] = i
	}
	b.state = &stateServer{views: s.Views, stage: s.Stage}
	return b
}

func (b *bundles) process(ctx context.Context, records []byte) error {
	if err := b.begin(ctx); err != nil {
		return err
	}
	defer b.guard(ctx)()
	if err := b.open.Send(b.source, records); err != nil {
		return b.failed(err)
	}
	return nil
}

// guard ends the open bundle when ctx ends, until the function that it returns is called.
func (b *bundles) guard(ctx context.Context) (stop func() bool) {
	open := b.open
	return context.AfterFunc(ctx, func() { open.Abort(context.Cause(ctx)) })
}

// begin opens a bundle unless one is open.
func (b *bundles) begin(ctx context.Context) error {
	if b.open != nil {
		return nil
	}
	if b.session == nil {
		session, err := b.spec.Harness(ctx)
		if err != nil {
			return err
		}
		if b.descriptor, err = session.AddDescriptor(b.spec.Stage.Descriptor); err != nil {
			return err
		}
		b.session = session
	}
	sinks := make([]string, 0, len(b.sinks))
	for sink := range b.sinks {
		sinks = append(sinks, sink)
	}
	// The bundle outlives this call: Close abandons it.
	open, err := b.session.StartBundle(context.WithoutCancel(ctx), fnapi.BundleSpec{
		Descriptor: b.descriptor,
		Sinks:      sinks,
		Receive: func(ctx context.Context, sink string, data []byte) error {
			return b.outlets.write(ctx, b.sinks[sink], data)
		},
		State: b.state.answer,
	})
	if err != nil {
		return err
	}
	b.open = open
	return nil
}

func (b *bundles) cut(ctx context.Context) error {
	if b.open == nil {
		return nil
	}
	stop := b.guard(ctx)
	err := b.open.End(b.source)
	var response *fnpb.ProcessBundleResponse
	if err == nil {
		response, err = b.open.Wait()
	}
	stop()
	if err != nil {
		return b.failed(err)
	}
	id := b.open.ID()
	b.open = nil
	b.state.release()
	if err := b.outlets.flush(ctx); err != nil {
		return err
	}
	b.spec.Out.Metrics(response.GetMonitoringInfos())
	for _, r := range response.GetResidualRoots() {
		if err := b.takeResidual(r); err != nil {
			return err
		}
	}
	if response.GetRequiresFinalization() {
		// The outputs have been handed on: the bundle is committed as far as a bounded job ever is.
		return b.session.Finalize(ctx, id)
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
	b.residuals = append(b.residuals, residual{
		record: a.GetElement(),
		due:    time.Now().Add(r.GetRequestedTimeDelay().AsDuration()),
	})
	return nil
}

func (b *bundles) finish(ctx context.Context) error {
	for {
		if err := b.cut(ctx); err != nil {
			return err
		}
		if len(b.residuals) == 0 {
			return nil
		}
		due := b.residuals
		b.residuals = nil
		for _, r := range due {
			if err := waitUntil(ctx, r.due); err != nil {
				return err
			}
			if err := b.process(ctx, r.record); err != nil {
				return err
			}
		}
	}
}

func (b *bundles) abandon() {
	if b.open != nil {
		b.open.Abort(errClosed)
		b.open = nil
	}
	b.state.release()
}

// failed is the error of the open bundle, which is over.
func (b *bundles) failed(err error) error {
	b.abandon()
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
