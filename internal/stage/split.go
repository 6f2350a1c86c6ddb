package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/metric"
	"trestle/internal/fnapi"
)

// Splitter is a task that can give up a part of the bundle that it is working at. The tasks of stages with a splittable
// DoFn at their mouth are.
type Splitter interface {
	// Split asks for about half of what is left of the bundle under way, and answers with records for the stage's main
	// input, which any of its tasks can process; with none when there is nothing to give. What is answered is no longer
	// the task's: it must not be lost. Tasks of streaming plans answer with parts for Taker.Take. It may be called at any time, from
	// any goroutine, also while Process or End is under way.
	Split(ctx context.Context) (records [][]byte, err error)
}

// Split implements Splitter.
func (t *task) Split(ctx context.Context) ([][]byte, error) {
	b, ok := t.runner.(*bundles)
	if !ok || !t.spec.Stage.Input.Splittable {
		return nil, nil
	}
	records, err := b.split(ctx)
	if err != nil {
		return nil, t.errorf("split", err)
	}
	return records, nil
}

// offered is the bundle under way as far as others than the task may ask it: from when all of its input has been sent
// until the harness has answered. It is guarded by bundles.asking.
type offered struct {
	bundle *fnapi.Bundle
	coder  *coder.Windowed // of the input, if that can be split
	// asked is a request to split that has not been answered yet: the harness may split the bundle any time, and what it
	// then gives back it tells in its answer and nowhere else.
	asked *splitRequest
	split bool  // the harness has given something back
	reads int64 // how many elements it then said that it reads
	lost  bool  // what it said last cannot be
	// doubtful is the place in later.split of the element at which the harness, after all, may be: see heldTo. -1: there is none.
	doubtful int
}

// splitRequest is a request to split a bundle of which a number of records has been sent.
type splitRequest struct {
	sent     [][]byte
	cancel   context.CancelFunc // for when the answer matters no more
	answered chan struct{}      // closed when there is one
	response *fnpb.ProcessBundleSplitResponse
	err      error
}

// ask asks for a split, and waits for no answer.
func (o *offered) ask(ctx context.Context, source string, sent [][]byte, fraction float64) {
	// Whoever asked may cease to wait, which the harness does not know.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &splitRequest{sent: sent, cancel: cancel, answered: make(chan struct{})}
	o.asked = r
	go func() {
		defer close(r.answered)
		r.response, r.err = o.bundle.Split(ctx, map[string]*fnpb.ProcessBundleSplitRequest_DesiredSplit{
			source: {FractionOfRemainder: fraction, EstimatedInputElements: int64(len(sent))},
		})
	}()
}

// offer lets the bundle under way be asked, until the function that it returns is called.
func (b *bundles) offer() (withdraw func()) {
	b.asking.Lock()
	defer b.asking.Unlock()
	b.offered = &offered{bundle: b.open, coder: b.splits, doubtful: -1}
	return func() {
		b.asking.Lock()
		defer b.asking.Unlock()
		if r := b.offered.asked; r != nil {
			r.cancel() // the bundle has failed, and all of its input is processed again
			<-r.answered
		}
		b.offered = nil
	}
}

// half is how much of what is left a split leaves to the bundle.
const half = 0.5

// split splits the bundle on offer. Its input, which another attempt would process, becomes what was left to it.
func (b *bundles) split(ctx context.Context) ([][]byte, error) {
	b.asking.Lock()
	defer b.asking.Unlock()
	if b.later == nil {
		given, _, err := b.splitOff(ctx, half)
		return given, err
	}
	if !b.shareable() {
		return nil, nil
	}
	given, roots, err := b.splitOff(ctx, half)
	if err != nil {
		return nil, err
	}
	return b.handed(given, roots), nil
}

// splitOff splits the bundle on offer, and leaves it a fraction of what is left. Of the records that it gives, the last are
// the residual roots, in the same order. The caller holds asking.
func (b *bundles) splitOff(ctx context.Context, fraction float64) (given [][]byte, roots []*fnpb.DelayedBundleApplication, err error) {
	o := b.offered
	if o == nil || o.coder == nil {
		return nil, nil, nil
	}
	if o.asked == nil {
		sent, err := b.sentRecords(o.coder)
		if err != nil {
			return nil, nil, err
		}
		o.ask(ctx, b.source, sent, fraction)
	}
	ctx, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	select {
	case <-o.asked.answered:
		return b.answered()
	case <-ctx.Done():
	}
	return nil, nil, nil // the answer is taken when another asks, or when the bundle ends
}

// answered does what the answer to a request to split says. The caller holds asking.
func (b *bundles) answered() (given [][]byte, roots []*fnpb.DelayedBundleApplication, err error) {
	r := b.offered.asked
	b.offered.asked = nil
	r.cancel()
	if r.response == nil {
		// A bundle that ends meanwhile, or an SDK that cannot split it: it keeps its work.
		return nil, nil, nil
	}
	o, first := b.offered, firstResidual(r.response)
	if o.split && first > int64(len(r.sent)) && len(r.response.GetResidualRoots()) > 0 {
		// It is past what it said that it reads, and in the middle of an element.
		if first != int64(len(r.sent))+1 || !b.takeAgain() {
			o.lost = true
			return nil, nil, nil
		}
		r.sent = append(r.sent, nil) // which is what it has split
	}
	kept, given, err := divide(r.sent, r.response, b.source)
	if err != nil || len(given) == 0 {
		return nil, nil, err
	}
	o.split, o.reads, o.doubtful = true, first, -1
	input := b.spec.Store.NewPages()
	for _, record := range kept {
		if err := input.Append(record); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("keep the rest of a split bundle's input: %w", err), input.Close())
		}
	}
	old := b.input
	b.input = input
	return given, r.response.GetResidualRoots(), old.Close()
}

// lateSplit keeps what a bundle that has ended gave back in answer to a request that nobody waits for any more: the task
// processes it itself. A harness that has answered the bundle answers the request as well; one that does not within lateAnswer
// fails the task, since nobody can know what it gave back.
func (b *bundles) lateSplit(ctx context.Context) error {
	b.asking.Lock()
	defer b.asking.Unlock()
	r := b.offered.asked
	if r == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lateAnswer, fmt.Errorf(
		"the harness has answered bundle %s, and not for %v after that a request to split it: what it gave back is not known", b.offered.bundle.ID(), lateAnswer))
	defer cancel()
	select {
	case <-r.answered:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if r.err != nil && !isHarness(r.err) {
		return r.err
	}
	given, roots, err := b.answered()
	if err != nil {
		return err
	}
	return b.keepGiven(given, roots)
}

// errSplit is a split that did not hold.
var errSplit = errors.New("the harness has processed what it had given back when it was asked to split the bundle")

// heldTo checks that a bundle that has ended has processed no more than it said when it was split: what it gave back is processed
// elsewhere. A harness that does not say how much it has read is believed.
//
// Beam's Go SDK, asked for a split at fraction 0 (splitHelper in its exec/datasource.go), often computes a fraction just below 0
// of the element that it is at, takes that for none, and says that it gives back this element, which it goes on to process. In a
// streaming plan, where the element has not left the task, it counts as kept then. Else the bundle is tried again, with what it was
// to keep.
func (b *bundles) heldTo(response *fnpb.ProcessBundleResponse) error {
	b.asking.Lock()
	defer b.asking.Unlock()
	o := b.offered
	if !o.split {
		return nil
	}
	read, ok, err := metric.ReadIndex(response.GetMonitoringInfos(), b.source)
	if err != nil {
		return err
	}
	if !o.lost && (!ok || read <= o.reads || read == o.reads+1 && b.takeAgain()) {
		return nil
	}
	return fmt.Errorf("bundle %s: %w (elements read: %d, by its word: %d)", o.bundle.ID(), errSplit, read, o.reads)
}

// takeAgain has the bundle keep the element that is in doubt; false when none is. The caller holds asking.
func (b *bundles) takeAgain() bool {
	o := b.offered
	if o.doubtful < 0 {
		return false
	}
	b.later.split = slices.Delete(b.later.split, o.doubtful, o.doubtful+1)
	o.doubtful = -1
	return true
}

// keepGiven puts off what a bundle gave back. The caller holds asking.
func (b *bundles) keepGiven(given [][]byte, roots []*fnpb.DelayedBundleApplication) error {
	if len(given) > 0 && len(roots) == 0 && b.later != nil {
		b.offered.doubtful = len(b.later.split)
	}
	for i, record := range given {
		at := i - (len(given) - len(roots))
		switch {
		case b.later == nil && at >= 0:
			if err := b.takeResidual(roots[at]); err != nil {
				return err
			}
		case b.later == nil:
			if err := b.takeRest(record, 0); err != nil {
				return err
			}
		case at >= 0:
			b.later.split = append(b.later.split, b.later.part(roots[at]))
		default:
			b.later.split = append(b.later.split, b.later.untouched(record))
		}
	}
	return nil
}

func isHarness(err error) bool {
	var said *fnapi.HarnessError
	return errors.As(err, &said)
}

// sentRecords cuts the bundle's input into records.
func (b *bundles) sentRecords(w *coder.Windowed) ([][]byte, error) {
	var records [][]byte
	if err := b.sealInput(); err != nil {
		return nil, err
	}
	for page := int64(0); page >= 0; {
		data, next, err := b.input.Read(page, sendBytes)
		if err != nil {
			return nil, err
		}
		for len(data) > 0 {
			_, size, err := w.Record(data)
			if err != nil {
				return nil, fmt.Errorf("restriction of a splittable DoFn: %w", err)
			}
			records = append(records, data[:size])
			data = data[size:]
		}
		page = next
	}
	return records, nil
}

// firstResidual is the first element that a split gives back whole; 0 when it gives none.
func firstResidual(r *fnpb.ProcessBundleSplitResponse) int64 {
	if len(r.GetChannelSplits()) == 0 {
		return 0
	}
	return r.GetChannelSplits()[0].GetFirstResidualElement()
}

// divide tells what a split leaves to the bundle, and what it gives (ProcessBundleSplitResponse in beam_fn_api.proto): of
// the input channel the elements before and after the split, and of those on which it runs the two parts.
func divide(sent [][]byte, r *fnpb.ProcessBundleSplitResponse, source string) (kept, given [][]byte, err error) {
	roots := len(r.GetPrimaryRoots()) + len(r.GetResidualRoots())
	if len(r.GetChannelSplits()) == 0 {
		if roots > 0 {
			return nil, nil, errors.New("the SDK split an element and did not say which")
		}
		return nil, nil, nil // nothing to give
	}
	c := r.GetChannelSplits()[0]
	// Java's harness names no transform: its bundles have the one input.
	if len(r.GetChannelSplits()) > 1 || c.GetTransformId() != source && c.GetTransformId() != "" {
		return nil, nil, fmt.Errorf("the SDK split inputs that the stage does not have: %v", r.GetChannelSplits())
	}
	last, first := c.GetLastPrimaryElement(), c.GetFirstResidualElement()
	if roots == 0 && first == last+1 && first >= int64(len(sent)) {
		return nil, nil, nil // Go's harness splits behind its last element when it has just finished that
	}
	// One element at most lies between, and only if it was split itself: any other would be lost.
	within := first-last == 2 && roots > 0
	if last < -1 || first-last != 1 && !within || first > int64(len(sent)) {
		return nil, nil, fmt.Errorf("the SDK split %d elements after number %d and before number %d", len(sent), last, first)
	}
	kept = append(kept, sent[:last+1]...)
	given = append(given, sent[first:]...)
	for _, p := range r.GetPrimaryRoots() {
		kept = append(kept, p.GetElement())
	}
	for _, p := range r.GetResidualRoots() {
		given = append(given, p.GetApplication().GetElement())
	}
	if slices.ContainsFunc(slices.Concat(kept, given), func(record []byte) bool { return len(record) == 0 }) {
		return nil, nil, fmt.Errorf("the SDK split element number %d into parts that are empty", last+1)
	}
	return kept, given, nil
}

const (
	// splitTimeout is how long is waited for the answer to a request to split: a harness that is busy in user code answers
	// between two claims.
	splitTimeout = 10 * time.Second
	// lateAnswer is how long it is waited for once the bundle has been answered.
	lateAnswer = time.Minute
)
