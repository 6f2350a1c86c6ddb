package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
)

// windowMapper asks an SDK which windows of a side input windows of the main input read (MAP_WINDOWS in StandardPTransforms of
// beam_runner_api.proto). It belongs to one goroutine.
type windowMapper struct {
	spec   Spec
	what   string // for errors
	plan   *plan.Mapping
	answer *coder.Windowed

	link
}

func newWindowMapper(s Spec, in plan.SideInput) (*windowMapper, error) {
	if s.Harness == nil {
		return nil, fmt.Errorf("no harness maps windows for side input %s of transform %s", in.Tag, in.Transform)
	}
	answer, err := coder.CompileWindowed(s.coders(), in.Mapping.Output)
	what := fmt.Sprintf("map windows for side input %s of transform %s", in.Tag, in.Transform)
	return &windowMapper{spec: s, what: what, plan: in.Mapping, answer: answer}, err
}

// windows finds the windows that the given ones read. A question that fails is asked again, as a bundle that fails is.
func (m *windowMapper) windows(ctx context.Context, asked [][]byte) ([][]byte, error) {
	var t tries
	for {
		answers, err := m.ask(ctx, asked)
		if err == nil {
			return answers, nil
		}
		err = fmt.Errorf("%s: %w", m.what, err)
		t.made++
		if mend, repeats := t.mendable(ctx, err, m.spec.Attempts, m.session); repeats {
			return nil, repeatedError{err}
		} else if !mend {
			return nil, err
		}
		m.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("attempt %d of %d to %s failed, and is repeated:\n%s",
			t.made, m.spec.Attempts, m.what, Describe(m.spec.Plan, err)))
	}
}

// ask asks once.
func (m *windowMapper) ask(ctx context.Context, asked [][]byte) ([][]byte, error) {
	if err := m.connect(ctx, m.spec.Harness, m.plan.Descriptor); err != nil {
		return nil, err
	}
	answers := make([][]byte, len(asked))
	bundle, err := m.session.StartBundle(ctx, fnapi.BundleSpec{
		Descriptor: m.descriptor,
		Sinks:      []string{m.plan.Sink},
		Receive: func(_ context.Context, _ string, data []byte) error {
			return asOwn(m.receive(answers, data))
		},
	})
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { bundle.Abort(context.Cause(ctx)) })()
	var buf []byte
	for i, w := range asked {
		buf = coder.AppendHeader(buf, coder.MinTimestamp, nil, coder.NoFiring)
		nonce := binary.AppendUvarint(nil, uint64(i))
		buf = append(append(buf, byte(len(nonce))), nonce...)
		buf = append(buf, w...)
	}
	if err := bundle.End(m.plan.Source, buf); err != nil {
		bundle.Abort(err)
		return nil, err
	}
	if _, err := bundle.Wait(); err != nil {
		return nil, err
	}
	for i, w := range answers {
		if w == nil {
			return nil, asOwn(fmt.Errorf("the SDK did not say which window window %x reads", asked[i]))
		}
	}
	return answers, nil
}

// receive takes answers: KV<nonce, window>.
func (m *windowMapper) receive(answers [][]byte, data []byte) error {
	for len(data) > 0 {
		var r coder.KV
		if err := m.answer.CutKV(data, &r); err != nil {
			return fmt.Errorf("mapped windows: %w", err)
		}
		nonce, rest, ok := cutPart(r.Key(data)) // bytes behind their length
		i, n := binary.Uvarint(nonce)
		if !ok || len(rest) > 0 || n <= 0 || i >= uint64(len(answers)) {
			return fmt.Errorf("a mapped window has the nonce %x, which was never sent", r.Key(data))
		}
		if answers[i] != nil {
			return errors.New("the SDK said twice which window a window reads")
		}
		answers[i] = append([]byte{}, r.Value(data)...)
		data = data[r.Size:]
	}
	return nil
}
