package grouping

import (
	"cmp"
	"slices"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
)

// reference is a grouping of windows that do not merge as its rules say it, to hold a Machine against: it keeps everything
// that has ever happened, and works out from that whatever it has to know.
type reference struct {
	windowing windowing
	ws        *pipepb.WindowingStrategy
	now       Now
	windows   map[string]*known
	panes     []pane
	dropped   []string
}

// known is a window, from its first element until it has expired.
type known struct {
	name        string
	end, expiry int64
	happened    []triggertest.Instant
	trigger     *triggertest.Reference // nil once it has finished
	closed      bool
	elements    []arrived
	panes       []pane
	fired       []int // after how many elements panes were asked for
}

type arrived struct {
	item
	now Now
}

func newReference(w windowing, ws *pipepb.WindowingStrategy) *reference {
	return &reference{
		windowing: w, ws: w.strategy(ws), windows: map[string]*known{},
		now: Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp},
	}
}

func (r *reference) take(items ...item) {
	for _, i := range items {
		for _, w := range r.windowing.assign(i.timestamp) {
			r.element(string(w), i)
		}
	}
	r.tell()
}

func (r *reference) element(w string, i item) {
	end := coder.EndOfGlobalWindow
	if r.windowing.kind != "global" {
		end = r.windowing.decode([]byte(w)).End - 1
	}
	expiry := min(end+r.ws.GetAllowedLateness(), coder.EndOfGlobalWindow)
	k := r.windows[w]
	if r.now.Input > expiry || k != nil && k.closed {
		r.dropped = append(r.dropped, i.name)
		return
	}
	if k == nil {
		k = &known{name: r.windowing.text([]byte(w)), end: end, expiry: expiry}
		k.trigger = triggertest.NewReference(r.ws.GetTrigger(), end, 0)
		r.windows[w] = k
	}
	k.elements = append(k.elements, arrived{i, r.now})
	k.happened = append(k.happened, triggertest.Instant{Elements: 1, Watermark: r.now.Input, Processing: r.now.Processing})
	r.ask(k)
}

func (r *reference) watermark(to int64) { r.now.Input = to; r.passed() }

func (r *reference) clock(to int64) { r.now.Processing = to; r.passed() }

// passed is called when time has passed.
func (r *reference) passed() {
	for w, k := range r.windows {
		k.happened = append(k.happened, triggertest.Instant{Watermark: r.now.Input, Processing: r.now.Processing})
		switch {
		case r.now.Input > k.expiry:
			if !k.closed {
				r.fire(k, true)
			}
			delete(r.windows, w)
		case k.trigger != nil && k.trigger.Stirred(k.happened):
			r.ask(k)
		}
	}
	r.tell()
}

func (r *reference) ask(k *known) {
	if k.trigger == nil || !k.trigger.Ready(k.happened) {
		return
	}
	k.trigger = k.trigger.Fired(k.happened)
	last := k.trigger == nil && !finishedByClock(r.ws.GetTrigger())
	r.fire(k, last)
	k.closed = last
}

// finishedByClock tells whether a trigger by processing time can finish it.
func finishedByClock(t *pipepb.Trigger) bool {
	var subs []*pipepb.Trigger
	switch t := t.GetTrigger().(type) {
	case *pipepb.Trigger_AfterProcessingTime_, *pipepb.Trigger_AfterSynchronizedProcessingTime_:
		return true
	case *pipepb.Trigger_AfterAll_:
		subs = t.AfterAll.GetSubtriggers()
	case *pipepb.Trigger_AfterAny_:
		subs = t.AfterAny.GetSubtriggers()
	case *pipepb.Trigger_AfterEach_:
		subs = t.AfterEach.GetSubtriggers()
	case *pipepb.Trigger_OrFinally_:
		subs = []*pipepb.Trigger{t.OrFinally.GetMain(), t.OrFinally.GetFinally()}
	}
	return slices.ContainsFunc(subs, finishedByClock)
}

// fire puts out a pane, if it is to be seen.
func (r *reference) fire(k *known, last bool) {
	p := pane{window: k.name, timestamp: min(r.hold(k), k.end)}
	all, fresh := k.elements, k.since()
	if r.ws.GetAccumulationMode() != pipepb.AccumulationMode_ACCUMULATING {
		all = fresh
	}
	for _, e := range all {
		p.values = append(p.values, e.name)
	}
	notEarly := 0
	for _, before := range k.panes {
		if before.info.Timing != coder.Early {
			notEarly++
		}
	}
	p.info = coder.PaneInfo{
		First: len(k.panes) == 0, Last: last, Index: int64(len(k.panes)), NonSpeculative: int64(notEarly), Timing: coder.Late,
	}
	if r.now.Output <= k.end && notEarly == 0 {
		p.info.Timing = coder.OnTime
		if r.now.Input <= k.end {
			p.info.Timing, p.info.NonSpeculative = coder.Early, -1
		}
	}
	if len(fresh) > 0 || last && r.ws.GetClosingBehavior() == pipepb.ClosingBehavior_EMIT_ALWAYS ||
		p.info.Timing == coder.OnTime && r.ws.GetOnTimeBehavior() == pipepb.OnTimeBehavior_FIRE_ALWAYS {
		k.panes = append(k.panes, p)
		r.panes = append(r.panes, p)
	}
	k.fired = append(k.fired, len(k.elements))
}

// since returns the elements since the last firing.
func (k *known) since() []arrived {
	if len(k.fired) == 0 {
		return k.elements
	}
	return k.elements[k.fired[len(k.fired)-1]:]
}

// hold is where the window holds the output watermark.
func (r *reference) hold(k *known) int64 {
	hold, late := None, false
	for _, e := range k.since() {
		at := min(e.timestamp, k.end)
		if r.ws.GetOutputTime() == pipepb.OutputTime_END_OF_WINDOW {
			at = k.end
		}
		switch {
		case at < e.now.Output || e.now.Input > k.end:
			late = true
		case hold == None:
			hold = at
		case r.ws.GetOutputTime() == pipepb.OutputTime_LATEST_IN_PANE:
			hold = max(hold, at)
		default:
			hold = min(hold, at)
		}
	}
	if late || len(k.fired) > 0 && r.ws.GetClosingBehavior() == pipepb.ClosingBehavior_EMIT_ALWAYS {
		hold = min(hold, k.expiry)
	}
	return hold
}

func (r *reference) tell() {
	output := r.now.Input
	for _, k := range r.windows {
		if !k.closed {
			output = min(output, r.hold(k))
		}
	}
	r.now.Output = max(r.now.Output, output)
}

func sortedPanes(panes []pane) []string {
	slices.SortStableFunc(panes, func(a, b pane) int { return cmp.Compare(a.window, b.window) })
	var texts []string
	for _, p := range panes {
		texts = append(texts, p.String())
	}
	return texts
}
