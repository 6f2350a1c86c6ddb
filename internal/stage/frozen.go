package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/store/kv"
)

// frozenViews are a stage's side inputs as they could be read at one time: what a bundle reads from its beginning to its end.
type frozenViews struct {
	live   *live
	store  *kv.Frozen // nil before anything has come
	tokens []*fnpb.ProcessBundleRequest_CacheToken
	uses   int // guarded by Views.mu
}

// acquire gives a bundle what can be read now; nil in plans that are not streaming ones, whose side inputs do not change.
func (v *Views) acquire() *frozenViews {
	if v.live == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.live
	if l.current == nil || l.stale {
		old := l.current
		l.current, l.stale = &frozenViews{live: l, tokens: v.tokens(l.changes)}, false
		if l.store != nil {
			l.current.store = l.store.Freeze()
		}
		if old != nil && old.uses == 0 {
			old.close()
		}
	}
	l.current.uses++
	return l.current
}

// release is what a bundle's end does with what it acquired.
func (v *Views) release(f *frozenViews) {
	if f == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if f.uses--; f.uses == 0 && f != v.live.current {
		f.close()
	}
}

// close lets go of the store. There is nothing to be lost by an error.
func (f *frozenViews) close() {
	if f.store != nil {
		_ = f.store.Close()
		f.store = nil
	}
}

// outer is a window as the records have it: see customView.
func (f *frozenViews) outer(side int, w []byte) ([]byte, error) {
	if !f.live.sides[side].custom {
		return w, nil
	}
	outer, ok, err := f.store.Get(append(f.live.at(side, kindInside), w...))
	if err != nil || !ok {
		return w, err
	}
	return outer, nil
}

// read reads a page of a side input, of all its values of a window, of those of a key, or of its keys. The token of a
// page is what follows the window in the store's keys.
func (f *frozenViews) read(side int, k *fnpb.StateKey, token []byte) (*fnpb.StateGetResponse, error) {
	s := f.live.sides[side]
	answer := &fnpb.StateGetResponse{}
	var w, key []byte
	switch k := k.GetType().(type) {
	case *fnpb.StateKey_IterableSideInput_:
		w = k.IterableSideInput.GetWindow()
		if s.multimap {
			return nil, errMultimapOnly
		}
	case *fnpb.StateKey_MultimapSideInput_:
		w, key = k.MultimapSideInput.GetWindow(), k.MultimapSideInput.GetKey()
		if !s.multimap {
			return nil, errIterableOnly
		}
	case *fnpb.StateKey_MultimapKeysSideInput_:
		w = k.MultimapKeysSideInput.GetWindow()
		if !s.multimap {
			return nil, errIterableOnly
		}
	default:
		return nil, fmt.Errorf("state of kind %T is not served here", k)
	}
	if f.store == nil {
		return answer, nil
	}
	w, err := f.outer(side, w)
	if err != nil {
		return nil, err
	}
	value, ok, err := f.store.Get(f.live.ofWindow(side, kindShown, w))
	if err != nil || !ok {
		return answer, err
	}
	is, err := cutShown(value)
	if err != nil {
		return nil, err
	}
	prefix := contentKey(side, w, is.generation)
	lo, hi := append(bytes.Clone(prefix), token...), after(prefix)
	if _, ok := k.GetType().(*fnpb.StateKey_MultimapSideInput_); ok {
		ofKey := appendPart(bytes.Clone(prefix), key)
		hi = after(ofKey)
		if len(token) == 0 {
			lo = ofKey
		}
	}
	_, keys := k.GetType().(*fnpb.StateKey_MultimapKeysSideInput_)
	err = f.store.Scan(lo, hi, func(at, value []byte) ([]byte, bool, error) {
		name := at[len(prefix):]
		if len(name) < 8 {
			return nil, false, errViews
		}
		number := int64(binary.BigEndian.Uint64(name[len(name)-8:]))
		if number >= is.n { // of a pane to come
			return nil, s.multimap, nil
		}
		if len(answer.Data) >= pageBytes {
			answer.ContinuationToken = bytes.Clone(name)
			return nil, false, nil
		}
		switch {
		case keys:
			answer.Data = append(answer.Data, partOf(name)...)
			return after(at[:len(at)-8]), true, nil
		case s.multimap:
			answer.Data = append(answer.Data, value...)
		default:
			values, _, err := cutPack(value)
			if err != nil {
				return nil, false, err
			}
			answer.Data = append(answer.Data, values...)
		}
		return nil, true, nil
	})
	return answer, err
}

// partOf is the part that a key begins with; nothing where there is none.
func partOf(b []byte) []byte {
	part, _, _ := cutPart(b)
	return part
}

var errMultimapOnly = errors.New("this side input was declared as a multimap: it is read by key")

// readable tells whether a window of a side input can be read: a pane of it has come that is no part, as of a version that the
// task has been told, or none can come any more that would have brought something. gone says that the window was over and is forgotten.
func (v *Views) readable(side int, w []byte, version uint64, watermark int64) (ready, gone bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.live.sides[side]
	end, err := s.machine.End(w)
	if err != nil {
		return false, false, err
	}
	if end < s.floor {
		return false, true, nil
	}
	empty, err := s.machine.Empty(w)
	if err != nil || watermark > empty || s.parts {
		return err == nil && watermark > empty, false, err
	}
	is, ok, err := v.live.shown(side, w)
	return ok && is.version <= version, false, err
}

// mapped takes note of a main input's window, over once the watermark is later than expiry, and of the end of the window of a
// side input that it reads. Mappings are taken to be monotone: windows that end later read windows that do not end earlier.
// So what ends before the window that a window read which is over will not be read again.
func (v *Views) mapped(side int, expiry, end int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	over := v.live.sides[side].over
	v.live.sides[side].told = untold{}
	if was, known := over[expiry]; known {
		over[expiry] = min(was, end)
	} else if len(over) < maxBatch {
		over[expiry] = end
	}
}

// piled tells how far all tasks' main inputs are, when windows have come of a side input that may be so many because nobody reads
// them.
func (v *Views) piled() (reached int64, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	reached = coder.MaxTimestamp
	for _, at := range v.live.reached {
		reached = min(reached, at)
	}
	if reached == coder.MinTimestamp {
		return reached, false
	}
	for _, s := range v.live.sides {
		if s.news >= pile {
			s.news, ok = 0, true
		}
	}
	return reached, ok
}

// pile is how many windows of a side input become readable before the tasks look whether they will ever be read, which
// takes a question to the SDK.
const pile = 32

// over says that a task's main input has come to a point: windows that expired before are over. When all tasks of the stage
// are there, what nobody will read is removed.
func (v *Views) over(task int, millis int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.live
	if l.reached[task] >= millis {
		return nil
	}
	l.reached[task] = millis
	for _, other := range l.reached {
		millis = min(millis, other)
	}
	for side, s := range l.sides {
		floor := s.floor
		for expiry, end := range s.over {
			if expiry < millis {
				floor = max(floor, end)
				delete(s.over, expiry)
			}
		}
		if floor > s.floor {
			s.floor = floor
			v.floors.Add(1)
			if err := l.collect(side); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect removes the windows of a side input below its floor.
func (l *live) collect(side int) error {
	s := l.sides[side]
	for l.opened() && l.ends.min[side] < s.floor {
		var windows, entries [][]byte
		_, err := l.walkGroup(l.ends, side, s.floor, func(_ int, at int64, rest, _ []byte) (bool, error) {
			w, _, ok := cutPart(rest)
			if !ok {
				return false, errViews
			}
			windows = append(windows, bytes.Clone(w))
			entries = append(entries, append(queueKey(kindEnd, side, at), rest...))
			return len(windows) < maxBatch, nil
		})
		if err != nil {
			return err
		}
		if len(windows) == 0 {
			return nil
		}
		for i, w := range windows {
			l.over.Delete(entries[i])
			if s.custom {
				l.over.Delete(append(l.at(side, kindInside), s.inside(w)...))
			}
			l.over.Delete(l.ofWindow(side, kindGeneration, w))
			is, ok, err := l.shown(side, w)
			if err != nil {
				return err
			}
			l.over.Delete(l.ofWindow(side, kindShown, w))
			if err := l.drop(appendPart(l.at(side, kindContent), w), ok && is.n > maxBatch); err != nil {
				return err
			}
		}
		l.stale = true
		if err := l.commit(); err != nil {
			return err
		}
	}
	return nil
}

// marks are what is kept of a side input at a snapshot: its watermark, its floor, and the version of all.
func (l *live) mark() error {
	for side, s := range l.sides {
		value := coder.AppendTimestamp(coder.AppendTimestamp(nil, s.input), s.floor)
		l.over.Put(markKey(side), binary.AppendUvarint(value, l.version))
	}
	return l.commit()
}

func (l *live) readMarks() error {
	for side, s := range l.sides {
		value, ok, err := l.over.Get(markKey(side))
		if err != nil {
			return err
		}
		if !ok || len(value) <= 2*coder.TimestampSize {
			return errViews
		}
		s.input, s.floor = coder.Timestamp(value), coder.Timestamp(value[coder.TimestampSize:])
		l.version, _ = binary.Uvarint(value[2*coder.TimestampSize:])
	}
	return nil
}

// snapshot writes the side inputs into a directory, if the task is the one that keeps them.
func (v *Views) snapshot(task int, directory string) error {
	if v.live == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.live.owner != task || !v.live.opened() {
		return nil
	}
	if err := v.live.mark(); err != nil {
		return err
	}
	return v.live.store.Checkpoint(filepath.Join(directory, viewsName))
}
