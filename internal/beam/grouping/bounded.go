package grouping

import (
	"trestle/internal/beam/coder"
)

// OnePane tells whether a window of a bounded input has one pane whatever its elements are: on time, the first and the
// last.
func (m *Machine) OnePane() bool { return !m.trigger.MayBeEarly() }

// Bounded returns what is put out of a window of a bounded input, of which all n elements are there, one at least, with
// timestamps from earliest to latest: one or two Emits, in which N is n or 0. The elements come all at once, as a bundle
// does to a trigger that is not asked before it has seen all of it; then the watermark goes to the end of time. So a
// trigger by count fires once, with all elements, and not for each of them. Nothing else is to be carried out.
//
// The Key is reset. The effects are valid until it is used again, or reset.
func (k *Key) Bounded(w []byte, n, earliest, latest int64) ([]Effect, error) {
	k.Reset()
	k.start(Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp})
	c, err := k.add(w)
	if err != nil {
		return nil, err
	}
	c.values, c.fresh = n, true
	k.hold(c, earliest)
	k.hold(c, latest)
	at := k.at(c)
	k.m.trigger.Elements(&c.trigger, n, at)
	if k.m.trigger.Ready(&c.trigger, at) {
		k.fire(c, at)
	}
	k.now.Input = coder.MaxTimestamp
	if !c.closed {
		k.pane(c, true)
	}
	emits := k.effects[:0]
	for _, e := range k.effects {
		if e.Kind == Emit {
			emits = append(emits, e)
		}
	}
	return emits, nil
}
