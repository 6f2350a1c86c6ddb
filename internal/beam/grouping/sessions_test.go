package grouping

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/trigger/triggertest"
	"trestle/internal/beam/window"
)

// sessions is a reference for windows that merge: it keeps the elements, and works out their sessions from all of them
// whenever something happens. Its triggers are AfterEndOfWindow(early=ElementCount(early), late=ElementCount(late)) and,
// with early as 0, Default.
type sessions struct {
	gap, lateness int64
	early, late   int
	accumulating  bool
	now           Now
	pool          []*member
	panes         map[window.Interval]int // that a session has had since it became this one
	timing        map[window.Interval]coder.Timing
	out           []string
	dropped       []string
}

type member struct {
	item
	out, onTime bool // it has been put out; its session was on time
}

func (m *member) window(gap int64) window.Interval {
	return window.Interval{Start: m.timestamp, End: m.timestamp + gap}
}

// now returns the sessions, and the members of each in their order.
func (s *sessions) sessions() map[window.Interval][]*member {
	windows := make([]window.Interval, len(s.pool))
	for i, m := range s.pool {
		windows[i] = m.window(s.gap)
	}
	merged, into := window.Merge(windows)
	found := map[window.Interval][]*member{}
	for i, m := range s.pool {
		w := merged[into[i]]
		found[w] = append(found[w], m)
	}
	return found
}

func (s *sessions) take(items ...item) {
	for _, i := range items {
		m := &member{item: i}
		if s.now.Input > i.timestamp+s.gap-1+s.lateness {
			s.dropped = append(s.dropped, i.name)
			continue
		}
		s.pool = append(s.pool, m)
		found := s.sessions()
		for w := range s.panes {
			if found[w] == nil {
				delete(s.panes, w)
				delete(s.timing, w)
			}
		}
		for w, members := range found {
			if !slices.Contains(members, m) {
				continue
			}
			older := members[:len(members)-1]
			m.onTime = len(older) > 0 && s.now.Input >= w.End &&
				!slices.ContainsFunc(older, func(m *member) bool { return !m.onTime })
			for _, o := range older {
				o.onTime = m.onTime
			}
			s.ask(w, members)
		}
	}
}

func (s *sessions) clock(int64) {}

func (s *sessions) watermark(to int64) {
	was := s.now.Input
	s.now.Input = to
	for w, members := range s.sessions() {
		switch {
		case to > w.End-1+s.lateness:
			s.fire(w, members, true)
			s.pool = slices.DeleteFunc(s.pool, func(m *member) bool { return slices.Contains(members, m) })
			delete(s.panes, w)
			delete(s.timing, w)
		case was < w.End && to >= w.End:
			s.ask(w, members)
		}
	}
}

func (s *sessions) ask(w window.Interval, members []*member) {
	waiting := 0
	for _, m := range members {
		if !m.out {
			waiting++
		}
	}
	ended := s.now.Input >= w.End
	switch {
	case s.early == 0 && !ended, s.early > 0 && !members[0].onTime && !ended && waiting < s.early,
		s.early > 0 && members[0].onTime && waiting < s.late:
		return
	}
	s.fire(w, members, false)
	for _, m := range members {
		m.onTime = ended
	}
}

func (s *sessions) fire(w window.Interval, members []*member, last bool) {
	var values []string
	fresh := false
	for _, m := range members {
		if !m.out || s.accumulating {
			values = append(values, m.name)
		}
		fresh = fresh || !m.out
		m.out = true
	}
	if !fresh {
		return
	}
	slices.Sort(values)
	timing := coder.Early
	if s.now.Input >= w.End {
		timing = coder.OnTime
		if n, ok := s.timing[w]; ok && n != coder.Early || s.now.Output >= w.End {
			timing = coder.Late
		}
	}
	s.out = append(s.out, fmt.Sprintf("[%d,%d) %d %d last %v: %v", w.Start, w.End, timing, s.panes[w], last, values))
	s.panes[w]++
	s.timing[w] = timing
}

func canonical(panes []pane) (texts []string) {
	for _, p := range panes {
		slices.Sort(p.values)
		texts = append(texts, fmt.Sprintf("%s %d %d last %v: %v", p.window, p.info.Timing, p.info.Index, p.info.Last, p.values))
	}
	return texts
}

// TestSessionsAreTheirReference: whatever the order in which elements come and windows merge, a session has the elements
// that it should, and puts them out when its trigger says so, in the runner's hands as in the SDK's.
func TestSessionsAreTheirReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := drawStrategy(t)
		ws.ClosingBehavior, ws.OnTimeBehavior = pipepb.ClosingBehavior_EMIT_IF_NONEMPTY, pipepb.OnTimeBehavior_FIRE_IF_NONEMPTY
		s := &sessions{
			gap: 10, lateness: ws.GetAllowedLateness(), accumulating: ws.GetAccumulationMode() == pipepb.AccumulationMode_ACCUMULATING,
			now:    Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp},
			panes:  map[window.Interval]int{},
			timing: map[window.Interval]coder.Timing{},
		}
		text := "Default"
		if s.early = rapid.IntRange(0, 4).Draw(t, "early"); s.early > 0 {
			s.late = rapid.IntRange(1, 4).Draw(t, "late")
			text = fmt.Sprintf("AfterEndOfWindow(early=ElementCount(%d), late=ElementCount(%d))", s.early, s.late)
		}
		var err error
		if ws.Trigger, err = triggertest.Parse(text); err != nil {
			t.Fatal(err)
		}
		kind := rapid.SampledFrom([]string{"sessions-10", "custom-10"}).Draw(t, "windows")
		h, err := newHost(t, parseWindowing(kind), proto.CloneOf(ws))
		if err != nil {
			t.Fatal(err)
		}
		same := func(event string) {
			slices.Sort(s.out)
			got := canonical(h.panes)
			slices.Sort(got)
			if d := cmp.Diff(s.out, got); d != "" {
				t.Fatalf("%s %s: panes, those that are wrong with +:\n%s", text, event, d)
			}
			if d := cmp.Diff(s.dropped, h.dropped); d != "" {
				t.Fatalf("%s: dropped, those that are wrong with +:\n%s", event, d)
			}
			if len(s.sessions()) != len(h.states) {
				t.Fatalf("%s: %d windows are kept, and should be %d", event, len(h.states), len(s.sessions()))
			}
			s.out, h.panes, s.dropped, h.dropped = nil, nil, nil, nil
			s.now.Output = h.now.Output // holds have a property of their own
		}
		take := func(items ...item) {
			if strings.HasPrefix(kind, "custom") {
				items = items[:1] // which merges a bundle at once
			}
			s.take(items...)
			h.elements(items...)
		}
		serial, watermark, clock := 0, int64(-10), int64(0)
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			same(drawEvent(t, &serial, &watermark, &clock, take, s, h))
		}
		s.watermark(coder.MaxTimestamp)
		h.watermark(coder.MaxTimestamp)
		same("the end")
		if len(h.states)+len(h.bags)+len(h.event)+len(h.processing)+len(h.holds) > 0 {
			t.Fatalf("left at the end: %+v", h)
		}
	})
}

// TestAnyTriggerKeepsMergedElements: with any trigger, no element is lost or put out twice by windows' merging: those that
// are not dropped are in the panes, once each when fired panes are discarded.
func TestAnyTriggerKeepsMergedElements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ws := drawStrategy(t)
		ws.AccumulationMode = pipepb.AccumulationMode_DISCARDING
		var err error
		if ws.Trigger, err = triggertest.Parse(triggertest.Random(2).Draw(t, "trigger")); err != nil {
			t.Fatal(err)
		}
		h, err := newHost(t, parseWindowing(rapid.SampledFrom([]string{"sessions-10", "custom-10"}).Draw(t, "windows")), ws)
		if err != nil {
			t.Fatal(err)
		}
		serial, watermark, clock := 0, int64(-10), int64(0)
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			drawEvent(t, &serial, &watermark, &clock, h.elements, h)
		}
		h.watermark(coder.MaxTimestamp)
		seen := map[string]int{}
		for _, name := range h.dropped {
			seen[name]++
		}
		for _, p := range h.panes {
			for _, name := range p.values {
				seen[name]++
			}
		}
		for i := 1; i <= serial; i++ {
			if name := fmt.Sprintf("e%d", i); seen[name] != 1 {
				t.Fatalf("%s was seen %d times", name, seen[name])
			}
		}
		if len(h.states)+len(h.bags)+len(h.event)+len(h.processing)+len(h.holds) > 0 {
			t.Fatalf("left at the end: %+v", h)
		}
	})
}

// TestMergeIntoOneOfThem: a window that others are merged into goes on with its panes, and has all values.
func TestMergeIntoOneOfThem(t *testing.T) {
	trigger, err := triggertest.Parse("Repeat(ElementCount(2))")
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHost(t, parseWindowing("custom-10"), &pipepb.WindowingStrategy{
		Trigger: trigger, OutputTime: pipepb.OutputTime_END_OF_WINDOW, AccumulationMode: pipepb.AccumulationMode_ACCUMULATING,
	})
	if err != nil {
		t.Fatal(err)
	}
	h.elements(item{"a", 0}, item{"b", 0}, item{"c", 20})
	at := func(timestamp int64) []byte { return h.windowing.assign(timestamp)[0] }
	h.load()
	effects, err := h.key.Elements(h.now, []Element{{Window: at(40), Timestamp: 40}}, []Merge{{Into: at(0), From: [][]byte{at(0), at(20), at(40)}}})
	if err != nil {
		t.Fatal(err)
	}
	h.apply(effects, []string{"d"})
	h.due()
	want := []string{"[0,10) pane EARLY 0 first at 9: a b", "[0,10) pane EARLY 1 at 9: a b c d"}
	if d := cmp.Diff(want, sortedPanes(h.panes)); d != "" {
		t.Errorf("panes, those that are wrong with +:\n%s", d)
	}
}

// TestWrongMerges: what an SDK must not answer is an error that says so.
func TestWrongMerges(t *testing.T) {
	h, err := newHost(t, parseWindowing("custom-10"), &pipepb.WindowingStrategy{OutputTime: pipepb.OutputTime_END_OF_WINDOW})
	if err != nil {
		t.Fatal(err)
	}
	h.elements(item{"a", 0}, item{"b", 20}, item{"c", 40})
	at := func(timestamp int64) []byte { return h.windowing.assign(timestamp)[0] }
	for _, test := range []struct {
		merges []Merge
		want   string
	}{
		{[]Merge{{Into: at(100), From: [][]byte{at(0), at(60)}}, {Into: at(110), From: [][]byte{at(60), at(20)}}}, "merged the window"},
		{[]Merge{{Into: at(40), From: [][]byte{at(0), at(60)}}}, "which is a window that it did not merge"},
		{[]Merge{{Into: at(100), From: [][]byte{at(0)}}, {Into: at(100), From: [][]byte{at(20)}}}, "twice"},
		{[]Merge{{Into: []byte{1}, From: [][]byte{at(0), at(60)}}}, "window of a group"},
	} {
		h.load()
		if _, err := h.key.Elements(h.now, []Element{{Window: at(60), Timestamp: 60}}, test.merges); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, not %q", test.merges, err, test.want)
		}
	}
}

// FuzzLoad: no bytes make loading a state fail in another way than with an error, and what is loaded can be used.
func FuzzLoad(f *testing.F) {
	var machines []*Machine
	for _, text := range []string{
		"Default",
		"AfterEndOfWindow(early=AfterAll(ElementCount(2), AfterProcessingTime(delay 5)), late=OrFinally(Always, ElementCount(4)))",
	} {
		for _, kind := range []string{"sessions-10", "fixed-10", "global"} {
			trigger, err := triggertest.Parse(text)
			if err != nil {
				f.Fatal(err)
			}
			h, err := newHost(f, parseWindowing(kind), &pipepb.WindowingStrategy{
				Trigger: trigger, OutputTime: pipepb.OutputTime_EARLIEST_IN_PANE, AllowedLateness: 5, AccumulationMode: pipepb.AccumulationMode_ACCUMULATING,
			})
			if err != nil {
				f.Fatal(err)
			}
			h.elements(item{"a", 1}, item{"b", 2}, item{"c", 3})
			for w, state := range h.states {
				f.Add(uint8(len(machines)), []byte(w), state)
			}
			machines = append(machines, h.m)
		}
	}
	f.Add(uint8(0), window.AppendInterval(nil, window.Interval{Start: coder.MinTimestamp, End: coder.MaxTimestamp + 1}), []byte{version, 0})
	f.Fuzz(func(t *testing.T, which uint8, w, state []byte) {
		m := machines[int(which)%len(machines)]
		k := m.NewKey()
		if k.Load(w, state) != nil {
			return
		}
		now := Now{Input: coder.MinTimestamp, Output: coder.MinTimestamp}
		for _, now.Input = range []int64{coder.MinTimestamp, 0, coder.MaxTimestamp} {
			if _, err := k.Elements(now, []Element{{Window: w, Timestamp: 5}}, nil); err != nil {
				t.Fatal(err)
			}
			effects, err := k.Wake(now, w)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range effects {
				if e.Kind != Save || !bytes.Equal(e.Window, w) {
					continue
				}
				if err := m.NewKey().Load(w, e.State); err != nil {
					t.Fatalf("%x was saved as %x: %v", state, e.State, err)
				}
			}
		}
	})
}
