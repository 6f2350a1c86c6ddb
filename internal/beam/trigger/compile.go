package trigger

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// maxNodes bounds what a pipeline may ask for. Triggers that people write have a handful.
const maxNodes = 1000

type kind uint8

const (
	always kind = iota
	never
	byDefault
	count
	delay
	synchronized
	endOfWindow
	all
	some
	each
	repeat
	orFinally
)

// node is a trigger within a Machine. bit, ended and cell say where a State has what it remembers.
type node struct {
	kind kind
	subs []*node // of orFinally the main one and the final one
	bit  int     // set when it is finished

	n          int64       // elements of a count
	transforms []transform // of a delay
	cell       int         // of a count, delay or synchronized

	early, late *node // of an endOfWindow; each may be nil
	ended       int   // bit of an endOfWindow that has early or late firings: set when the end has been fired for
}

// transform moves a timestamp: TimestampTransform in beam_runner_api.proto, in milliseconds.
type transform struct{ delay, period, offset int64 }

func (t transform) apply(ms int64) int64 {
	if t.period == 0 {
		return ms + t.delay
	}
	// Up to the next multiple of the period; one that is a multiple stays.
	over := (ms - t.offset) % t.period
	if over > 0 {
		over -= t.period
	}
	return ms - over
}

// Machine is a trigger. It is immutable and may be used by many goroutines.
type Machine struct {
	root        *node
	merging     bool
	bits, cells int
	delays      []bool // by cell: whether it holds a deadline
	byClock     bool
	text        string
}

// Compile returns the machine of a trigger; merging says whether its windows may merge. A strategy without a trigger has
// the default one. The error lists everything that the model forbids, by the trigger's name and place.
func Compile(t *pipepb.Trigger, merging bool) (*Machine, error) {
	if t == nil {
		t = &pipepb.Trigger{Trigger: &pipepb.Trigger_Default_{Default: &pipepb.Trigger_Default{}}}
	}
	c := compiler{m: &Machine{merging: merging}}
	var text strings.Builder
	c.m.root = c.node(t, "trigger", &text)
	if c.nodes > maxNodes {
		c.errs = []error{fmt.Errorf("the trigger is made of more than %d triggers", maxNodes)}
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	c.m.byClock = c.m.root.finishedByClock()
	c.m.text = text.String()
	return c.m, nil
}

// String is the trigger as people write it.
func (m *Machine) String() string { return m.text }

// FinishedByClock tells whether it may be the clock that finishes the trigger, instead of elements and watermarks
// alone. What comes after that is not to be dropped, since whether it does would be a race between element and clock.
func (m *Machine) FinishedByClock() bool { return m.byClock }

// Certain is the time, in milliseconds, such that a window which ends at end and has elements is certain to have fired once the
// watermark is later: Forever when it may never fire. (Trigger.getWatermarkThatGuaranteesFiring in Beam's Java SDK.)
func (m *Machine) Certain(end int64) int64 { return m.root.certain(end) }

func (n *node) certain(end int64) int64 {
	switch n.kind {
	case always:
		return math.MinInt64
	case byDefault, endOfWindow:
		return end
	case all:
		latest := int64(math.MinInt64)
		for _, s := range n.subs {
			latest = max(latest, s.certain(end))
		}
		return latest
	case some, orFinally:
		earliest := Forever
		for _, s := range n.subs {
			earliest = min(earliest, s.certain(end))
		}
		return earliest
	case each, repeat:
		return n.subs[0].certain(end)
	case count:
		if n.n == 1 {
			return math.MinInt64 // the first element fires
		}
		return Forever
	default: // by the clock, or never
		return Forever
	}
}

// MayBeEarly tells whether the trigger may be ready before the end of its window has passed.
func (m *Machine) MayBeEarly() bool { return m.root.mayBeEarly() }

// PartsBeforeEnd tells whether the trigger has a pane of its own for the end of the window, and panes before that one: an
// AfterEndOfWindow with early firings.
func (m *Machine) PartsBeforeEnd() bool { return m.root.kind == endOfWindow && m.root.mayBeEarly() }

func (n *node) mayBeEarly() bool {
	switch n.kind {
	case never, byDefault:
		return false
	case endOfWindow:
		return n.early != nil && n.early.mayBeEarly()
	case all:
		return !slices.ContainsFunc(n.subs, func(s *node) bool { return !s.mayBeEarly() })
	case some, orFinally:
		return slices.ContainsFunc(n.subs, (*node).mayBeEarly)
	case each, repeat:
		return n.subs[0].mayBeEarly()
	default:
		return true
	}
}

func (n *node) finishedByClock() bool {
	switch n.kind {
	case delay, synchronized:
		return true
	case all, some, each, orFinally:
		return slices.ContainsFunc(n.subs, (*node).finishedByClock)
	}
	return false
}

type compiler struct {
	m     *Machine
	nodes int
	errs  []error
}

func (c *compiler) refuse(path, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

func (c *compiler) bit() int {
	c.m.bits++
	return c.m.bits - 1
}

func (c *compiler) cell(isDelay bool) int {
	c.m.delays = append(c.m.delays, isDelay)
	c.m.cells++
	return c.m.cells - 1
}

// node compiles the trigger at path and writes it to text.
func (c *compiler) node(t *pipepb.Trigger, path string, text *strings.Builder) *node {
	if c.nodes++; c.nodes > maxNodes {
		return nil
	}
	n := &node{bit: c.bit()}
	switch t := t.GetTrigger().(type) {
	case *pipepb.Trigger_Default_:
		n.kind = byDefault
		text.WriteString("Default")
	case *pipepb.Trigger_Always_:
		n.kind = always
		text.WriteString("Always")
	case *pipepb.Trigger_Never_:
		n.kind = never
		text.WriteString("Never")
	case *pipepb.Trigger_ElementCount_:
		n.kind, n.n, n.cell = count, int64(t.ElementCount.GetElementCount()), c.cell(false)
		fmt.Fprintf(text, "ElementCount(%d)", n.n)
		if n.n < 1 {
			c.refuse(path, "ElementCount of %d: it must be at least 1", n.n)
		}
	case *pipepb.Trigger_AfterProcessingTime_:
		n.kind, n.cell = delay, c.cell(true)
		text.WriteString("AfterProcessingTime(")
		c.transforms(n, t.AfterProcessingTime.GetTimestampTransforms(), path, text)
		text.WriteString(")")
	case *pipepb.Trigger_AfterSynchronizedProcessingTime_:
		n.kind, n.cell = synchronized, c.cell(true)
		text.WriteString("AfterSynchronizedProcessingTime")
	case *pipepb.Trigger_AfterEndOfWindow_:
		c.endOfWindow(n, t.AfterEndOfWindow, path, text)
	case *pipepb.Trigger_AfterAll_:
		c.list(n, all, "AfterAll", t.AfterAll.GetSubtriggers(), path, text)
	case *pipepb.Trigger_AfterAny_:
		c.list(n, some, "AfterAny", t.AfterAny.GetSubtriggers(), path, text)
	case *pipepb.Trigger_AfterEach_:
		c.list(n, each, "AfterEach", t.AfterEach.GetSubtriggers(), path, text)
	case *pipepb.Trigger_Repeat_:
		n.kind = repeat
		text.WriteString("Repeat(")
		n.subs = []*node{c.node(t.Repeat.GetSubtrigger(), path+".Repeat", text)}
		text.WriteString(")")
	case *pipepb.Trigger_OrFinally_:
		n.kind = orFinally
		text.WriteString("OrFinally(")
		main := c.node(t.OrFinally.GetMain(), path+".OrFinally.main", text)
		text.WriteString(", ")
		n.subs = []*node{main, c.node(t.OrFinally.GetFinally(), path+".OrFinally.finally", text)}
		text.WriteString(")")
	case nil:
		c.refuse(path, "no trigger is set")
	default:
		c.refuse(path, "%T is a trigger that this version of Trestle does not know", t)
	}
	return n
}

func (c *compiler) endOfWindow(n *node, t *pipepb.Trigger_AfterEndOfWindow, path string, text *strings.Builder) {
	n.kind = endOfWindow
	text.WriteString("AfterEndOfWindow")
	if t.GetEarlyFirings() == nil && t.GetLateFirings() == nil {
		return
	}
	n.ended = c.bit()
	text.WriteString("(")
	if e := t.GetEarlyFirings(); e != nil {
		text.WriteString("early=")
		n.early = c.node(e, path+".AfterEndOfWindow.early_firings", text)
	}
	if l := t.GetLateFirings(); l != nil {
		if n.early != nil {
			text.WriteString(", ")
		}
		text.WriteString("late=")
		n.late = c.node(l, path+".AfterEndOfWindow.late_firings", text)
	}
	text.WriteString(")")
}

func (c *compiler) list(n *node, k kind, name string, subs []*pipepb.Trigger, path string, text *strings.Builder) {
	n.kind = k
	text.WriteString(name + "(")
	if len(subs) == 0 {
		c.refuse(path, "%s has no subtriggers", name)
	}
	for i, s := range subs {
		if i > 0 {
			text.WriteString(", ")
		}
		n.subs = append(n.subs, c.node(s, fmt.Sprintf("%s.%s[%d]", path, name, i), text))
	}
	text.WriteString(")")
}

func (c *compiler) transforms(n *node, list []*pipepb.TimestampTransform, path string, text *strings.Builder) {
	for i, t := range list {
		if i > 0 {
			text.WriteString(", ")
		}
		switch t := t.GetTimestampTransform().(type) {
		case *pipepb.TimestampTransform_Delay_:
			d := t.Delay.GetDelayMillis()
			fmt.Fprintf(text, "delay %d", d)
			if d < 0 || d > maxSpan {
				c.refuse(path, "AfterProcessingTime has a delay of %d ms", d)
			}
			n.transforms = append(n.transforms, transform{delay: d})
		case *pipepb.TimestampTransform_AlignTo_:
			p, o := t.AlignTo.GetPeriod(), t.AlignTo.GetOffset()
			fmt.Fprintf(text, "align to %d from %d", p, o)
			if p <= 0 || p > maxSpan || o < -maxSpan || o > maxSpan {
				c.refuse(path, "AfterProcessingTime aligns to a period of %d ms from %d", p, o)
			}
			n.transforms = append(n.transforms, transform{period: p, offset: o})
		default:
			c.refuse(path, "AfterProcessingTime has a timestamp transform that is not set or not known")
		}
	}
}
