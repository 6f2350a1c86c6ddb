// Package stage runs one parallel instance of a plan's stage: it makes elements of the blocks that an engine brings, has
// them processed by an SDK harness in bundles, and cuts what comes back into blocks again.
//
// The files follow the data: task.go is the contract with the engine, intake.go turns blocks into elements, bundle.go
// takes elements to the harness and back, outlet.go turns output into blocks, view.go keeps side inputs.
//
// A task is given a way to a connected harness ([Harness]); it never starts one.
package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/store/kv"
)

// Harness answers with a connected harness of the stage's environment; it may start one, and wait for it.
type Harness func(ctx context.Context) (*fnapi.Session, error)

// Spec is what a task is made of.
type Spec struct {
	Plan  *plan.Plan
	Stage *plan.Stage
	// Index is this task's among the stage's Parallelism tasks.
	Index, Parallelism int
	// KeyGroups is the number of key groups of the whole job: keyed blocks are numbered below it.
	KeyGroups int
	// Harness is nil for a stage without an environment.
	Harness Harness
	// MergeHarness answers with a harness of the environment that merges the windows of the stage's groups; nil when no
	// environment does (plan.Merging).
	MergeHarness Harness
	// Store is the job's share of memory and spill space.
	Store *shuffle.Store
	// Views are the stage's side inputs on this worker, shared by its tasks.
	Views *Views
	// Out is a [StreamingOutput] when the plan is a streaming one.
	Out Output
	// State is where the task keeps what a transform keeps between bundles.
	State State
	// Restore has what the task begins with: the parts of all tasks of the stage, or, of one that had as many, the one of this
	// task. Empty when it begins with nothing.
	Restore []Restore
	// BundleBytes is how much input a bundle takes before it is finished and the next one begins; 0 stands for
	// DefaultBundleBytes.
	BundleBytes int
	// Attempts is how often a bundle is tried before its failure is the task's; 0 stands for DefaultAttempts.
	Attempts int
	// Ahead is how far processing time is ahead of the world's, by which SDKs go that set timers: a TestStream's is. Nil
	// stands for not at all.
	Ahead func() time.Duration
	// Now is what time it is, by the clock of which the engine tells tasks of streaming plans (StreamingTask.Clock): it is from when a
	// part of an element has been given back that the delay counts which its SDK wants, however long the bundle took. It may be called
	// from any goroutine. Nil stands for a clock that stands still between two calls of Clock.
	Now func() time.Time
	Log *slog.Logger

	wanted context.Context // the task's own; nil of what several tasks share
}

// State is where a task may keep state.
type State struct {
	// Directory is the task's own. It need not be there yet; the task deletes it when it is closed.
	Directory string
	// Cache bounds the memory that the stores of all tasks of a server take together.
	Cache *kv.Cache
	// WholeKeys is how many bytes a user's key may have that stands in front of what is kept of it; of longer ones a digest does. 0 stands for
	// 1 KiB, which is part of the format of snapshots; a test may have another, and -1 for no key at all.
	WholeKeys int
	// Context ends when nothing that is kept will be wanted any more: what takes long of reading and writing it then fails, with the
	// context's cause. Nil stands for one that does not end. That the task is closed says as much.
	Context context.Context
}

// Wanted is the Context, or one that does not end.
func (s State) Wanted() context.Context {
	if s.Context == nil {
		return context.Background()
	}
	return s.Context
}

// DefaultBundleBytes bounds a bundle's input. The fixed cost of a bundle is about a millisecond, which 32 MiB hide at
// any SDK's speed; larger ones would only delay what a bundle's end releases.
const DefaultBundleBytes = 32 << 20

// intake turns what arrives on the main input into elements for a run.
type intake interface {
	// process takes a block.
	process(ctx context.Context, from Delivery, block []byte) error
	// settle keeps or forgets the blocks of an attempt.
	settle(attempt Attempt, keep bool) error
	// end processes what is left.
	end(ctx context.Context) error
	// close releases what the intake holds.
	close() error
}

// Open makes a task. Nothing is started before the first event arrives.
func Open(s Spec) (Task, error) {
	if s.BundleBytes == 0 {
		s.BundleBytes = DefaultBundleBytes
	}
	if s.Attempts == 0 {
		s.Attempts = DefaultAttempts
	}
	t := &task{spec: s}
	for _, from := range s.Restore {
		if err := checkFormat(from.Directory); err != nil {
			return nil, t.errorf("restore", err)
		}
	}
	t.ctx, t.cancel = context.WithCancelCause(s.State.Wanted())
	s.wanted = t.ctx
	t.spec = s
	var err error
	if t.stream, err = newStream(s); err != nil {
		return nil, t.errorf("open", err)
	}
	outlets, err := newOutlets(s)
	if err != nil {
		return nil, t.errorf("open", err)
	}
	if s.Stage.Environment == "" {
		t.runner = &passThrough{outlets: outlets, out: s.Out}
	} else if t.runner, err = newBundles(s, outlets); err != nil {
		return nil, t.errorf("open", err)
	}
	if t.intake, err = newIntake(s, t.runner); err != nil {
		return nil, t.errorf("open", errors.Join(err, t.runner.abandon()))
	}
	if err := t.newGate(); err != nil {
		return nil, t.errorf("open", errors.Join(err, t.intake.close(), t.runner.abandon()))
	}
	if t.stream != nil {
		if t.stream.stable, err = newStable(s); err != nil {
			return nil, t.errorf("open", errors.Join(err, t.Close()))
		}
	}
	if b := t.puttingOff(); b != nil {
		// A drain is not taken back, and the engine tells of it again only when the first of what was restored may have been processed,
		// whose parts are not to be truncated once more.
		if t.stream.times.draining, err = b.later.any(&b.later.drained); err != nil {
			return nil, t.errorf("open", errors.Join(err, t.Close()))
		}
	}
	if p, ok := t.intake.(*panes); ok && t.stream != nil {
		p.output, p.gate = &t.stream.told, t.stream.gate
	}
	return t, nil
}

func newIntake(s Spec, r runner) (intake, error) {
	switch in := s.Stage.Input; in.Kind {
	case plan.Impulse:
		return newImpulse(s, r)
	case plan.Elements, plan.Played:
		return newElements(s, r), nil
	case plan.Groups:
		if s.Plan.Streaming {
			return newPanes(s, r)
		}
		return newGroups(s, r)
	case plan.KeyedElements:
		return newStateful(s, r)
	default:
		return nil, fmt.Errorf("input kind %d", in.Kind)
	}
}

// coders are the plan's coders.
func (s Spec) coders() map[string]*pipepb.Coder { return s.Plan.Coders() }

// unkeyed are the folders of earlier snapshots whose parts that belong to no key group are this task's now.
func (s Spec) unkeyed() []string {
	var from []string
	for _, r := range s.Restore {
		if r.Index%s.Parallelism == s.Index {
			from = append(from, r.Directory)
		}
	}
	return from
}

// ofOneGroup is the spec for a store of what has no key: it is whose it was, and all of it is one key group's.
func (s Spec) ofOneGroup() Spec {
	from := s.unkeyed()
	s.Index, s.Parallelism, s.KeyGroups, s.Restore = 0, 1, 1, nil
	for _, dir := range from {
		s.Restore = append(s.Restore, Restore{Directory: dir, Parallelism: 1})
	}
	return s
}

// same tells whether the task begins with what it had itself, and with nothing else.
func (s Spec) same() bool {
	return len(s.Restore) == 1 && s.Restore[0].Index == s.Index && s.Restore[0].Parallelism == s.Parallelism
}
