package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/grouping"
	"trestle/internal/beam/urn"
	"trestle/internal/plan"
)

// live is the side inputs of a stage of a streaming plan. Each is grouped by window alone, as the windowing strategy of its
// collection says, and each pane takes the place of the one before: what can be read of a window is its latest pane. Of panes that
// are parts (grouping.Machine.Parts) all are read, from the end of the window on. All of it
// lies in a store of its own, whose key groups are the side inputs, and which one of the stage's tasks fills: the owner.
// Views.mu guards it.
type live struct {
	keyedStore
	sides                []*liveSide
	events, clocks, ends *heads
	owner                int   // the task's index; -1 before anything has come
	clock                int64 // processing time, in milliseconds
	// version grows when a window becomes readable; changes when one that may have been read reads differently. fresh says
	// that one did since the last commit, stale that the latest frozen views are not the latest any more.
	version, changes uint64
	fresh, stale     bool
	drops            [][]byte // prefixes of contents that nobody reads any more, to be removed once what is staged is committed
	current          *frozenViews
	reached          map[int]int64 // by task: its main input's windows that expired before are over
}

// liveSide is one side input.
type liveSide struct {
	in       plan.SideInput
	coder    *coder.Windowed
	machine  *grouping.Machine
	key      *grouping.Key
	multimap bool
	parts    bool  // a window's panes are read together: see live
	custom   bool  // windows are looked up by what is inside of them, too: see customView
	prefix   bool  // of custom windows: what is inside has a length prefix
	input    int64 // its watermark
	// floor is the least end of a window that may still be read; over has from when on it rises: see mapped.
	floor int64
	over  map[int64]int64
	fill  map[string]filled // of the windows of the batch under way
	packs []sidePack
	news  int // windows that have become readable since the gates were last asked to look ahead
	told  untold
}

// filled is where a window's next values go: to a generation, behind base values of it. Generations begin with base 0 but
// where panes are parts, whose values go behind those of the panes before.
type filled struct {
	generation uint64
	base       int64
}

// shown is what can be read of a window: the first n values of a generation. A generation ends when a pane takes its values
// along (discarding, unless panes are parts); until then values are only added.
type shown struct {
	version, generation uint64
	n                   int64
}

// Kinds of entries of live's store, besides kindEvent, kindClock, kindWindow and kindMark.
const (
	kindShown      kind = 'r' // window → shown
	kindGeneration kind = 'g' // window → filled
	kindContent    kind = 'c' // window, generation, then number → values, or key, number → value
	kindEnd        kind = 'x' // end of a window, window: those that can be read
	kindInside     kind = 'i' // what is inside of a custom window → window
)

// viewsName is the store's folder in its owner's, and in a snapshot.
const viewsName = "views"

func newLive(p *plan.Plan, s *plan.Stage) (*live, error) {
	l := &live{owner: -1, clock: coder.MinTimestamp, reached: map[int]int64{}}
	for _, in := range s.SideInputs {
		side, err := newLiveSide(p, in)
		if err != nil {
			return nil, fmt.Errorf("side input %s of transform %s: %w", in.Tag, in.Transform, err)
		}
		l.sides = append(l.sides, side)
	}
	l.keyedStore = newKeyedStore(Spec{Parallelism: 1, KeyGroups: len(l.sides)})
	l.shared = true
	l.folder = viewsName
	l.events, l.clocks, l.ends = l.queue(kindEvent), l.queue(kindClock), l.queue(kindEnd)
	return l, nil
}

func newLiveSide(p *plan.Plan, in plan.SideInput) (*liveSide, error) {
	s := &liveSide{in: in, input: coder.MinTimestamp, floor: coder.MinTimestamp, over: map[int64]int64{}, fill: map[string]filled{}}
	var err error
	if s.coder, err = coder.CompileWindowed(p.Coders(), in.Coder); err != nil {
		return nil, err
	}
	if s.machine, err = grouping.Compile(in.Windowing, p.Coders()); err != nil {
		return nil, err
	}
	s.key, s.parts = s.machine.NewKey(), s.machine.Parts()
	switch in.AccessPattern {
	case urn.SideInputIterable:
	case urn.SideInputMultimap:
		s.multimap = true
	default:
		return nil, fmt.Errorf("access pattern %q", in.AccessPattern)
	}
	if w := s.coder.Window(); w.URN() == urn.CoderCustomWindow {
		s.custom = true
		inner := p.Coders()[p.Coders()[w.ID()].GetComponentCoderIds()[0]]
		s.prefix = inner.GetSpec().GetUrn() == urn.CoderLengthPrefix
	}
	return s, nil
}

// attach takes note of a task of the stage. What it begins with of the side inputs is taken over, if it has them.
func (l *live) attach(s Spec) error {
	l.reached[s.Index] = coder.MinTimestamp
	if l.spec.State.Cache == nil {
		l.spec.State, l.spec.Log = s.State, s.Log
	}
	if len(s.Restore) == 0 || l.opened() {
		return nil
	}
	l.spec.Restore = nil
	for _, from := range s.unkeyed() {
		l.spec.Restore = append(l.spec.Restore, Restore{Directory: from, Parallelism: 1})
	}
	if err := l.restore(); err != nil || !l.opened() {
		return err
	}
	l.owner = s.Index
	for _, h := range l.queues {
		*h = *newHeads(h.kind, len(l.sides), false)
	}
	return l.readMarks()
}

// at begins a key of a side input.
func (l *live) at(side int, kd kind) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 64), uint16(side)), byte(kd))
}

func (l *live) ofWindow(side int, kd kind, w []byte) []byte { return appendPart(l.at(side, kd), w) }

func (l *live) contents(side int, w []byte, generation uint64) []byte {
	return contentKey(side, w, generation)
}

func contentKey(side int, w []byte, generation uint64) []byte {
	b := append(binary.BigEndian.AppendUint16(make([]byte, 0, 64), uint16(side)), byte(kindContent))
	return binary.BigEndian.AppendUint64(appendPart(b, w), generation)
}

// batch is elements of a side input that are taken up together.
type batch struct {
	elements []grouping.Element
	values   [][]byte
	keys     []int // of a multimap: how many bytes of the value are the key
}

// maxBatch bounds the effects of a batch.
const maxBatch = 4096

// add takes up records.
func (l *live) add(side int, records []byte) error {
	s := l.sides[side]
	if err := l.open(); err != nil {
		return err
	}
	var b batch
	for len(records) > 0 {
		r, err := s.cut(records)
		if err != nil {
			return fmt.Errorf("side input: %w", err)
		}
		windows := r.Header.Windows(records)
		for range r.Header.Count {
			n, err := s.coder.Window().Skip(windows)
			if err != nil {
				return fmt.Errorf("side input: window: %w", err)
			}
			b.elements = append(b.elements, grouping.Element{Window: windows[:n], Timestamp: r.Header.Timestamp})
			b.values = append(b.values, records[r.Header.Size:r.Size])
			b.keys = append(b.keys, r.KeyEnd-r.Header.Size)
			windows = windows[n:]
		}
		records = records[r.Size:]
		if len(b.elements) >= maxBatch {
			if err := l.takeUp(side, &b); err != nil {
				return err
			}
			b.elements, b.values, b.keys = b.elements[:0], b.values[:0], b.keys[:0]
		}
	}
	if err := l.takeUp(side, &b); err != nil {
		return err
	}
	return l.commit()
}

// cut finds the parts of the record that stands first.
func (s *liveSide) cut(records []byte) (r coder.KV, err error) {
	if s.multimap {
		err = s.coder.CutKV(records, &r)
		return r, err
	}
	r.Header, r.Size, err = s.coder.Record(records)
	r.KeyEnd = r.Header.Size
	return r, err
}

func (l *live) nowOf(s *liveSide) grouping.Now {
	return grouping.Now{Input: s.input, Output: s.input, Processing: l.clock}
}

func (l *live) takeUp(side int, b *batch) error {
	s := l.sides[side]
	s.key.Reset()
	seen := map[string]bool{}
	for _, e := range b.elements {
		if seen[string(e.Window)] {
			continue
		}
		seen[string(e.Window)] = true
		if err := l.load(side, e.Window); err != nil {
			return err
		}
	}
	effects, err := s.key.Elements(l.nowOf(s), b.elements, nil)
	if err != nil {
		return err
	}
	if err := l.carryOut(side, b, effects); err != nil {
		return err
	}
	if l.over.Size() < sendBytes {
		return nil
	}
	return l.commit()
}

func (l *live) load(side int, w []byte) error {
	state, ok, err := l.over.Get(l.ofWindow(side, kindWindow, w))
	if err != nil || !ok {
		return err
	}
	return l.sides[side].key.Load(w, state)
}

func (l *live) carryOut(side int, b *batch, effects []grouping.Effect) error {
	s := l.sides[side]
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case grouping.Append:
			if err := l.append(side, e, b); err != nil {
				return err
			}
		case grouping.Emit:
			l.unpack(side)
			if err := l.show(side, e.Window, e.N); err != nil {
				return err
			}
		case grouping.Clear:
			l.unpack(side)
			if err := l.next(side, e.Window); err != nil {
				return err
			}
		case grouping.EventTimer:
			l.reset(l.events, side, e)
		case grouping.ProcessingTimer:
			l.reset(l.clocks, side, e)
		case grouping.Save:
			l.over.Put(l.ofWindow(side, kindWindow, e.Window), bytes.Clone(e.State))
		case grouping.Forget:
			l.over.Delete(l.ofWindow(side, kindWindow, e.Window))
		case grouping.Drop:
			l.spec.Log.Debug("an element of a side input was dropped: its window is over", "transform", s.in.Transform, "tag", s.in.Tag)
		}
	}
	l.unpack(side)
	clear(s.fill)
	return nil
}

// reset moves the entry of a window in a queue.
func (l *live) reset(h *heads, side int, e *grouping.Effect) {
	entry := func(at int64) []byte { return appendPart(coder.AppendTimestamp(l.at(side, h.kind), at), e.Window) }
	if e.Was != grouping.None {
		l.over.Delete(entry(e.Was))
	}
	if e.Is != grouping.None {
		l.over.Put(entry(e.Is), nil)
		h.put(side, e.Is)
	}
}

// filled is where values of a window go.
func (l *live) filled(side int, w []byte) (f filled, err error) {
	s := l.sides[side]
	if f, ok := s.fill[string(w)]; ok {
		return f, nil
	}
	value, ok, err := l.over.Get(l.ofWindow(side, kindGeneration, w))
	if err != nil {
		return f, err
	}
	if ok {
		generation, n := binary.Uvarint(value)
		if n <= 0 {
			return f, errViews
		}
		f.generation = generation
		if len(value) > n {
			base, m := binary.Uvarint(value[n:])
			if m <= 0 {
				return f, errViews
			}
			f.base = int64(base)
		}
	}
	s.fill[string(w)] = f
	return f, nil
}

var errViews = errors.New("what the store has of a side input is cut short")

// next begins another generation of a window; or another part, behind those that panes have brought.
func (l *live) next(side int, w []byte) error {
	s := l.sides[side]
	f, err := l.filled(side, w)
	if err != nil {
		return err
	}
	is, ok, err := l.shown(side, w)
	if err != nil {
		return err
	}
	if s.parts {
		if !ok || is.n == f.base {
			return nil
		}
		s.fill[string(w)] = filled{is.generation, is.n}
		l.over.Put(l.ofWindow(side, kindGeneration, w), binary.AppendUvarint(binary.AppendUvarint(nil, is.generation), uint64(is.n)))
		return nil
	}
	s.fill[string(w)] = filled{generation: f.generation + 1}
	l.over.Put(l.ofWindow(side, kindGeneration, w), binary.AppendUvarint(nil, f.generation+1))
	if !ok || is.generation != f.generation {
		return l.drop(l.contents(side, w, f.generation), true)
	}
	return nil
}

// drop has contents removed; large ones at once, which costs later reads something.
func (l *live) drop(prefix []byte, large bool) error {
	if !large {
		return l.over.DeleteRange(prefix, after(prefix))
	}
	l.drops = append(l.drops, prefix)
	return nil
}

// sidePack is values of an iterable that came one after the other into a window.
type sidePack struct {
	prefix []byte
	window string
	at, n  int64
	bytes  []byte
}

// append adds a value to its window.
func (l *live) append(side int, e *grouping.Effect, b *batch) error {
	s := l.sides[side]
	if end, err := s.machine.End(e.Window); err != nil || end < s.floor {
		return err // nobody reads it any more
	}
	f, err := l.filled(side, e.Window)
	if err != nil {
		return err
	}
	at := f.base + e.At
	value := b.values[e.Element]
	if s.custom {
		l.over.Put(append(l.at(side, kindInside), s.inside(e.Window)...), bytes.Clone(e.Window))
	}
	if s.multimap {
		key := appendPart(l.contents(side, e.Window, f.generation), value[:b.keys[e.Element]])
		l.over.Put(binary.BigEndian.AppendUint64(key, uint64(at)), bytes.Clone(value[b.keys[e.Element]:]))
		return nil
	}
	for i := range s.packs {
		if k := &s.packs[i]; k.window == string(e.Window) && k.at+k.n == at && len(k.bytes) < packBytes {
			k.bytes = append(k.bytes, value...)
			k.n++
			return nil
		}
	}
	if len(s.packs) == maxPacks {
		l.unpack(side)
	}
	s.packs = append(s.packs, sidePack{
		prefix: l.contents(side, e.Window, f.generation), window: string(e.Window), at: at, n: 1, bytes: bytes.Clone(value),
	})
	return nil
}

// unpack stages what append has gathered.
func (l *live) unpack(side int) {
	s := l.sides[side]
	for i := range s.packs {
		k := &s.packs[i]
		l.over.Put(binary.BigEndian.AppendUint64(k.prefix, uint64(k.at)), appendPack(nil, k.n, k.bytes))
	}
	clear(s.packs)
	s.packs = s.packs[:0]
}

// inside is what stands in a custom window behind its end.
func (s *liveSide) inside(w []byte) []byte {
	inner := w[min(coder.TimestampSize, len(w)):]
	if s.prefix {
		if _, n := binary.Uvarint(inner); n > 0 {
			inner = inner[n:]
		}
	}
	return inner
}

func cutShown(b []byte) (is shown, err error) {
	version, n := binary.Uvarint(b)
	generation, m := binary.Uvarint(b[max(n, 0):])
	if n <= 0 || m <= 0 {
		return is, errViews
	}
	count, k := binary.Uvarint(b[n+m:])
	if k <= 0 {
		return is, errViews
	}
	return shown{version, generation, int64(count)}, nil
}

func (l *live) shown(side int, w []byte) (is shown, ok bool, err error) {
	if !l.opened() {
		return is, false, nil
	}
	value, ok, err := l.over.Get(l.ofWindow(side, kindShown, w))
	if err != nil || !ok {
		return is, false, err
	}
	is, err = cutShown(value)
	return is, err == nil, err
}

// show makes the first n values of a window's generation what can be read of it. A pane that brings nothing changes nothing
// of what another has brought (docs/decisions/0023-panes-of-side-inputs.md).
func (l *live) show(side int, w []byte, n int64) error {
	s := l.sides[side]
	end, err := s.machine.End(w)
	if err != nil || end < s.floor {
		return err
	}
	f, err := l.filled(side, w)
	if err != nil {
		return err
	}
	was, known, err := l.shown(side, w)
	if err != nil || known && n == 0 {
		return err
	}
	is := shown{l.version + 1, f.generation, f.base + n}
	if known {
		is.version = was.version
		l.changes++
		if was.generation != f.generation {
			if err := l.drop(l.contents(side, w, was.generation), was.n > maxBatch); err != nil {
				return err
			}
		}
	} else {
		l.fresh = true
		s.news++
		s.told.windows++
		empty, err := s.machine.Empty(w)
		if err != nil {
			return err
		}
		if s.input > empty {
			l.changes++ // it may have been read as empty
		}
		l.over.Put(appendPart(coder.AppendTimestamp(l.at(side, kindEnd), end), w), nil)
		l.ends.put(side, end)
	}
	l.stale = true
	value := binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, is.version), is.generation), uint64(is.n))
	l.over.Put(l.ofWindow(side, kindShown, w), value)
	return nil
}

// commit makes readable what is staged.
func (l *live) commit() error {
	if !l.opened() {
		return nil
	}
	if err := l.over.Commit(); err != nil {
		return err
	}
	for _, prefix := range l.drops {
		if err := l.store.DropRange(prefix, after(prefix)); err != nil {
			return err
		}
	}
	l.drops = nil
	if l.fresh {
		l.version++
		l.fresh = false
	}
	return nil
}

// watermark has what is due by a side input's watermark done.
func (l *live) watermark(side int, millis int64) error {
	s := l.sides[side]
	s.input = max(s.input, millis)
	return l.wakeDue(l.events, side, s.input)
}

// tick has what is due by the clock done.
func (l *live) tick() error {
	for side := range l.sides {
		if err := l.wakeDue(l.clocks, side, l.clock); err != nil {
			return err
		}
	}
	return nil
}

// wakeDue wakes the windows of a side input whose time is not later than the given one.
func (l *live) wakeDue(h *heads, side int, until int64) error {
	if !l.opened() {
		return nil
	}
	for h.min[side] <= until {
		var windows, entries [][]byte
		_, err := l.walkGroup(h, side, until+1, func(_ int, at int64, rest, _ []byte) (bool, error) {
			w, _, ok := cutPart(rest)
			if !ok {
				return false, errViews
			}
			windows = append(windows, bytes.Clone(w))
			entries = append(entries, append(queueKey(h.kind, side, at), rest...))
			return len(windows) < maxBatch, nil
		})
		if err != nil {
			return err
		}
		if len(windows) == 0 {
			return nil
		}
		s := l.sides[side]
		for i, w := range windows {
			s.key.Reset()
			if err := l.load(side, w); err != nil {
				return err
			}
			effects, err := s.key.Wake(l.nowOf(s), w)
			if err != nil {
				return err
			}
			l.over.Delete(entries[i])
			if err := l.carryOut(side, &batch{}, effects); err != nil {
				return err
			}
		}
		if err := l.commit(); err != nil {
			return err
		}
	}
	return nil
}
