package stage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/fnapi"
)

// Splitter is a task that can give up a part of the bundle that it is working at. The tasks of stages with a splittable
// DoFn at their mouth are.
type Splitter interface {
	// Split asks for about half of what is left of the bundle under way, and answers with records for the stage's main
	// input, which any of its tasks can process; with none when there is nothing to give. What is answered is no longer
	// the task's: it must not be lost. It may be called at any time, from any goroutine, also while Process or End is
	// under way.
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
}

// offer lets the bundle under way be asked, until the function that it returns is called.
func (b *bundles) offer() (withdraw func()) {
	b.asking.Lock()
	defer b.asking.Unlock()
	b.offered = &offered{bundle: b.open, coder: b.splits}
	return func() {
		b.asking.Lock()
		defer b.asking.Unlock()
		b.offered = nil
	}
}

// half is how much of what is left a split leaves to the bundle.
const half = 0.5

// split splits the bundle on offer. Its input, which another attempt would process, becomes what was left to it.
func (b *bundles) split(ctx context.Context) ([][]byte, error) {
	b.asking.Lock()
	defer b.asking.Unlock()
	given, _, err := b.splitOff(ctx, half)
	return given, err
}

// splitOff splits the bundle on offer, and leaves it a fraction of what is left. Of the records that it gives, the last are
// the residual roots, in the same order. The caller holds asking.
func (b *bundles) splitOff(ctx context.Context, fraction float64) (given [][]byte, roots []*fnpb.DelayedBundleApplication, err error) {
	if b.offered == nil || b.offered.coder == nil {
		return nil, nil, nil
	}
	sent, err := b.sentRecords(b.offered.coder)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	response, err := b.offered.bundle.Split(ctx, map[string]*fnpb.ProcessBundleSplitRequest_DesiredSplit{
		b.source: {FractionOfRemainder: fraction, EstimatedInputElements: int64(len(sent))},
	})
	if err != nil {
		// A bundle that ends meanwhile, or an SDK that cannot split it: it keeps its work.
		return nil, nil, nil
	}
	kept, given, err := divide(sent, response, b.source)
	if err != nil || len(given) == 0 {
		return nil, nil, err
	}
	input := b.spec.Store.NewPages()
	for _, record := range kept {
		if err := input.Append(record); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("keep the rest of a split bundle's input: %w", err), input.Close())
		}
	}
	old := b.input
	b.input = input
	return given, response.GetResidualRoots(), old.Close()
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

// splitTimeout is how long a harness may take to answer a request to split: one that is busy in user code answers
// between two claims.
const splitTimeout = 10 * time.Second
