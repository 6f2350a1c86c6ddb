package trigger

import "math"

// At is where a window stands in time, in milliseconds since the epoch.
type At struct {
	// End is the window's last millisecond: its end has passed when Watermark is later.
	End int64
	// Watermark is the input's: nothing earlier is to come, except late.
	Watermark int64
	// Processing is the time by the clock.
	Processing int64
}

func (at At) ended() bool { return at.Watermark > at.End }

// Forever is the time of a wake-up that is not wanted.
const Forever int64 = math.MaxInt64

// Elements tells of n elements that have arrived. A finished trigger does not care.
func (m *Machine) Elements(s *State, n int64, at At) {
	if !s.has(m.root.bit) {
		m.elements(m.root, s, n, at)
	}
}

func (m *Machine) elements(t *node, s *State, n int64, at At) {
	switch t.kind {
	case count:
		s.setCell(t.cell, min(s.cell(t.cell)+n, maxSpan))
	case delay, synchronized:
		if _, ok := s.deadline(t.cell); ok {
			return
		}
		ms := at.Processing
		for _, f := range t.transforms {
			ms = f.apply(clip(ms))
		}
		s.setDeadline(t.cell, ms)
	case endOfWindow:
		if t.early != nil && (m.merging || !s.has(t.ended)) {
			m.elements(t.early, s, n, at)
		}
		if t.late != nil && (m.merging || s.has(t.ended)) {
			m.elements(t.late, s, n, at)
		}
	case each:
		for _, sub := range t.subs {
			if m.merging || !s.has(sub.bit) {
				m.elements(sub, s, n, at)
			}
			if !m.merging && !s.has(sub.bit) {
				return
			}
		}
	case all:
		for _, sub := range t.subs {
			if !s.has(sub.bit) {
				m.elements(sub, s, n, at)
			}
		}
	case some, repeat, orFinally:
		for _, sub := range t.subs {
			m.elements(sub, s, n, at)
		}
	}
}

// Ready tells whether the trigger wants to fire. It changes with elements, with time, and by firing.
func (m *Machine) Ready(s *State, at At) bool { return !s.has(m.root.bit) && m.ready(m.root, s, at) }

func (m *Machine) ready(t *node, s *State, at At) bool {
	switch t.kind {
	case always:
		return true
	case byDefault:
		return at.ended()
	case count:
		return s.cell(t.cell) >= t.n
	case delay, synchronized:
		due, ok := t.due(s)
		return ok && at.Processing >= due
	case endOfWindow:
		switch {
		case t.early == nil && t.late == nil:
			return at.ended()
		case !s.has(t.ended):
			return at.ended() || t.early != nil && m.ready(t.early, s, at)
		default:
			return t.late != nil && m.ready(t.late, s, at)
		}
	case all:
		for _, sub := range t.subs {
			if !s.has(sub.bit) && !m.ready(sub, s, at) {
				return false
			}
		}
		return true
	case some:
		for _, sub := range t.subs {
			if s.has(sub.bit) || m.ready(sub, s, at) {
				return true
			}
		}
		return false
	case each:
		current := t.current(s)
		return current != nil && m.ready(current, s, at)
	case repeat:
		return m.ready(t.subs[0], s, at)
	case orFinally:
		return m.ready(t.subs[0], s, at) || m.ready(t.subs[1], s, at)
	default: // never
		return false
	}
}

// due is when a delay's or synchronized's processing time has come.
func (t *node) due(s *State) (ms int64, ok bool) {
	ms, ok = s.deadline(t.cell)
	if t.kind == synchronized {
		ms++
	}
	return ms, ok
}

// current is an each's first trigger that is not finished.
func (t *node) current(s *State) *node {
	for _, sub := range t.subs {
		if !s.has(sub.bit) {
			return sub
		}
	}
	return nil
}

// Fire is for a trigger that is Ready: its pane is put out. Afterwards it may be Finished.
func (m *Machine) Fire(s *State, at At) { m.fire(m.root, s, at) }

// Finished tells whether the trigger will never be ready again.
func (m *Machine) Finished(s *State) bool { return s.has(m.root.bit) }

func (m *Machine) fire(t *node, s *State, at At) {
	switch t.kind {
	case count, delay, synchronized:
		s.setCell(t.cell, 0)
		s.set(t.bit, true)
	case endOfWindow:
		m.fireEnd(t, s, at)
	case all:
		for _, sub := range t.subs {
			if !s.has(sub.bit) {
				m.fire(sub, s, at)
			}
		}
		s.set(t.bit, true)
	case some:
		for _, sub := range t.subs {
			if !s.has(sub.bit) && m.ready(sub, s, at) {
				m.fire(sub, s, at)
			} else {
				clearPane(sub, s)
			}
		}
		s.set(t.bit, true)
	case each:
		current := t.current(s)
		m.fire(current, s, at)
		for _, sub := range t.subs {
			if sub != current {
				clearPane(sub, s)
			}
		}
		s.set(t.bit, t.current(s) == nil)
	case repeat:
		m.again(t.subs[0], s, at)
	case orFinally:
		main, last := t.subs[0], t.subs[1]
		if m.ready(last, s, at) {
			m.fire(last, s, at)
			clearPane(main, s)
			s.set(t.bit, true)
			return
		}
		m.fire(main, s, at)
		s.set(t.bit, s.has(main.bit))
	}
}

// fireEnd fires an endOfWindow: early, on time, or late.
func (m *Machine) fireEnd(t *node, s *State, at At) {
	switch {
	case t.early == nil && t.late == nil:
		s.set(t.bit, true)
	case s.has(t.ended):
		m.again(t.late, s, at)
		clearPane(t.early, s)
	case at.ended():
		s.set(t.ended, true)
		reset(t.early, s)
		reset(t.late, s)
		s.set(t.bit, t.late == nil)
	default:
		m.again(t.early, s, at)
		clearPane(t.late, s)
	}
}

// again fires a trigger that begins anew when it is finished.
func (m *Machine) again(t *node, s *State, at At) {
	m.fire(t, s, at)
	if s.has(t.bit) {
		reset(t, s)
	}
}

// clearPane forgets what t, which may be nil, knows of the pane that has been put out by another.
func clearPane(t *node, s *State) {
	if t == nil {
		return
	}
	if t.kind == count || t.kind == delay || t.kind == synchronized {
		s.setCell(t.cell, 0)
	}
	for _, sub := range t.subs {
		clearPane(sub, s)
	}
	clearPane(t.early, s)
	clearPane(t.late, s)
}

// reset makes of t, which may be nil, what it is in a new window.
func reset(t *node, s *State) {
	if t == nil {
		return
	}
	s.set(t.bit, false)
	if t.kind == endOfWindow && (t.early != nil || t.late != nil) {
		s.set(t.ended, false)
	}
	if t.kind == count || t.kind == delay || t.kind == synchronized {
		s.setCell(t.cell, 0)
	}
	for _, sub := range t.subs {
		reset(sub, s)
	}
	reset(t.early, s)
	reset(t.late, s)
}

// Wake returns when the trigger may become ready with no element to make it: event for the watermark, processing for
// the clock; each is due when that time is reached. Forever means never. A trigger that is ready is to be fired before
// it is asked.
func (m *Machine) Wake(s *State, at At) (event, processing int64) {
	w := wake{event: Forever, processing: Forever}
	if !s.has(m.root.bit) {
		w.visit(m.root, s, at)
	}
	return w.event, w.processing
}

type wake struct{ event, processing int64 }

func (w *wake) visit(t *node, s *State, at At) {
	switch t.kind {
	case byDefault:
		w.end(at)
	case delay, synchronized:
		if due, ok := t.due(s); ok && due > at.Processing {
			w.processing = min(w.processing, due)
		}
	case endOfWindow:
		switch {
		case t.early == nil && t.late == nil:
			w.end(at)
		case !s.has(t.ended):
			w.end(at)
			if t.early != nil {
				w.visit(t.early, s, at)
			}
		case t.late != nil:
			w.visit(t.late, s, at)
		}
	case each:
		if current := t.current(s); current != nil {
			w.visit(current, s, at)
		}
	default:
		for _, sub := range t.subs {
			if !s.has(sub.bit) {
				w.visit(sub, s, at)
			}
		}
	}
}

func (w *wake) end(at At) {
	if !at.ended() {
		w.event = min(w.event, at.End+1)
	}
}
