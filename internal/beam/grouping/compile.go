package grouping

import (
	"errors"
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger"
	"trestle/internal/beam/urn"
	"trestle/internal/beam/window"
)

// Machine is a windowing strategy as a GroupByKey carries it out. It is immutable and may be used by many goroutines.
type Machine struct {
	windows      *window.Strategy
	trigger      *trigger.Machine
	outputTime   pipepb.OutputTime_Enum
	lateness     int64 // ms
	accumulating bool
	sessions     bool
	// emitAlways is the closing behaviour, fireAlways the on-time behaviour.
	emitAlways, fireAlways bool
}

// Compile returns the machine of a windowing strategy, whose window coder is among coders, as package window wants them.
// An accumulation mode, closing or on-time behaviour that is not specified is the one that puts out least. The error
// lists everything that cannot be carried out.
func Compile(ws *pipepb.WindowingStrategy, coders map[string]*pipepb.Coder) (*Machine, error) {
	windows, err := window.Compile(ws, coders)
	if err != nil {
		return nil, err
	}
	m, err := compile(ws, windows.Merging())
	if err != nil {
		return nil, fmt.Errorf("windowing strategy with %q: %w", ws.GetWindowFn().GetUrn(), err)
	}
	m.windows = windows
	m.sessions = m.windows.Merging() && ws.GetWindowFn().GetUrn() == urn.WindowFnSessions &&
		m.windows.Coder().URN() == urn.CoderIntervalWindow
	return m, nil
}

// Check returns everything about a windowing strategy that Compile would not take, apart from its windows.
func Check(ws *pipepb.WindowingStrategy) error {
	_, err := compile(ws, false)
	return err
}

// compile is Compile without the windows.
func compile(ws *pipepb.WindowingStrategy, merging bool) (*Machine, error) {
	m := &Machine{lateness: ws.GetAllowedLateness(), outputTime: ws.GetOutputTime()}
	var errs []error
	var err error
	if m.trigger, err = trigger.Compile(ws.GetTrigger(), merging); err != nil {
		errs = append(errs, err)
	}
	switch mode := ws.GetAccumulationMode(); mode {
	case pipepb.AccumulationMode_UNSPECIFIED, pipepb.AccumulationMode_DISCARDING:
	case pipepb.AccumulationMode_ACCUMULATING:
		m.accumulating = true
	case pipepb.AccumulationMode_RETRACTING:
		errs = append(errs, errors.New("accumulation mode RETRACTING: no runner puts out retractions; use ACCUMULATING or DISCARDING"))
	default:
		errs = append(errs, fmt.Errorf("accumulation mode is %v", mode))
	}
	switch b := ws.GetClosingBehavior(); b {
	case pipepb.ClosingBehavior_UNSPECIFIED, pipepb.ClosingBehavior_EMIT_IF_NONEMPTY:
	case pipepb.ClosingBehavior_EMIT_ALWAYS:
		m.emitAlways = true
	default:
		errs = append(errs, fmt.Errorf("closing behavior is %v", b))
	}
	switch b := ws.GetOnTimeBehavior(); b {
	case pipepb.OnTimeBehavior_UNSPECIFIED, pipepb.OnTimeBehavior_FIRE_IF_NONEMPTY:
	case pipepb.OnTimeBehavior_FIRE_ALWAYS:
		m.fireAlways = true
	default:
		errs = append(errs, fmt.Errorf("on-time behavior is %v", b))
	}
	if m.lateness < 0 {
		errs = append(errs, fmt.Errorf("allowed lateness is %d ms: it cannot be negative", m.lateness))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

// Merging tells whether windows merge, so that all windows of a key have to be loaded.
func (m *Machine) Merging() bool { return m.windows.Merging() }

// Asks tells whether windows merge in a way that only their SDK knows: the answers are passed to Key.Elements.
func (m *Machine) Asks() bool { return m.windows.Merging() && !m.sessions }

// Trigger is the trigger, as people write it.
func (m *Machine) Trigger() string { return m.trigger.String() }

// Parts tells whether the panes of a window are parts of what is whole at its end: discarding ones, with early ones among them
// and one for the end, of windows that end before all time does.
func (m *Machine) Parts() bool {
	return !m.accumulating && m.trigger.PartsBeforeEnd() && !m.windows.Global()
}

// bounds returns the window's last millisecond, and that of its expiry.
func (m *Machine) bounds(w []byte) (end, expiry int64, err error) {
	end, err = m.windows.MaxTimestamp(w)
	if err != nil {
		return 0, 0, fmt.Errorf("window of a group: %w", err)
	}
	end = min(end, coder.EndOfGlobalWindow)
	if m.lateness > coder.EndOfGlobalWindow-end {
		return end, coder.EndOfGlobalWindow, nil
	}
	return end, end + m.lateness, nil
}

// Empty is the time, in milliseconds, such that a window which has not put out a pane has no elements that could have been
// put out, once the input's watermark is later: its trigger would have fired for them, or it has expired.
func (m *Machine) Empty(w []byte) (int64, error) {
	end, expiry, err := m.bounds(w)
	if err != nil {
		return 0, err
	}
	return min(max(m.trigger.Certain(end), end), expiry), nil
}

// End is the window's last millisecond.
func (m *Machine) End(w []byte) (int64, error) {
	end, _, err := m.bounds(w)
	return end, err
}
