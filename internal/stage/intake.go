package stage

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
)

// runner has elements processed and passes the results to the outlets.
type runner interface {
	// process takes whole records in the coder of the stage's input; they are the caller's again on return.
	process(ctx context.Context, records []byte) error
	// cut finishes what is under way: all that follows from the records so far has been emitted when it returns.
	cut(ctx context.Context) error
	// busy tells whether something has been processed and not been cut.
	busy() bool
	// finish is the last call: it cuts, and processes what the stage has left for later (residuals).
	finish(ctx context.Context) error
	// abandon gives up what is under way.
	abandon() error
}

// passThrough is the runner of a stage without an environment: its input is its output.
type passThrough struct {
	outlets *outlets
	out     Output
	written bool // since the last cut
}

func (p *passThrough) process(ctx context.Context, records []byte) error {
	p.written = true
	for i := range p.outlets.outputs {
		if err := p.outlets.write(ctx, i, records); err != nil {
			return err
		}
	}
	return nil
}

func (p *passThrough) cut(ctx context.Context) error {
	if err := p.outlets.flush(ctx); err != nil {
		return err
	}
	p.written = false
	return p.out.Settle(ctx, true)
}

func (p *passThrough) busy() bool { return p.written }

func (p *passThrough) finish(ctx context.Context) error { return p.cut(ctx) }

func (p *passThrough) abandon() error { return nil }

// impulse is the intake of a root stage: the stage's first task gets one empty element, at the beginning of time, in
// the global window (beam:transform:impulse:v1).
type impulse struct {
	runner runner
	first  bool
	fired  bool // it fires once, however often its job is restored
}

// firedName is the file of a snapshot which says that an impulse has fired.
const firedName = "fired"

func newImpulse(s Spec, r runner) (*impulse, error) {
	i := &impulse{runner: r, first: s.Index == 0}
	for _, from := range s.unkeyed() {
		_, err := os.Stat(filepath.Join(from, firedName))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		i.fired = i.fired || err == nil
	}
	return i, nil
}

func (i *impulse) snapshot(directory string) error {
	if !i.fired {
		return nil
	}
	return os.WriteFile(filepath.Join(directory, firedName), nil, 0o600)
}

func (i *impulse) process(context.Context, Delivery, []byte) error { return errNoInput }

func (i *impulse) settle(Attempt, bool) error { return errNoInput }

func (i *impulse) end(ctx context.Context) error {
	if !i.first || i.fired {
		return nil
	}
	i.fired = true
	record := coder.AppendHeader(nil, coder.MinTimestamp, nil, coder.NoFiring)
	record = append(record, 0) // the nested encoding of no bytes
	return i.runner.process(ctx, record)
}

func (i *impulse) close() error { return nil }

// elements is the intake of a stage that takes records as they come.
type elements struct {
	runner runner
	// unit makes each block a bundle of its own: the blocks of a rebalancing exchange were cut so that idle tasks
	// find work, which a bundle that swallows them all would undo.
	unit bool
	// limit and taken are how many bytes a bundle gets, and has got.
	limit, taken int
}

func newElements(s Spec, r runner) *elements {
	e := &elements{runner: r, limit: s.BundleBytes}
	for _, id := range s.Stage.Input.Exchanges {
		if s.Plan.Exchanges[id].Kind == plan.Rebalance {
			e.unit = true
		}
	}
	return e
}

func (e *elements) process(ctx context.Context, _ Delivery, block []byte) error {
	if err := e.runner.process(ctx, block); err != nil {
		return err
	}
	e.taken += len(block)
	if !e.unit && e.taken < e.limit {
		return nil
	}
	e.taken = 0
	return e.runner.cut(ctx)
}

func (e *elements) settle(Attempt, bool) error {
	return errors.New("elements arrive settled: only keyed inputs know attempts")
}

func (e *elements) end(context.Context) error { return nil }

func (e *elements) close() error { return nil }
