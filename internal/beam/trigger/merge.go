package trigger

// Merge returns the state of the window that the windows of from, one or more, have become; at is the merged window's.
// The result shares nothing with from. See the package's comment for the rules.
func (m *Machine) Merge(from []*State, at At) State {
	var s State
	m.merge(m.root, &s, from, at)
	return s
}

func (m *Machine) merge(t *node, s *State, from []*State, at At) {
	switch t.kind {
	case count:
		if finishedInAny(t.bit, from) {
			s.set(t.bit, true)
			return
		}
		for _, f := range from {
			s.setCell(t.cell, min(s.cell(t.cell)+f.cell(t.cell), maxSpan))
		}
	case delay, synchronized:
		if finishedInAll(t.bit, from) {
			s.set(t.bit, true)
			return
		}
		for _, f := range from {
			if ms, ok := f.deadline(t.cell); ok {
				if first, some := s.deadline(t.cell); !some || ms < first {
					s.setDeadline(t.cell, ms)
				}
			}
		}
	case endOfWindow:
		m.mergeEnd(t, s, from, at)
	case each:
		for _, sub := range t.subs {
			m.merge(sub, s, from, at)
			if !s.has(sub.bit) {
				return // what comes behind it starts when this has fired
			}
		}
		s.set(t.bit, true)
	default:
		m.mergeSubs(t, s, from, at)
	}
}

// mergeEnd merges what has no other trigger before or behind it to wait for than the window's end.
func (m *Machine) mergeEnd(t *node, s *State, from []*State, at At) {
	if t.early == nil && t.late == nil {
		s.set(t.bit, at.ended() && finishedInAll(t.bit, from))
		return
	}
	if t.early != nil {
		// It counts along even when the end is behind: the window may grow once more.
		m.merge(t.early, s, from, at)
		s.set(t.early.bit, false)
	}
	if !at.ended() || !finishedInAll(t.ended, from) {
		return
	}
	s.set(t.ended, true)
	if t.late == nil {
		s.set(t.bit, true)
		return
	}
	m.merge(t.late, s, from, at)
	s.set(t.late.bit, false)
}

func (m *Machine) mergeSubs(t *node, s *State, from []*State, at At) {
	finished := 0
	for _, sub := range t.subs {
		m.merge(sub, s, from, at)
		if s.has(sub.bit) {
			finished++
		}
	}
	switch t.kind {
	case all:
		s.set(t.bit, finished == len(t.subs))
	case some, orFinally:
		s.set(t.bit, finished > 0 || finishedInAll(t.bit, from))
	case repeat:
		if finished > 0 {
			reset(t.subs[0], s)
		}
	}
}

func finishedInAny(bit int, from []*State) bool {
	for _, f := range from {
		if f.has(bit) {
			return true
		}
	}
	return false
}

func finishedInAll(bit int, from []*State) bool {
	for _, f := range from {
		if !f.has(bit) {
			return false
		}
	}
	return true
}
