package stage

import (
	"bytes"
	"context"
	"fmt"

	"trestle/internal/beam/window"
	"trestle/internal/shuffle"
)

// sessions makes of the groups of each key and window the groups of each key and merged window: intervals that overlap
// become one (session_windows in standard_window_fns.proto).
//
// The windows of a key come in the order of their ends, which their encoding begins with. So a merged window is made of
// windows that come one after the other, a new window merges with the latest of those that are open or with none, and the
// values stay in the order in which they come. A window is closed, and its values go on, when no window to come can reach
// back to it: when the longest of all windows, ending where the present one ends, would not. Windows that a window function
// assigns are all of one length, so that there is one open window at a time; where windows were merged before, a key has as
// many open ones as it has sessions within the longest. Values wait in a backlog; an open window takes 24 bytes.
type sessions struct {
	ctx    context.Context // of the call in which the iteration happens
	in     *shuffle.Groups
	span   uint64 // of the longest window
	values *backlog

	key    []byte
	opened []session // from first on, in the order of their ends; their values are the backlog
	first  int
	closed int  // how many of these are complete
	at     bool // in stands at a group that is not taken yet
	ended  bool // in has no more groups

	window []byte // of the group at hand
	left   int64  // values of it
}

// session is a merged window and the number of its values.
type session struct {
	window.Interval
	values int64
}

// Next goes on to the next group, as that of shuffle.Groups.
func (s *sessions) Next() (bool, error) {
	for s.left > 0 {
		if _, _, _, err := s.NextValue(); err != nil {
			return false, err
		}
	}
	if s.closed == 0 {
		if err := s.gather(); err != nil || s.closed == 0 {
			return false, err
		}
	}
	next := s.opened[s.first]
	s.first++
	s.closed--
	s.window = window.AppendInterval(s.window[:0], next.Interval)
	s.left = next.values
	return true, nil
}

// Key is the current group's key.
func (s *sessions) Key() []byte { return s.key }

// Window is the current group's window.
func (s *sessions) Window() []byte { return s.window }

// NextValue returns the current group's next value, as that of shuffle.Groups.
func (s *sessions) NextValue() ([]byte, int64, bool, error) {
	if s.left == 0 {
		return nil, 0, false, nil
	}
	s.left--
	value, timestamp, err := s.values.take(s.ctx)
	return value, timestamp, err == nil, err
}

// gather takes groups until a window is closed, or there are no more. No window is closed before.
func (s *sessions) gather() error {
	for {
		if !s.at && !s.ended {
			more, err := s.in.Next()
			if err != nil {
				return err
			}
			s.at, s.ended = more, !more
		}
		open := s.opened[s.first:]
		if s.ended || len(open) > 0 && !bytes.Equal(s.key, s.in.Key()) {
			s.closed = len(open)
			return nil
		}
		s.key = append(s.key[:0], s.in.Key()...)
		w, _, err := window.DecodeInterval(s.in.Window())
		if err != nil {
			return fmt.Errorf("window to be merged: %w", err)
		}
		for s.closed < len(open) && uint64(w.End)-uint64(open[s.closed].End) >= s.span {
			s.closed++
		}
		if s.closed > 0 {
			return nil
		}
		if err := s.take(w); err != nil {
			return err
		}
		s.at = false
	}
}

// take adds the group that in stands at to the windows that are open.
func (s *sessions) take(w window.Interval) error {
	merged := session{Interval: w}
	for {
		value, timestamp, ok, err := s.in.NextValue()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := s.values.put(s.ctx, timestamp, value); err != nil {
			return err
		}
		merged.values++
	}
	for len(s.opened) > s.first {
		last := s.opened[len(s.opened)-1]
		if merged.Start >= last.End && merged.Interval != last.Interval {
			break
		}
		merged.Start = min(merged.Start, last.Start)
		merged.values += last.values
		s.opened = s.opened[:len(s.opened)-1]
	}
	if s.first > len(s.opened)/2 {
		s.opened = append(s.opened[:0], s.opened[s.first:]...)
		s.first = 0
	}
	s.opened = append(s.opened, merged)
	return nil
}

// sessionMerging merges the windows of sessions.
type sessionMerging struct {
	span   uint64
	values backlog
}

// see notes how long the windows are that arrive. Those of an attempt that is forgotten count too: that delays, no more.
func (m *sessionMerging) see(block []byte) error {
	return shuffle.EachWindow(block, func(b []byte) error {
		w, _, err := window.DecodeInterval(b)
		if err != nil {
			return fmt.Errorf("window to be merged: %w", err)
		}
		m.span = max(m.span, uint64(w.End)-uint64(w.Start))
		return nil
	})
}

func (m *sessionMerging) merge(ctx context.Context, sorted *shuffle.Groups) (grouped, error) {
	return &sessions{ctx: ctx, in: sorted, span: m.span, values: &m.values}, nil
}

func (m *sessionMerging) close() error { return m.values.close() }
