package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/grouping"
	"trestle/internal/shuffle"
)

// panes is the intake of a stage with a GroupByKey at its mouth, of a streaming plan: its groups go out in panes, as
// triggers say. Package grouping decides; values, timers and holds are in the task's store.
//
// What the store has follows from what arrived and from time alone, not from what becomes of the panes in the harness: so
// it is not taken back when a bundle is tried again.
type panes struct {
	keyedStore
	runner  runner
	large   largeGroups // nil when the SDK cannot read iterables from state
	gate    *gate       // nil unless the stage has side inputs
	machine *grouping.Machine
	key     *grouping.Key
	merger  *windowMerger // nil unless an SDK merges the windows

	events, clocks, holds *heads

	now    grouping.Now
	output *int64 // the output watermark that the task has told
	before int64  // the one that had been told at the snapshot that the task began with
	at     owner  // the key that has been loaded, whose effects are carried out
	packs  []pack // of the same, where windows merge
	tails  tails  // of the same, where they do not
	buf    []byte // records that go to the harness next
	taken  int    // bytes of the bundle under way
	drops  drops
	came   arrived // what a block has
	lookup []byte  // a key that is looked up
	woken  []byte  // the entry of a queue that has been taken out of the store, for the window that wakes by it
}

func newPanes(s Spec, r runner) (*panes, error) {
	g := s.Stage.Input.Group
	in := &panes{
		keyedStore: newKeyedStore(s), runner: r, drops: drops{transform: g.Transform},
		now: grouping.Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp, Processing: coder.MinTimestamp},
	}
	in.events, in.clocks, in.holds = in.queue(kindEvent), in.queue(kindClock), in.queue(kindHold)
	var err error
	if in.machine, err = grouping.Compile(g.Windowing, s.coders()); err != nil {
		return nil, fmt.Errorf("windowing of GroupByKey %s: %w", g.Transform, err)
	}
	in.key = in.machine.NewKey()
	if in.machine.Asks() {
		if in.merger, err = newWindowMerger(s); err != nil {
			return nil, err
		}
	}
	if large, ok := r.(largeGroups); ok && g.StateBacked {
		in.large = large
	}
	if err := in.restore(); err != nil {
		return nil, err
	}
	in.before = coder.MinTimestamp
	if err := in.marked(&in.now.Input, &in.before); err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

func (p *panes) process(ctx context.Context, _ Delivery, block []byte) error {
	defer p.came.reset()
	if err := shuffle.EachEntry(block, func(e shuffle.Entry) error {
		p.came.add(e)
		return nil
	}); err != nil {
		return err
	}
	if err := p.takeUp(ctx, p.came.keys); err != nil {
		return err
	}
	return p.send(ctx)
}

func (p *panes) settle(Attempt, bool) error {
	return errors.New("blocks arrive settled in a streaming plan")
}

// look takes note of the output watermark.
func (p *panes) look() { p.now.Output = max(*p.output, p.before) }

// takeUp has the elements of some keys taken up.
func (p *panes) takeUp(ctx context.Context, keys []ofKey) error {
	if err := p.open(); err != nil {
		return err
	}
	p.look()
	merges, err := p.merges(ctx, keys)
	if err != nil {
		return err
	}
	for i, b := range keys {
		p.own(&p.at, b.key)
		if err := p.load(p.came.windowsOf(b)); err != nil {
			return err
		}
		var answer []grouping.Merge
		if merges != nil {
			answer = merges[i]
		}
		effects, err := p.key.Elements(p.now, b.elements, answer)
		if err != nil {
			return err
		}
		if err := p.carryOut(ctx, b.values, effects); err != nil {
			return err
		}
	}
	return nil
}

// merges asks the SDK what becomes of the windows of keys, if it has to be asked.
func (p *panes) merges(ctx context.Context, keys []ofKey) ([][]grouping.Merge, error) {
	if p.merger == nil {
		return nil, nil
	}
	answers := make([][]grouping.Merge, len(keys))
	var asked []unmerged
	var of []int
	for i, b := range keys {
		p.own(&p.at, b.key)
		if err := p.load(nil); err != nil {
			return nil, err
		}
		windows, err := p.key.Unmerged(p.now, b.elements)
		if err != nil {
			return nil, err
		}
		if len(windows) == 0 {
			continue
		}
		question := unmerged{}
		for _, w := range windows {
			question.windows = append(question.windows, unmergedWindow{window: bytes.Clone(w)})
		}
		slices.SortFunc(question.windows, func(a, b unmergedWindow) int { return bytes.Compare(a.window, b.window) })
		asked, of = append(asked, question), append(of, i)
	}
	if len(asked) == 0 {
		return answers, nil
	}
	if err := p.merger.merge(ctx, asked); err != nil {
		return nil, err
	}
	for n, question := range asked {
		var merges []grouping.Merge
		for _, w := range question.windows {
			i := slices.IndexFunc(merges, func(m grouping.Merge) bool { return bytes.Equal(m.Into, w.into) })
			if i < 0 {
				i = len(merges)
				merges = append(merges, grouping.Merge{Into: w.into})
			}
			merges[i].From = append(merges[i].From, w.window)
		}
		answers[of[n]] = merges
	}
	return answers, nil
}

// load loads windows of the key, or all that it has where windows merge.
func (p *panes) load(windows [][]byte) error {
	p.key.Reset()
	prefix := p.at.entry(kindWindow)
	if p.machine.Merging() {
		return p.over.Scan(prefix, after(prefix), func(k, state []byte) (bool, error) {
			window, _, ok := cutPart(k[len(prefix):])
			state, _, whole := cutPart(state)
			if !ok || !whole {
				return false, errWindow
			}
			return true, p.key.Load(window, state)
		})
	}
	p.tails.reset()
	slices.SortFunc(windows, bytes.Compare)
	for i, w := range windows {
		if i > 0 && bytes.Equal(windows[i-1], w) {
			continue
		}
		t := p.tails.add(w)
		p.lookup = appendPart(append(p.lookup[:0], prefix...), w)
		entry, ok, err := p.over.Get(p.lookup)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		state, values, ok := cutPart(entry)
		if !ok {
			return errWindow
		}
		if err := errors.Join(p.key.Load(w, state), t.read(values)); err != nil {
			return err
		}
	}
	return nil
}

var errWindow = errors.New("a window in the store is cut short")

// carryOut carries effects on the key out.
func (p *panes) carryOut(ctx context.Context, values [][]byte, effects []grouping.Effect) error {
	forgot := false
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case grouping.Append:
			if err := p.append(e, values[e.Element]); err != nil {
				return err
			}
		case grouping.Move:
			p.unpack()
			if err := p.move(e); err != nil {
				return err
			}
		case grouping.Emit:
			p.unpack()
			if err := p.emit(ctx, e); err != nil {
				return err
			}
		case grouping.Clear:
			p.unpack()
			if err := p.clear(e); err != nil {
				return err
			}
		case grouping.Hold:
			p.reset(p.holds, e)
		case grouping.EventTimer:
			p.reset(p.events, e)
		case grouping.ProcessingTimer:
			p.reset(p.clocks, e)
		case grouping.Save:
			if err := p.save(e); err != nil {
				return err
			}
		case grouping.Forget:
			p.over.Delete(p.window(e.Window))
			forgot = true
		case grouping.Drop:
			if e.Dropped == grouping.Late {
				p.drops.late++
			} else {
				p.drops.closed++
			}
		}
	}
	p.unpack()
	if forgot && isLong(p.at.name) {
		return p.release(p.at.group, p.at.name, kindWindow)
	}
	return nil
}

// pack is values that came one after the other into a bag: they are one entry of the store.
type pack struct {
	bag   []byte
	at, n int64
	bytes []byte
}

const (
	// packBytes is how large a pack may grow: much larger ones make the store's blocks uneven.
	packBytes = 64 << 10
	// maxPacks is how many bags of a key are looked through for each value: an element has as many as it has windows.
	maxPacks = 32
	// smallPack is up to what size a pack is copied for values that come later.
	smallPack = 1 << 10
)

// append adds a value to its bag, which reaches the overlay with unpack, or with the window's state.
func (p *panes) append(e *grouping.Effect, value []byte) error {
	if !p.machine.Merging() {
		return p.appendTail(e, value)
	}
	for i := range p.packs {
		if k := &p.packs[i]; k.at+k.n == e.At && bytes.Equal(k.bag, e.Bag) && len(k.bytes) < packBytes {
			k.bytes = append(k.bytes, value...)
			k.n++
			return nil
		}
	}
	if len(p.packs) == maxPacks {
		p.unpack()
	}
	p.packs = append(p.packs, pack{bag: e.Bag, at: e.At, n: 1, bytes: bytes.Clone(value)})
	return nil
}

// unpack puts what append has gathered into the overlay.
func (p *panes) unpack() {
	for i := range p.packs {
		k := &p.packs[i]
		if p.extend(k) {
			continue
		}
		p.over.Insert(p.value(k.bag, k.at), appendPack(nil, k.n, k.bytes))
	}
	clear(p.packs)
	p.packs = p.packs[:0]
}

// extend appends a pack to the one before it, if that is small and has not gone to a file: a group that gets its values one by
// one would else have an entry for each.
func (p *panes) extend(k *pack) bool {
	// A bag's number sorts before all ones, which none is.
	p.lookup = appendPart(appendEntry(p.lookup[:0], kindValue, p.at.group, p.at.name), k.bag)
	bag := len(p.lookup)
	p.lookup = binary.BigEndian.AppendUint64(p.lookup, math.MaxUint64)
	last, entry, ok := p.over.Last(p.lookup[:bag], p.lookup)
	if !ok || len(entry) > smallPack || len(last) != bag+8 {
		return false
	}
	at := int64(binary.BigEndian.Uint64(last[bag:]))
	values, n, err := cutPack(entry)
	if err != nil || at+n != k.at {
		return false
	}
	both := make([]byte, 0, binary.MaxVarintLen32+len(values)+len(k.bytes))
	p.over.Put(last, append(appendPack(both, n+k.n, values), k.bytes...))
	return true
}

// appendPack appends an entry of the store: values, and before them how many they are.
func appendPack(b []byte, n int64, values []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(n)), values...)
}

// cutPack takes an entry of the store apart: its values, and how many they are.
func cutPack(entry []byte) (values []byte, n int64, err error) {
	count, size := binary.Uvarint(entry)
	if size <= 0 || count == 0 || count > math.MaxInt32 {
		return nil, 0, errors.New("values in the store are cut short")
	}
	return entry[size:], int64(count), nil
}

func (p *panes) window(window []byte) []byte { return appendPart(p.at.entry(kindWindow), window) }

func (p *panes) bag(bag []byte) []byte { return appendPart(p.at.entry(kindValue), bag) }

func (p *panes) value(bag []byte, at int64) []byte {
	return binary.BigEndian.AppendUint64(p.bag(bag), uint64(at))
}

// reset moves the entry of a window in a queue.
func (p *panes) reset(h *heads, e *grouping.Effect) {
	entry := func(at int64) []byte {
		b := make([]byte, 0, queueBytes+len(p.at.name)+binary.MaxVarintLen32+len(e.Window))
		b = coder.AppendTimestamp(begin(b, h.kind, p.at.group), at)
		return appendPart(append(b, p.at.name...), e.Window)
	}
	if e.Was != grouping.None {
		if was := entry(e.Was); !bytes.Equal(was, p.woken) {
			p.over.Delete(was)
		} else {
			p.woken = nil
		}
	}
	if e.Is != grouping.None {
		p.over.Insert(entry(e.Is), nil)
		h.put(p.at.group, e.Is)
	}
}

// move moves the values of a bag to the end of another.
func (p *panes) move(e *grouping.Effect) error {
	from := p.bag(e.From)
	to := p.bag(e.Bag)
	at := e.At
	var moved [][]byte
	if err := p.over.Scan(from, after(from), func(_, entry []byte) (bool, error) {
		moved = append(moved, bytes.Clone(entry))
		return true, nil
	}); err != nil {
		return err
	}
	if err := p.over.DeleteRange(from, after(from)); err != nil {
		return err
	}
	for _, entry := range moved {
		_, n, err := cutPack(entry)
		if err != nil {
			return err
		}
		p.over.Insert(binary.BigEndian.AppendUint64(slices.Clone(to), uint64(at)), entry)
		at += n
	}
	if at != e.At+e.N {
		return fmt.Errorf("a group in the store has %d values, where there should be %d", at-e.At, e.N)
	}
	return nil
}

// emit makes the record of a pane.
func (p *panes) emit(ctx context.Context, e *grouping.Effect) error {
	g := groupRecord{large: p.large}
	if p.gate != nil && p.large != nil {
		// What has to wait is whole: the values of a large group can be read until its bundle ends.
		open, err := p.gate.opens(ctx, e.Window)
		if err != nil {
			return err
		}
		if !open {
			g.large = nil
		}
	}
	var err error
	p.buf = coder.AppendHeader(p.buf, e.Timestamp, e.Window, e.Pane)
	if p.at.known {
		p.buf = append(p.buf, p.at.key...)
	} else if p.buf, err = p.appendKey(p.buf, p.at.group, p.at.name); err != nil {
		return err
	}
	g.begin(p.buf)
	if err := p.gather(&g, e); err != nil {
		return err
	}
	if p.buf, err = g.end(); err != nil {
		return err
	}
	p.taken += g.held
	if len(p.buf) < paneBytes && p.taken < p.spec.BundleBytes {
		return nil
	}
	return p.pass(ctx)
}

// paneBytes is about how much goes to the harness at a time: it begins with the first of many panes that are due at once while
// the others are made.
const paneBytes = 64 << 10

// send commits what there is to commit, and passes gathered records to the harness.
func (p *panes) send(ctx context.Context) error {
	if p.size() >= sendBytes {
		if err := p.over.Commit(); err != nil {
			return err
		}
	}
	return p.pass(ctx)
}

// pass passes gathered records to the harness, and ends the bundle when it has as much as it may. A window's effects may be under way:
// nothing is committed, lest its values are in the files and its state is not, which says that they are.
func (p *panes) pass(ctx context.Context) error {
	if len(p.buf) == 0 {
		return nil
	}
	if err := p.runner.process(ctx, p.buf); err != nil {
		return err
	}
	p.taken += len(p.buf)
	p.buf = p.buf[:0]
	if p.taken < p.spec.BundleBytes {
		return nil
	}
	p.taken = 0
	return p.runner.cut(ctx)
}

func (p *panes) end(context.Context) error { return nil }

// advance wakes the windows whose time has come.
func (p *panes) advance(ctx context.Context, t times) error {
	p.now.Input = max(p.now.Input, t.input)
	if !t.now.IsZero() {
		p.now.Processing = t.now.UnixMilli()
	}
	p.look()
	for {
		did, err := p.wakeDue(ctx, p.events, p.now.Input)
		if err == nil && !did {
			did, err = p.wakeDue(ctx, p.clocks, p.now.Processing)
		}
		if err != nil {
			return err
		}
		if !did {
			return p.send(ctx)
		}
	}
}

// wakeDue wakes the windows of a queue whose time is not later than the given one, as many as are worth a step.
func (p *panes) wakeDue(ctx context.Context, h *heads, until int64) (did bool, err error) {
	if !h.any(until+1) || !p.opened() {
		return false, nil
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	var due []expiredWindow
	size := 0
	err = p.walk(h, until+1, func(group int, at int64, rest, _ []byte) (bool, error) {
		w, err := cutWindow(h.kind, group, at, rest)
		if err != nil {
			return false, err
		}
		due = append(due, w)
		size += len(rest)
		return size < sendBytes, nil
	})
	if err != nil {
		return false, err
	}
	for _, w := range due {
		p.at.found(w.group, w.name)
		if err := p.load([][]byte{w.window}); err != nil {
			return false, err
		}
		effects, err := p.key.Wake(p.now, w.window)
		if err != nil {
			return false, err
		}
		// It has come, whether or not the window still knows of it.
		p.over.Delete(w.entry)
		p.woken = w.entry
		err = p.carryOut(ctx, nil, effects)
		p.woken = nil
		if err != nil {
			return false, err
		}
		if len(p.buf) < paneBytes && p.size() < sendBytes {
			continue // a message for each pane would cost more than what is in it
		}
		if err := p.send(ctx); err != nil {
			return false, err
		}
	}
	return len(due) > 0, nil
}

func (p *panes) dropped() *drops { return &p.drops }

func (p *panes) hold() (int64, error) { return p.head(p.holds) }

func (p *panes) wake() (time.Time, error) { return p.wakeAt(p.clocks) }

func (p *panes) snapshot(directory string) error {
	if p.over != nil {
		if err := p.over.Commit(); err != nil {
			return err
		}
	}
	p.look()
	if err := p.mark(p.now.Input, p.now.Output); err != nil {
		return err
	}
	return p.keyedStore.snapshot(directory)
}
