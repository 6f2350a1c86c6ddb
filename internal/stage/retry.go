package stage

import (
	"context"
	"errors"
	"fmt"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/beam/failure"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
)

// DefaultAttempts is how often a bundle is tried: what Beam's users know from other runners' batch jobs.
const DefaultAttempts = 4

// tries are the attempts at the bundle under way.
type tries struct {
	made int    // attempts that have failed
	last string // what the user's code said in the last one
	open error  // why the last one failed; nil while one is under way
}

func (t *tries) failed() bool { return t.open != nil }

// ownError is a failure of the runner's own, which another attempt would only meet again: a full disk, output that is
// no encoding of its coder.
type ownError struct{ error }

func (e ownError) Unwrap() error { return e.error }

func asOwn(err error) error {
	if err == nil {
		return nil
	}
	return ownError{err}
}

// remember keeps input of the bundle under way, for another attempt.
func (b *bundles) remember(records []byte) error {
	if b.input == nil {
		b.input = b.spec.Store.NewPages()
	}
	if err := b.input.Append(records); err != nil {
		return fmt.Errorf("keep the bundle's input: %w", err)
	}
	return nil
}

// sealInput makes what was kept readable. A bundle that was to be split has done so before.
func (b *bundles) sealInput() error {
	if b.input == nil {
		return nil // timers only
	}
	if err := b.input.Seal(); err != nil && !errors.Is(err, shuffle.ErrSealed) {
		return fmt.Errorf("keep the bundle's input: %w", err)
	}
	return nil
}

// forget frees what was kept for the bundle, which is over.
func (b *bundles) forget() error {
	b.state.release()
	b.tries = tries{}
	b.sent()
	b.due, b.dueBytes = nil, 0
	if b.input == nil {
		return nil
	}
	err := b.input.Close()
	b.input = nil
	return err
}

// attempt completes the bundle under way, and tries it again from its start as long as it fails in a way that another
// attempt may mend.
func (b *bundles) attempt(ctx context.Context) (*fnpb.ProcessBundleResponse, error) {
	if !b.tries.failed() {
		response, err := b.complete(ctx)
		if err == nil {
			return response, nil
		}
		if err := b.failure(ctx, err); err != nil {
			return nil, err
		}
	}
	for {
		if err := b.sealInput(); err != nil { // again, if the last attempt was split
			return nil, err
		}
		b.tries.open = nil
		err := b.replay(ctx)
		if err == nil {
			var response *fnpb.ProcessBundleResponse
			if response, err = b.complete(ctx); err == nil {
				return response, nil
			}
		}
		if err := b.failure(ctx, err); err != nil {
			return nil, err
		}
	}
}

// replay sends the bundle's whole input once more.
func (b *bundles) replay(ctx context.Context) error {
	for page := int64(0); page >= 0 && b.input != nil; {
		records, next, err := b.input.Read(page, sendBytes)
		if err != nil {
			return asOwn(fmt.Errorf("read the bundle's input again: %w", err))
		}
		if err := b.feed(ctx, records); err != nil {
			return err
		}
		page = next
	}
	return nil
}

// failure deals with the failure of an attempt: what it put out is dropped, and the answer is nil if the bundle is to be
// tried again. A nil err is none.
func (b *bundles) failure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if b.open != nil {
		b.open.Abort(err)
		b.open = nil
		b.lost()
	}
	b.sent()
	b.tries.made++
	if mend, repeats := b.tries.mendable(ctx, err, b.spec.Attempts, b.session); repeats {
		return repeatedError{err}
	} else if !mend {
		return err
	}
	if dropped := b.spec.Out.Settle(ctx, false); dropped != nil {
		return errors.Join(err, dropped)
	}
	if b.kept != nil {
		if discarded := b.kept.discard(); discarded != nil {
			return errors.Join(err, discarded)
		}
	}
	outlets, made := newOutlets(b.spec) // the old ones hold what the attempt left
	if made != nil {
		return errors.Join(err, made)
	}
	b.outlets = outlets
	b.tries.open = err
	b.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("attempt %d of %d at a bundle of stage %q failed, and is repeated:\n%s",
		b.tries.made, b.spec.Attempts, b.spec.Stage.Name, Describe(b.spec.Plan, err)))
	return nil
}

// mendable tells whether another attempt may succeed after those made: user code failed for the first time in this way,
// or the harness is gone (session is nil when none was there yet), or did not hold to a split. repeats tells whether user code is
// known to fail like that each time, or was to be tried once only.
func (t *tries) mendable(ctx context.Context, err error, attempts int, session *fnapi.Session) (mend, repeats bool) {
	var own ownError
	if ctx.Err() != nil || errors.As(err, &own) {
		return false, false
	}
	if errors.Is(err, errSplit) {
		return t.made < max(attempts, DefaultAttempts), false // nothing has failed by which attempts are counted
	}
	var user *fnapi.HarnessError
	if errors.As(err, &user) {
		// The same words twice: the next attempt would end the same, and the user waits.
		said := failure.Words(failure.Parse(user.Text).Summary)
		again := t.made > 1 && said == t.last
		t.last = said
		repeats = again || attempts == 1
		return !repeats && t.made < attempts, repeats
	}
	if t.made >= attempts {
		return false, false
	}
	var ended signalled
	if errors.As(err, &ended) && ended.BySignal() {
		return true, false
	}
	return session != nil && session.Err() != nil, false
}

// repeatedError is a failure of user code that another attempt, wherever it begins, would only meet again.
type repeatedError struct{ error }

func (e repeatedError) Unwrap() error { return e.error }

// Repeats tells whether a task failed because user code fails in the same way each time.
func Repeats(err error) bool {
	var repeated repeatedError
	return errors.As(err, &repeated)
}

// signalled is the end of a harness that may have been killed from outside, also before it was one's own.
type signalled interface {
	error
	BySignal() bool
}

// taskError is why a task is over.
type taskError struct {
	error
	stage string
}

func (e taskError) Unwrap() error { return e.error }

// Describe is what a person reads of a failed task or bundle: the user's own exception first, where there is one, and then where that
// was: the stage, if the SDK names no transform.
func Describe(p *plan.Plan, err error) string {
	var user *fnapi.HarnessError
	if !errors.As(err, &user) {
		return err.Error()
	}
	report := failure.Parse(user.Text)
	var of taskError
	if errors.As(err, &of) {
		report.Stage = of.stage
	}
	return report.Text(func(transform string) string {
		return p.Pipeline.GetComponents().GetTransforms()[transform].GetUniqueName()
	})
}
