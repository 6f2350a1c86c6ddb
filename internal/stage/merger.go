package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
)

// windowMerger asks an SDK to merge windows (MERGE_WINDOWS in StandardPTransforms of beam_runner_api.proto).
type windowMerger struct {
	spec   Spec
	plan   *plan.Merging
	answer *coder.Windowed

	link
}

func newWindowMerger(s Spec) (*windowMerger, error) {
	m := &windowMerger{spec: s, plan: s.Stage.Input.Group.Merging}
	if s.MergeHarness == nil {
		return nil, fmt.Errorf("no harness of environment %s, which merges the windows", m.plan.Environment)
	}
	var err error
	m.answer, err = coder.CompileWindowed(s.coders(), m.plan.Output)
	return m, err
}

// merge finds out what the windows of each key are merged into. A question that fails is asked again, as a bundle that
// fails is tried again.
func (m *windowMerger) merge(ctx context.Context, keys []unmerged) error {
	var t tries
	for {
		err := m.ask(ctx, keys)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("merge windows: %w", err)
		t.made++
		if mend, repeats := t.mendable(ctx, err, m.spec.Attempts, m.session); repeats {
			return repeatedError{err}
		} else if !mend {
			return err
		}
		m.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf("attempt %d of %d at merging windows for stage %q failed, and is repeated:\n%s",
			t.made, m.spec.Attempts, m.spec.Stage.Name, Describe(m.spec.Plan, err)))
	}
}

// ask asks once.
func (m *windowMerger) ask(ctx context.Context, keys []unmerged) error {
	for _, k := range keys {
		for i := range k.windows {
			k.windows[i].into = nil
		}
	}
	if err := m.connect(ctx, m.spec.MergeHarness, m.plan.Descriptor); err != nil {
		return err
	}
	bundle, err := m.session.StartBundle(ctx, fnapi.BundleSpec{
		Descriptor: m.descriptor,
		Sinks:      []string{m.plan.Sink},
		Receive: func(_ context.Context, _ string, data []byte) error {
			return asOwn(m.receive(keys, data))
		},
	})
	if err != nil {
		return err
	}
	if err := m.send(bundle, keys); err != nil {
		bundle.Abort(err)
		return err
	}
	if _, err := bundle.Wait(); err != nil {
		return err
	}
	return asOwn(complete(keys))
}

// send sends each key's windows. The nonce by which the answer is known is the key's index.
func (m *windowMerger) send(bundle *fnapi.Bundle, keys []unmerged) error {
	var buf []byte
	for i, k := range keys {
		buf = coder.AppendHeader(buf, coder.MinTimestamp, nil, coder.NoFiring)
		nonce := binary.AppendUvarint(nil, uint64(i))
		buf = append(append(buf, byte(len(nonce))), nonce...)
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(k.windows)))
		for _, w := range k.windows {
			buf = append(buf, w.window...)
		}
		if len(buf) < sendBytes || i == len(keys)-1 {
			continue // the last of them go with the end
		}
		if err := bundle.Send(m.plan.Source, buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	return bundle.End(m.plan.Source, buf)
}

// receive takes answers: KV<nonce, KV<Iterable<unmerged window>, Iterable<KV<merged window, Iterable<window>>>>>.
func (m *windowMerger) receive(keys []unmerged, data []byte) error {
	for len(data) > 0 {
		header, size, err := m.answer.Record(data)
		if err != nil {
			return fmt.Errorf("merged windows: %w", err)
		}
		if err := m.result(keys, data[header.Size:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// errAnswer says that the coder of answers is not what the proto says.
var errAnswer = errors.New("the coder of merged windows is of another kind")

func (m *windowMerger) result(keys []unmerged, b []byte) error {
	nonce, result, ok := m.answer.Value().KV()
	if !ok {
		return errAnswer
	}
	unchanged, merged, ok := result.KV()
	if !ok {
		return errAnswer
	}
	size, err := nonce.Skip(b)
	if err != nil {
		return err
	}
	_, prefix := binary.Uvarint(b)
	i, n := binary.Uvarint(b[prefix:size])
	if n <= 0 || n != size-prefix || i >= uint64(len(keys)) {
		return fmt.Errorf("merged windows have the nonce %x, which was never sent", b[prefix:size])
	}
	k := &keys[i]
	b = b[size:]
	if size, err = unchanged.EachElement(b, func(w []byte) error { return k.mergeInto(w, w) }); err != nil {
		return fmt.Errorf("windows that were not merged: %w", err)
	}
	_, err = merged.EachElement(b[size:], func(b []byte) error { return k.merged(merged, b) })
	if err != nil {
		return fmt.Errorf("merged windows: %w", err)
	}
	return nil
}

// merged takes one KV<merged window, Iterable<window>>, an element of the given coder.
func (k *unmerged) merged(all *coder.Coder, b []byte) error {
	element, _ := all.Element()
	window, originals, ok := element.KV()
	if !ok {
		return errAnswer
	}
	n, err := window.Skip(b)
	if err != nil {
		return err
	}
	into := bytes.Clone(b[:n])
	_, err = originals.EachElement(b[n:], func(w []byte) error { return k.mergeInto(w, into) })
	return err
}

// mergeInto notes what a window was merged into. Windows are in the order of their bytes, as they come out of the sort.
func (k *unmerged) mergeInto(w, into []byte) error {
	i, found := slices.BinarySearchFunc(k.windows, w, func(have unmergedWindow, want []byte) int {
		return bytes.Compare(have.window, want)
	})
	if !found {
		return fmt.Errorf("the window function merged window %x, which it was not given", w)
	}
	if k.windows[i].into != nil {
		return fmt.Errorf("the window function put window %x into %x and into %x", w, k.windows[i].into, into)
	}
	if bytes.Equal(w, into) {
		into = k.windows[i].window
	}
	k.windows[i].into = into
	return nil
}

// complete checks that it is known of each window what became of it.
func complete(keys []unmerged) error {
	for _, k := range keys {
		for _, w := range k.windows {
			if w.into == nil {
				return fmt.Errorf("the window function lost window %x", w.window)
			}
		}
	}
	return nil
}
