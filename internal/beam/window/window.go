// Package window knows Beam's windows by their encoded bytes: when they end, at which time a group of them is put
// out, and how sessions merge.
//
// The package is pure. A Strategy is immutable and may be used by many goroutines.
package window

import (
	"errors"
	"fmt"
	"io"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
)

type kind uint8

const (
	global kind = iota
	interval
	custom
)

// Strategy is what a grouping has to know of its input's windowing strategy.
type Strategy struct {
	kind       kind
	coder      *coder.Coder
	merging    bool
	outputTime pipepb.OutputTime_Enum
}

// Global is the encoding of the global window: no bytes.
var Global = []byte{}

// Compile reads a windowing strategy. It refuses, all problems at once, one without a window coder that the runner
// can walk and that tells windows' ends (a custom window function's coder has to be inside
// beam:coder:custom_window:v1), and one whose merge status or output time is missing or unknown: the proto requires
// them (WindowingStrategy in beam_runner_api.proto).
func Compile(ws *pipepb.WindowingStrategy, coders map[string]*pipepb.Coder) (*Strategy, error) {
	s := &Strategy{outputTime: ws.GetOutputTime()}
	var errs []error
	c, err := coder.Compile(coders, ws.GetWindowCoderId())
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("window %w", err))
	case c.URN() == urn.CoderGlobalWindow:
		s.kind = global
	case c.URN() == urn.CoderIntervalWindow:
		s.kind = interval
	case c.URN() == urn.CoderCustomWindow:
		s.kind = custom
	default:
		errs = append(errs, fmt.Errorf("window coder %q is %s, whose windows do not tell their end; %s must be around it",
			c.ID(), c.URN(), urn.CoderCustomWindow))
	}
	s.coder = c
	switch m := ws.GetMergeStatus(); m {
	case pipepb.MergeStatus_NEEDS_MERGE:
		s.merging = true
	case pipepb.MergeStatus_NON_MERGING, pipepb.MergeStatus_ALREADY_MERGED:
	default:
		errs = append(errs, fmt.Errorf("merge status is %v", m))
	}
	switch s.outputTime {
	case pipepb.OutputTime_END_OF_WINDOW, pipepb.OutputTime_LATEST_IN_PANE, pipepb.OutputTime_EARLIEST_IN_PANE:
	default:
		errs = append(errs, fmt.Errorf("output time is %v", s.outputTime))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("windowing strategy with %q: %w", ws.GetWindowFn().GetUrn(), errors.Join(errs...))
	}
	return s, nil
}

// Coder is the coder of a window.
func (s *Strategy) Coder() *coder.Coder { return s.coder }

// Merging tells whether windows have to be merged before they are grouped by (sessions, for one).
func (s *Strategy) Merging() bool { return s.merging }

// Global tells whether the only window is the global one.
func (s *Strategy) Global() bool { return s.kind == global }

// MaxTimestamp returns the latest timestamp, in milliseconds, that an element of the window can have; the window has
// ended when the watermark passes it. It lies within Beam's bounds of time. The error wraps io.ErrUnexpectedEOF when
// window is cut short.
func (s *Strategy) MaxTimestamp(window []byte) (int64, error) {
	switch s.kind {
	case interval:
		w, _, err := DecodeInterval(window)
		if err != nil {
			return 0, err
		}
		return w.MaxTimestamp(), nil
	case custom:
		// The proto puts the maximal timestamp first so that runners need no more.
		if len(window) < coder.TimestampSize {
			return 0, fmt.Errorf("custom window of %d bytes: %w", len(window), io.ErrUnexpectedEOF)
		}
		return clip(coder.Timestamp(window)), nil
	default:
		return coder.EndOfGlobalWindow, nil
	}
}

// OutputTime returns the timestamp, in milliseconds, of a group of elements of one window, of which the earliest and
// the latest are given. What the strategy picks among them is held to the window's end, since an element must not be
// later than its window (an element of the global window may come with a timestamp of its last day).
func (s *Strategy) OutputTime(window []byte, earliest, latest int64) (int64, error) {
	end, err := s.MaxTimestamp(window)
	if err != nil {
		return 0, err
	}
	switch s.outputTime {
	case pipepb.OutputTime_EARLIEST_IN_PANE:
		return min(clip(earliest), end), nil
	case pipepb.OutputTime_LATEST_IN_PANE:
		return min(clip(latest), end), nil
	default:
		return end, nil
	}
}

// clip holds a timestamp within Beam's bounds of time.
func clip(t int64) int64 { return min(max(t, coder.MinTimestamp), coder.MaxTimestamp) }
