package stage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"trestle/internal/beam/coder"
	"trestle/internal/plan"
)

// timer is one timer of one key and window. Its bytes are the SDK's encodings.
type timer struct {
	family           int // index in plan.State.Timers
	key, window, tag []byte
	clear            bool
	fires, holds     int64
	due              int64 // when it fires by the task's time; fires is what the SDK knows
	pane             []byte
	group            int    // the key group
	name             []byte // of one that was found in the store; nil of others
}

// appendValue appends what the store has of a timer.
func (t *timer) appendValue(b []byte) []byte {
	b = coder.AppendTimestamp(b, t.fires)
	b = coder.AppendTimestamp(coder.AppendTimestamp(b, t.holds), t.due)
	return append(b, t.pane...)
}

// timerValue is how many bytes stand before the pane in a timer's value.
const timerValue = 3 * coder.TimestampSize

// setValue takes the times and the pane from a value.
func (t *timer) setValue(b []byte) error {
	if len(b) < timerValue {
		return errors.New("a timer in the store is cut short")
	}
	t.fires, t.holds, t.due = coder.Timestamp(b), coder.Timestamp(b[coder.TimestampSize:]), coder.Timestamp(b[2*coder.TimestampSize:])
	t.pane = b[timerValue:]
	return nil
}

// timerCoder reads and writes the timers of a stage's families: beam:coder:timer:v1 in beam_runner_api.proto.
type timerCoder struct{ key, window *coder.Coder }

func newTimerCoder(p *plan.Plan, s *plan.State) (c timerCoder, err error) {
	if len(s.Timers) == 0 {
		return c, nil
	}
	ids := p.Coders()[s.Timers[0].Coder].GetComponentCoderIds() // the same for all families
	if c.key, err = coder.Compile(p.Coders(), ids[0]); err != nil {
		return c, fmt.Errorf("timers of %s: %w", s.Transform, err)
	}
	if c.window, err = coder.Compile(p.Coders(), ids[1]); err != nil {
		return c, fmt.Errorf("timers of %s: %w", s.Transform, err)
	}
	return c, nil
}

var errTimer = errors.New("the SDK sent timers that are no encoding of their coder")

// cut calls f with each timer, in each of its windows. Its bytes are those of b.
func (c timerCoder) cut(b []byte, f func(timer) error) error {
	for len(b) > 0 {
		var t timer
		size, err := c.key.Skip(b)
		if err != nil {
			return fmt.Errorf("%w: key: %w", errTimer, err)
		}
		t.key, b = b[:size], b[size:]
		var ok bool
		if t.tag, b, ok = cutPart(b); !ok || len(b) < 4 {
			return errTimer
		}
		count := binary.BigEndian.Uint32(b)
		windows := b[4:]
		b = windows
		if count > 1 && uint64(count) > uint64(len(b)) {
			return errTimer
		}
		for range count {
			if size, err = c.window.Skip(b); err != nil {
				return fmt.Errorf("%w: window: %w", errTimer, err)
			}
			b = b[size:]
		}
		windows = windows[:len(windows)-len(b)]
		if len(b) == 0 || b[0] > 1 {
			return errTimer
		}
		t.clear, b = b[0] == 1, b[1:]
		if !t.clear {
			if len(b) < 2*coder.TimestampSize+1 {
				return errTimer
			}
			t.fires, t.holds = coder.Timestamp(b), coder.Timestamp(b[coder.TimestampSize:])
			b = b[2*coder.TimestampSize:]
			_, size, err := coder.Pane(b)
			if err != nil {
				return fmt.Errorf("%w: %w", errTimer, err)
			}
			t.pane, b = b[:size], b[size:]
		}
		for range count {
			size, _ := c.window.Skip(windows)
			t.window, windows = windows[:size], windows[size:]
			if err := f(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// append appends a timer's encoding.
func (t *timer) append(b []byte) []byte {
	b = appendPart(append(b, t.key...), t.tag)
	b = append(append(b, 0, 0, 0, 1), t.window...)
	b = append(b, 0)
	b = coder.AppendTimestamp(coder.AppendTimestamp(b, t.fires), t.holds)
	return append(b, t.pane...)
}

// appendName appends what a timer is known by: the timers of a key and window have a common beginning.
func (k *kept) appendName(b []byte, t *timer) []byte {
	b = appendPart(k.appendKeyName(b, t.key), t.window)
	family := k.state.Timers[t.family].Name
	return appendPart(append(binary.AppendUvarint(b, uint64(len(family))), family...), t.tag)
}

var errTimerName = errors.New("a timer's name in the store is cut short")

// cutName is the reverse of appendName. A long key is not known by it. A family that the transform has no longer is an error.
func (k *kept) cutName(b []byte) (t timer, err error) {
	of, b, ok := cutKeyName(b)
	if !ok {
		return t, errTimerName
	}
	if !isLong(of) {
		t.key, _, _ = cutPart(of)
	}
	var family []byte
	for _, part := range []*[]byte{&t.window, &family, &t.tag} {
		if *part, b, ok = cutPart(b); !ok {
			return t, errTimerName
		}
	}
	for i, f := range k.state.Timers {
		if f.Name == string(family) {
			t.family = i
			return t, nil
		}
	}
	return t, fmt.Errorf("the store has a timer of family %q, which transform %s does not have", family, k.state.Transform)
}

func (k *kept) queueOf(family int) *heads {
	if k.state.Timers[family].ProcessingTime {
		return k.clocks
	}
	return k.events
}

// timerKeys are the keys of the store under which a timer is: by its name, in its queue, and in that of holds, which is nil if it is not
// in there. They are in one piece of memory.
func (k *kept) timerKeys(t *timer, name []byte, due, holds int64) (named, queued, hold []byte) {
	apart := k.holdsApart(t.family, due, holds)
	size := 2*(placeBytes+len(name)) + coder.TimestampSize
	if apart {
		size += placeBytes + coder.TimestampSize + len(name)
	}
	b := appendEntry(make([]byte, 0, size), kindTimer, t.group, name)
	named = b[:len(b):len(b)]
	enter := func(kd kind, at int64) []byte {
		from := len(b)
		b = append(append(b, named[:placeBytes-1]...), byte(kd))
		b = append(coder.AppendTimestamp(b, at), name...)
		return b[from:len(b):len(b)]
	}
	queued = enter(k.queueOf(t.family).kind, due)
	if apart {
		hold = enter(kindHold, holds)
	}
	return named, queued, hold
}

// apply sets or clears a timer in the overlay; the one that had its name goes.
func (k *kept) apply(t *timer) error {
	k.named = k.appendName(k.named[:0], t)
	name := k.named
	if err := k.remove(t, name); err != nil || t.clear {
		return err
	}
	named, queued, hold := k.timerKeys(t, name, t.due, t.holds)
	value := t.appendValue(make([]byte, 0, timerValue+len(t.pane)))
	k.over.Insert(named, value)
	k.over.Insert(queued, value)
	k.queueOf(t.family).put(t.group, t.due)
	if hold != nil {
		k.over.Insert(hold, nil)
		k.holds.put(t.group, t.holds)
	}
	if !isLong(name) {
		return nil
	}
	of, _, _ := cutKeyName(name)
	return k.keep(t.group, of, t.key)
}

// remove takes the timer with a name out, if there is one.
func (k *kept) remove(t *timer, name []byte) error {
	k.lookup = appendEntry(k.lookup[:0], kindTimer, t.group, name)
	value, ok, err := k.over.Get(k.lookup)
	if err != nil || !ok {
		return err
	}
	var was timer
	if err := was.setValue(value); err != nil {
		return err
	}
	k.take(t, name, was.due, was.holds)
	return nil
}

// take takes a timer out of which it is known that it is in the store, with these times.
func (k *kept) take(t *timer, name []byte, due, holds int64) {
	named, queued, hold := k.timerKeys(t, name, due, holds)
	k.over.Delete(named)
	k.over.Delete(queued)
	if hold != nil {
		k.over.Delete(hold)
	}
	k.loosen(t.group, name)
}

// holdsApart tells whether a timer is in the queue of holds. One that fires by event time, and puts nothing out with a time before
// that, holds the watermark back by waiting: it fires when the input's watermark has come to it, and the output's is not past
// that.
func (k *kept) holdsApart(family int, due, holds int64) bool {
	return k.held && (k.state.Timers[family].ProcessingTime || holds < due)
}

// due are the timers of a queue that are to fire before a time: of each key the first only, because what it does may
// change the others; and no more than fit into a bundle.
func (k *kept) due(h *heads, before int64) ([]timer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.opened() {
		return nil, nil
	}
	var due []timer
	var long []int // of due, whose keys have to be read
	seen := map[string]bool{}
	size, looked := 0, 0
	err := k.walk(h, before, func(group int, _ int64, rest, value []byte) (bool, error) {
		looked++
		of, _, ok := cutKeyName(rest)
		if !ok {
			return false, errors.New("a timer in the store is cut short")
		}
		if !seen[string(of)] {
			// What there is of it is the store's until the function returns.
			both := append(append(make([]byte, 0, len(rest)+len(value)), rest...), value...)
			t, err := k.cutName(both[:len(rest)])
			if err != nil {
				return false, err
			}
			if err := t.setValue(both[len(rest):]); err != nil {
				return false, err
			}
			t.group, t.name = group, both[:len(rest)]
			if isLong(of) {
				long = append(long, len(due))
			}
			due = append(due, t)
			seen[string(of)] = true
			size += len(rest) + len(value) + keySize(of)
		}
		return size < k.spec.BundleBytes && looked < 4*len(due)+lookahead, nil
	})
	for _, i := range long {
		if err == nil {
			t := &due[i]
			of, _, _ := cutKeyName(t.name)
			t.key, err = k.appendKey(nil, t.group, of)
		}
	}
	return due, err
}

// lookahead is how many timers are passed by in search of another key's.
const lookahead = 256
