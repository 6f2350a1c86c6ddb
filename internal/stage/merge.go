package stage

import (
	"bytes"
	"context"
	"errors"

	"trestle/internal/beam/coder"
	"trestle/internal/shuffle"
)

const (
	// mergeBytes is how much of keys and windows is gathered before the SDK is asked to merge them: enough to hide the
	// fixed cost of a bundle.
	mergeBytes = 1 << 20
	// mergeCost is what a key or a window takes in memory besides its bytes.
	mergeCost = 64
)

// customMerging merges windows in the way that only their SDK knows: a pass over the sorted groups asks the SDK what
// becomes of each key's windows, and the values are sorted once more, by the windows that they have then.
//
// Values wait in a backlog while the SDK is asked about their windows. The keys and windows of one question are in memory:
// about mergeBytes, or all windows of one key, which can only be merged together.
type customMerging struct {
	spec   Spec
	limit  int // of keys and windows in one question, in bytes: mergeBytes
	merger *windowMerger
	values backlog
	merged *shuffle.Grouper // nil before merge
	out    *shuffle.Partitioner
	buf    []byte // records on their way there
}

// unmerged is a key with its windows.
type unmerged struct {
	key     []byte
	windows []unmergedWindow
}

// unmergedWindow is a window of a key. Its values are the next in the backlog.
type unmergedWindow struct {
	window []byte
	values int64
	into   []byte // what it was merged into; nil when that is not known yet
}

func newCustomMerging(s Spec) (*customMerging, error) {
	merger, err := newWindowMerger(s)
	if err != nil {
		return nil, err
	}
	m := &customMerging{spec: s, limit: mergeBytes, merger: merger, values: backlog{store: s.Store}}
	w, err := coder.CompileWindowed(s.coders(), s.Stage.Input.Group.Coder)
	if err != nil {
		return nil, err
	}
	m.out, err = shuffle.NewPartitioner(w, s.KeyGroups, func(keyGroup int, block []byte) error {
		return m.merged.Add(0, keyGroup, block)
	})
	return m, err
}

func (m *customMerging) see([]byte) error { return nil }

func (m *customMerging) merge(ctx context.Context, sorted *shuffle.Groups) (grouped, error) {
	m.merged = m.spec.Store.NewGrouper(m.spec.KeyGroups)
	more, err := sorted.Next()
	for more && err == nil {
		var batch []unmerged
		if batch, more, err = m.gather(ctx, sorted); err != nil {
			break
		}
		if err = m.merger.merge(ctx, batch); err == nil {
			err = m.regroup(ctx, batch)
		}
	}
	if err == nil {
		err = m.out.Flush()
	}
	if err != nil {
		return nil, err
	}
	return m.merged.Seal()
}

// gather takes the groups of as many keys as go into one question, from the group on at which sorted stands, and tells
// whether it then stands at another.
func (m *customMerging) gather(ctx context.Context, sorted *shuffle.Groups) (batch []unmerged, more bool, err error) {
	for size := 0; ; {
		if n := len(batch); n == 0 || !bytes.Equal(batch[n-1].key, sorted.Key()) {
			if size >= m.limit {
				return batch, true, nil
			}
			batch = append(batch, unmerged{key: bytes.Clone(sorted.Key())})
			size += len(sorted.Key()) + mergeCost
		}
		w := unmergedWindow{window: append([]byte{}, sorted.Window()...)}
		for {
			value, timestamp, ok, err := sorted.NextValue()
			if err != nil {
				return nil, false, err
			}
			if !ok {
				break
			}
			if err := m.values.put(ctx, timestamp, value); err != nil {
				return nil, false, err
			}
			w.values++
		}
		k := &batch[len(batch)-1]
		k.windows = append(k.windows, w)
		size += len(w.window) + mergeCost
		if more, err = sorted.Next(); err != nil || !more {
			return batch, false, err
		}
	}
}

// regroup sorts the values of a batch by the windows that they have now.
func (m *customMerging) regroup(ctx context.Context, batch []unmerged) error {
	for _, k := range batch {
		for _, w := range k.windows {
			for range w.values {
				value, timestamp, err := m.values.take(ctx)
				if err != nil {
					return err
				}
				m.buf = coder.AppendHeader(m.buf, timestamp, w.into, coder.NoFiring)
				m.buf = append(append(m.buf, k.key...), value...)
				if len(m.buf) < backlogBytes {
					continue
				}
				if err := m.out.Write(m.buf); err != nil {
					return err
				}
				m.buf = m.buf[:0]
			}
		}
	}
	err := m.out.Write(m.buf)
	m.buf = m.buf[:0]
	return err
}

func (m *customMerging) close() error {
	err := m.values.close()
	if m.merged != nil {
		err = errors.Join(err, m.merged.Close())
	}
	return err
}
