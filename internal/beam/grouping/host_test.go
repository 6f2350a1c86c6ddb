package grouping

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
)

// coders are the window coders of tests.
var coders = map[string]*pipepb.Coder{
	"global":   {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:global_window:v1"}},
	"interval": {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:interval_window:v1"}},
	"custom":   {Spec: &pipepb.FunctionSpec{Urn: "beam:coder:custom_window:v1"}, ComponentCoderIds: []string{"interval"}},
}

// windowing is a window function: global, fixed-SIZE, sliding-SIZE-PERIOD, sessions-GAP, or custom-GAP, which are
// sessions that only their SDK, here the host, can merge.
type windowing struct {
	kind         string
	size, period int64
}

func parseWindowing(text string) (w windowing) {
	parts := strings.Split(text, "-")
	w.kind = parts[0]
	fmt.Sscan(strings.Join(parts[1:], " "), &w.size, &w.period)
	if w.kind == "fixed" {
		w.period = w.size
	}
	return w
}

// strategy fills in what the window function says.
func (w windowing) strategy(ws *pipepb.WindowingStrategy) *pipepb.WindowingStrategy {
	ws.WindowFn = &pipepb.FunctionSpec{Urn: "beam:window_fn:" + w.kind + ":v1"}
	ws.WindowCoderId, ws.MergeStatus = "interval", pipepb.MergeStatus_NON_MERGING
	switch w.kind {
	case "global":
		ws.WindowCoderId = "global"
	case "sessions":
		ws.WindowFn.Urn = "beam:window_fn:session_windows:v1"
		ws.MergeStatus = pipepb.MergeStatus_NEEDS_MERGE
	case "custom":
		ws.WindowCoderId, ws.MergeStatus = "custom", pipepb.MergeStatus_NEEDS_MERGE
	}
	return ws
}

func (w windowing) encode(i window.Interval) []byte {
	if w.kind == "custom" {
		return window.AppendInterval(coder.AppendTimestamp(nil, i.MaxTimestamp()), i)
	}
	return window.AppendInterval(nil, i)
}

func (w windowing) decode(b []byte) window.Interval {
	if w.kind == "custom" {
		b = b[coder.TimestampSize:]
	}
	i, _, err := window.DecodeInterval(b)
	if err != nil {
		return window.Interval{}
	}
	return i
}

// assign returns the windows of a timestamp.
func (w windowing) assign(timestamp int64) (windows [][]byte) {
	switch w.kind {
	case "global":
		return [][]byte{{}}
	case "sessions", "custom":
		return [][]byte{w.encode(window.Interval{Start: timestamp, End: timestamp + w.size})}
	}
	over := timestamp % w.period
	if over < 0 {
		over += w.period
	}
	for start := timestamp - over; start > timestamp-w.size; start -= w.period {
		windows = append(windows, w.encode(window.Interval{Start: start, End: start + w.size}))
	}
	return windows
}

func (w windowing) text(b []byte) string {
	switch {
	case w.kind == "global":
		return "global"
	case b == nil:
		return "" // of Move
	}
	i := w.decode(b)
	return fmt.Sprintf("[%d,%d)", i.Start, i.End)
}

// merge merges as the SDK of custom windows does; now and then the result is one of many orders.
func (w windowing) merge(windows [][]byte) (merges []Merge) {
	in := make([]window.Interval, len(windows))
	for i, b := range windows {
		in[i] = w.decode(b)
	}
	merged, into := window.Merge(in)
	for i, m := range merged {
		var from [][]byte
		for j, b := range windows {
			if into[j] == i {
				from = append(from, b)
			}
		}
		if len(from) > 1 {
			merges = append(merges, Merge{Into: w.encode(m), From: from})
		}
	}
	return merges
}

// item is an element.
type item struct {
	name      string
	timestamp int64
}

// pane is what a host has put out.
type pane struct {
	window    string
	values    []string
	timestamp int64
	info      coder.PaneInfo
}

func (p pane) String() string {
	text := []string{"EARLY", "ON_TIME", "LATE", "UNKNOWN"}[p.info.Timing] + fmt.Sprintf(" %d", p.info.Index)
	if p.info.Timing != coder.Early {
		text += fmt.Sprintf("/%d", p.info.NonSpeculative)
	}
	if p.info.First {
		text += " first"
	}
	if p.info.Last {
		text += " last"
	}
	return fmt.Sprintf("%s pane %s at %d: %s", p.window, text, p.timestamp, strings.Join(p.values, " "))
}

// failer is how a host complains: a test, or rapid's.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// host keeps one key as a task does: it carries out effects to the letter, and complains about one that does not fit.
type host struct {
	t         failer
	m         *Machine
	windowing windowing
	key       *Key
	now       Now
	others    int64 // where other keys hold the watermark

	states            map[string][]byte
	bags              map[string][]string
	event, processing map[string]int64
	holds             map[string]int64
	panes             []pane
	dropped           []string
	log               strings.Builder
}

func newHost(t failer, w windowing, ws *pipepb.WindowingStrategy) (*host, error) {
	m, err := Compile(w.strategy(ws), coders)
	if err != nil {
		return nil, err
	}
	return &host{
		t: t, m: m, windowing: w, key: m.NewKey(), others: None,
		now:    Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp},
		states: map[string][]byte{}, bags: map[string][]string{}, holds: map[string]int64{},
		event: map[string]int64{}, processing: map[string]int64{},
	}, nil
}

// load loads the windows that may matter, in an order that means nothing.
func (h *host) load(windows ...[]byte) {
	h.key.Reset()
	for w, state := range h.states {
		if h.m.Merging() || slices.ContainsFunc(windows, func(b []byte) bool { return string(b) == w }) {
			if err := h.key.Load([]byte(w), state); err != nil {
				h.t.Fatalf("%v", err)
			}
		}
	}
}

// elements takes up a bundle.
func (h *host) elements(items ...item) {
	h.t.Helper()
	var (
		elements []Element
		windows  [][]byte
		names    []string
	)
	for _, i := range items {
		for _, w := range h.windowing.assign(i.timestamp) {
			elements = append(elements, Element{Window: w, Timestamp: i.timestamp})
			windows, names = append(windows, w), append(names, i.name)
		}
	}
	h.load(windows...)
	var merges []Merge
	if h.m.Asks() {
		ask, err := h.key.Unmerged(h.now, elements)
		if err != nil {
			h.t.Fatalf("%v", err)
		}
		merges = h.windowing.merge(ask)
	}
	effects, err := h.key.Elements(h.now, elements, merges)
	if err != nil {
		h.t.Fatalf("%v", err)
	}
	h.apply(effects, names)
	h.due()
}

func (h *host) watermark(to int64) {
	h.t.Helper()
	h.now.Input = to
	h.due()
}

func (h *host) clock(to int64) {
	h.t.Helper()
	h.now.Processing = to
	h.due()
}

// due wakes windows until none is due, and tells the output watermark.
func (h *host) due() {
	h.t.Helper()
	for range 10000 {
		next, at, found := "", None, false
		for _, timers := range []struct {
			set map[string]int64
			now int64
		}{{h.event, h.now.Input}, {h.processing, h.now.Processing}} {
			for w, t := range timers.set {
				if t <= timers.now && (!found || cmp.Or(cmp.Compare(t, at), cmp.Compare(w, next)) < 0) {
					next, at, found = w, t, true
				}
			}
		}
		if !found {
			h.tell()
			return
		}
		h.load([]byte(next))
		effects, err := h.key.Wake(h.now, []byte(next))
		if err != nil {
			h.t.Fatalf("%v", err)
		}
		if len(effects) == 0 {
			h.t.Fatalf("a timer of %s at %d changes nothing", h.windowing.text([]byte(next)), at)
		}
		h.apply(effects, nil)
	}
	h.t.Fatalf("windows are woken without end")
}

// tell tells the output watermark, and looks whether all fits together.
func (h *host) tell() {
	h.t.Helper()
	output := min(h.now.Input, h.others)
	for w, hold := range h.holds {
		if hold < h.now.Output {
			h.t.Fatalf("%s holds the watermark at %d, which is at %d already", h.windowing.text([]byte(w)), hold, h.now.Output)
		}
		output = min(output, hold)
	}
	if output > h.now.Output {
		h.now.Output = output
	}
	for w := range h.states {
		if _, ok := h.event[w]; !ok {
			h.t.Fatalf("%s will never be forgotten", h.windowing.text([]byte(w)))
		}
	}
	for _, of := range []map[string]int64{h.event, h.processing, h.holds} {
		for w := range of {
			if h.states[w] == nil {
				h.t.Fatalf("%s has no state, but a timer or a hold", h.windowing.text([]byte(w)))
			}
		}
	}
	if len(h.bags) > len(h.states) {
		h.t.Fatalf("%d windows have %d bags", len(h.states), len(h.bags))
	}
}

func (h *host) apply(effects []Effect, names []string) {
	h.t.Helper()
	for _, e := range effects {
		w := h.windowing.text(e.Window)
		bag := ""
		if h.m.Merging() && e.Bag != nil {
			id, _ := binary.Uvarint(e.Bag)
			bag = fmt.Sprintf(" (bag %d)", id)
		}
		values := h.bags[string(e.Bag)]
		switch e.Kind {
		case Append:
			if e.At != int64(len(values)) {
				h.t.Fatalf("append at %d to %v", e.At, values)
			}
			h.bags[string(e.Bag)] = append(values, names[e.Element])
			fmt.Fprintf(&h.log, "%s%s takes %s\n", w, bag, names[e.Element])
		case Move:
			from := h.bags[string(e.From)]
			if e.At != int64(len(values)) || e.N != int64(len(from)) || e.N == 0 || string(e.From) == string(e.Bag) {
				h.t.Fatalf("move %d of %v from %x to %d of %v in %x", e.N, from, e.From, e.At, values, e.Bag)
			}
			h.bags[string(e.Bag)] = append(values, from...)
			delete(h.bags, string(e.From))
			id, _ := binary.Uvarint(e.From)
			fmt.Fprintf(&h.log, "bag %d is moved to the end of%s\n", id, bag)
		case Emit:
			if e.N != int64(len(values)) {
				h.t.Fatalf("emit %d of %v", e.N, values)
			}
			if end, expiry, _ := h.m.bounds(e.Window); e.Timestamp < h.now.Output && (e.Timestamp != end || expiry < h.now.Output) {
				h.t.Fatalf("%s puts out a pane at %d when the output watermark is %d", w, e.Timestamp, h.now.Output)
			}
			p := pane{window: w, values: slices.Clone(values), timestamp: e.Timestamp, info: e.Pane}
			h.panes = append(h.panes, p)
			fmt.Fprintln(&h.log, p)
		case Clear:
			if e.N != int64(len(values)) || e.N == 0 {
				h.t.Fatalf("clear %d of %v", e.N, values)
			}
			delete(h.bags, string(e.Bag))
			fmt.Fprintf(&h.log, "%s%s is emptied\n", w, bag)
		case Hold:
			h.change("hold", h.holds, e)
		case EventTimer:
			h.change("event timer", h.event, e)
		case ProcessingTimer:
			h.change("processing timer", h.processing, e)
		case Save:
			h.states[string(e.Window)] = slices.Clone(e.State)
		case Forget:
			if h.states[string(e.Window)] == nil {
				h.t.Fatalf("%s is forgotten and has no state", w)
			}
			delete(h.states, string(e.Window))
			fmt.Fprintf(&h.log, "%s is forgotten\n", w)
		case Drop:
			reason := []string{"late", "closed"}[e.Dropped]
			h.dropped = append(h.dropped, names[e.Element])
			fmt.Fprintf(&h.log, "%s drops %s: %s\n", w, names[e.Element], reason)
		default:
			h.t.Fatalf("effect %+v", e)
		}
	}
}

func (h *host) change(what string, of map[string]int64, e Effect) {
	h.t.Helper()
	was, ok := of[string(e.Window)]
	if !ok {
		was = None
	}
	if was != e.Was || e.Was == e.Is {
		h.t.Fatalf("%s of %s from %d to %d, and it is %d", what, h.windowing.text(e.Window), e.Was, e.Is, was)
	}
	if e.Is == None {
		delete(of, string(e.Window))
	} else {
		of[string(e.Window)] = e.Is
	}
	text := func(t int64) string {
		switch t {
		case None:
			return "none"
		case coder.EndOfGlobalWindow, coder.EndOfGlobalWindow + 1:
			return fmt.Sprintf("end of global window + %d", t-coder.EndOfGlobalWindow)
		}
		return fmt.Sprint(t)
	}
	fmt.Fprintf(&h.log, "%s %s: %s → %s\n", h.windowing.text(e.Window), what, text(e.Was), text(e.Is))
}
