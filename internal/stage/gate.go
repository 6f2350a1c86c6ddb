package stage

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
)

// gate stands before the harness in a stage of a streaming plan that has side inputs: an element passes when, of each side
// input, the window can be read that its own window reads. The others are pushed back, and pass later, in the order in which they
// came. An element in several windows passes for those that are ready.
type gate struct {
	spec      Spec
	views     *Views
	runner    admitted
	coder     *coder.Windowed           // of the input
	main      *window.Strategy          // of the input
	windowing *pipepb.WindowingStrategy // of the input
	lateness  int64
	mappers   []mapper // by side input; nil for one that nobody is asked about
	windowed  bool     // a side input has other windows than the global one

	floors     uint64  // of the side inputs, when windows was looked through last
	version    uint64  // of the side inputs, as far as this task was told
	watermarks []int64 // of the side inputs, the task's own
	now        time.Time
	windows    map[string]*admission
	waits      *pushback
	gone       map[int]int64 // elements dropped, by side input: their windows were over
	buf        []byte
	taken      int // bytes of the bundle under way, while what waited passes
}

// admitted is who has processed what passes.
type admitted interface {
	take(ctx context.Context, records []byte) error
	cut(ctx context.Context) error
}

// mapper finds the windows of a side input that windows of the main input read.
type mapper interface {
	windows(ctx context.Context, asked [][]byte) ([][]byte, error)
}

// admission is what is known of a window of the main input.
type admission struct {
	reads [][]byte // by side input, the window that it reads
	open  bool
}

// maxAdmissions bounds the windows that are remembered. What is forgotten is asked again.
const maxAdmissions = 1 << 14

func newGate(s Spec, to admitted, watermarks []int64) (*gate, error) {
	g := &gate{
		spec: s, views: s.Views, runner: to, watermarks: watermarks, windows: map[string]*admission{}, gone: map[int]int64{},
		mappers: make([]mapper, len(s.Stage.SideInputs)),
	}
	var err error
	if g.coder, err = coder.CompileWindowed(s.coders(), s.Stage.Input.Coder); err != nil {
		return nil, err
	}
	c := s.Plan.Pipeline.GetComponents()
	ws := c.GetWindowingStrategies()[c.GetPcollections()[s.Stage.Input.PCollection].GetWindowingStrategyId()]
	g.windowing = ws
	if g.main, err = window.Compile(ws, s.coders()); err != nil {
		return nil, fmt.Errorf("windowing of the input: %w", err)
	}
	g.lateness = min(ws.GetAllowedLateness(), coder.MaxTimestamp)
	for i, in := range s.Stage.SideInputs {
		g.windowed = g.windowed || in.Mapping != nil || in.Same
		if in.Mapping != nil {
			if g.mappers[i], err = newWindowMapper(s, in); err != nil {
				return nil, err
			}
		}
	}
	if g.waits, err = newPushback(s); err != nil {
		return nil, err
	}
	g.version = g.views.version()
	return g, nil
}

// admit passes on what can be processed of records, and keeps the rest.
func (g *gate) admit(ctx context.Context, records []byte) error {
	if !g.windowed {
		open, err := g.isOpen(nil)
		if err != nil {
			return err
		}
		if open {
			return g.runner.take(ctx, records)
		}
	}
	if err := g.learn(ctx, records); err != nil {
		return err
	}
	for start, at := 0, 0; ; {
		if at == len(records) {
			if at > start {
				if err := g.runner.take(ctx, records[start:at]); err != nil {
					return err
				}
			}
			return g.waits.flush()
		}
		h, size, err := g.coder.Record(records[at:])
		if err != nil {
			return fmt.Errorf("input: %w", err)
		}
		record := records[at : at+size]
		passes, err := g.passes(&h, record)
		if err != nil {
			return err
		}
		at += size
		if passes {
			continue
		}
		if at-size > start {
			if err := g.runner.take(ctx, records[start:at-size]); err != nil {
				return err
			}
		}
		start = at
		if err := g.split(ctx, &h, record); err != nil {
			return err
		}
	}
}

// each calls f with each window of a record, until it answers false. All global windows of a record are one.
func (g *gate) each(h *coder.Header, record []byte, f func(w []byte) (bool, error)) error {
	windows := h.Windows(record)
	if len(windows) == 0 {
		_, err := f(windows)
		return err
	}
	for range h.Count {
		n, err := g.coder.Window().Skip(windows)
		if err != nil {
			return fmt.Errorf("input: window: %w", err)
		}
		more, err := f(windows[:n:n])
		if !more || err != nil {
			return err
		}
		windows = windows[n:]
	}
	return nil
}

// passes tells whether all of a record can be processed.
func (g *gate) passes(h *coder.Header, record []byte) (passes bool, err error) {
	passes = true
	err = g.each(h, record, func(w []byte) (bool, error) {
		passes, err = g.isOpen(w)
		return passes, err
	})
	return passes, err
}

// split passes a record on for the windows that are open, and keeps it for the others, each part behind the first window of a
// side input that it waits for.
func (g *gate) split(ctx context.Context, h *coder.Header, record []byte) error {
	type part struct {
		wait    *waiting
		windows []byte
		count   uint32
	}
	var parts []part // the first one passes
	parts = append(parts, part{})
	err := g.each(h, record, func(w []byte) (bool, error) {
		wait, gone, err := g.blocked(w)
		if err != nil || gone {
			return err == nil, err
		}
		i := slices.IndexFunc(parts, func(p part) bool { return p.wait == wait })
		if i < 0 {
			i = len(parts)
			parts = append(parts, part{wait: wait})
		}
		parts[i].windows = append(parts[i].windows, w...)
		parts[i].count++
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.count == 0 {
			continue
		}
		g.buf = binary.BigEndian.AppendUint32(append(g.buf[:0], record[:coder.TimestampSize]...), p.count)
		g.buf = append(append(g.buf, p.windows...), record[h.PaneOffset:]...)
		if p.wait == nil {
			err = g.runner.take(ctx, g.buf)
		} else {
			err = g.waits.add(p.wait, h.Timestamp, g.buf)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// blocked is what an element in a window has to wait for; nil when it need not. gone says that a window that it reads was over
// and is forgotten.
func (g *gate) blocked(w []byte) (_ *waiting, gone bool, err error) {
	a := g.admission(w)
	for side, reads := range a.reads {
		ready, gone, err := g.views.readable(side, reads, g.version, g.watermarks[side])
		if err != nil {
			return nil, false, err
		}
		if gone {
			g.gone[side]++
			return nil, true, nil
		}
		if ready {
			continue
		}
		f := g.waits.waits(side, reads)
		return f, false, g.describe(f)
	}
	return nil, false, nil
}

// describe fills in what messages say of what waits.
func (g *gate) describe(f *waiting) (err error) {
	if f.since.IsZero() {
		f.since = g.now
		f.empty, err = g.views.live.sides[f.side].machine.Empty(f.window)
	}
	return err
}

// admission is what is known of a window. That of one that has not been asked for reads the same window, or the global one.
func (g *gate) admission(w []byte) *admission {
	a := g.windows[string(w)]
	if a == nil {
		a = &admission{reads: make([][]byte, len(g.mappers))}
		for i, in := range g.spec.Stage.SideInputs {
			a.reads[i] = window.Global
			if in.Same {
				a.reads[i] = slices.Clone(w)
			}
		}
		g.windows[string(w)] = a
	}
	return a
}

// isOpen tells whether all that an element in a window reads can be read.
func (g *gate) isOpen(w []byte) (bool, error) {
	a := g.admission(w)
	if a.open {
		return true, nil
	}
	for side, reads := range a.reads {
		if ready, _, err := g.views.readable(side, reads, g.version, g.watermarks[side]); err != nil || !ready {
			return false, err
		}
	}
	a.open = true
	return true, nil
}

// refresh forgets what need not be true any more.
func (g *gate) refresh() {
	if len(g.windows) > maxAdmissions {
		clear(g.windows)
	}
	if floors := g.views.floors.Load(); floors != g.floors {
		g.floors = floors
		for _, a := range g.windows {
			a.open = false
		}
	}
}

// learn asks the SDK which windows those of the records read, if it has to be asked.
func (g *gate) learn(ctx context.Context, records []byte) error {
	g.refresh()
	if !g.windowed {
		return nil
	}
	var asked [][]byte
	seen := map[string]bool{}
	for len(records) > 0 {
		h, size, err := g.coder.Record(records)
		if err != nil {
			return fmt.Errorf("input: %w", err)
		}
		if err := g.each(&h, records, func(w []byte) (bool, error) {
			if g.windows[string(w)] == nil && !seen[string(w)] {
				seen[string(w)] = true
				asked = append(asked, slices.Clone(w))
			}
			return true, nil
		}); err != nil {
			return err
		}
		records = records[size:]
	}
	return g.ask(ctx, asked)
}

func (g *gate) ask(ctx context.Context, asked [][]byte) error {
	if len(asked) == 0 {
		return nil
	}
	for _, w := range asked {
		g.admission(w)
	}
	for side, mapper := range g.mappers {
		if mapper == nil && !g.spec.Stage.SideInputs[side].Same {
			continue
		}
		answers := asked
		if mapper != nil {
			var err error
			if answers, err = mapper.windows(ctx, asked); err != nil {
				return err
			}
		}
		for i, w := range asked {
			g.windows[string(w)].reads[side] = answers[i]
			if err := g.mapped(side, w, answers[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// ahead has windows of side inputs go that no window of the main input will read any more, when they pile up because
// few elements come that would tell: the window that ends first of those that may still come reads the first that is needed.
func (g *gate) ahead(ctx context.Context) error {
	if !g.windowed {
		return nil
	}
	reached, ok := g.views.piled()
	if !ok {
		return nil
	}
	w, ok := window.First(g.windowing, g.spec.coders(), reached-g.lateness)
	if !ok {
		// Only the SDK knows its windows. But one that reads the same window does not end before what may still come.
		for side, in := range g.spec.Stage.SideInputs {
			if in.Same {
				g.views.mapped(side, coder.MinTimestamp, reached-g.lateness)
			}
		}
		return nil
	}
	if g.windows[string(w)] == nil {
		if err := g.ask(ctx, [][]byte{w}); err != nil {
			return err
		}
	}
	for side, reads := range g.windows[string(w)].reads {
		ends, err := g.views.live.sides[side].machine.End(reads)
		if err != nil {
			return fmt.Errorf("window that window %x of the input reads: %w", w, err)
		}
		g.views.mapped(side, coder.MinTimestamp, ends)
	}
	return nil
}

// mapped tells the side inputs which window is read until when.
func (g *gate) mapped(side int, w, reads []byte) error {
	end, err := g.main.MaxTimestamp(w)
	if err != nil {
		return err
	}
	expiry := min(end, coder.MaxTimestamp-g.lateness) + g.lateness
	if g.main.Global() {
		expiry = coder.MinTimestamp // no other window will ever read anything
	}
	ends, err := g.views.live.sides[side].machine.End(reads)
	if err != nil {
		return fmt.Errorf("window that window %x of the input reads: %w", w, err)
	}
	g.views.mapped(side, expiry, ends)
	return nil
}

// opens tells whether elements of a window would pass now.
func (g *gate) opens(ctx context.Context, w []byte) (bool, error) {
	g.refresh()
	if g.windowed && g.windows[string(w)] == nil {
		if err := g.ask(ctx, [][]byte{slices.Clone(w)}); err != nil {
			return false, err
		}
	}
	return g.isOpen(w)
}

// release passes on what can be processed of what waited.
func (g *gate) release(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(g.waits.waiting)) {
		f := g.waits.waiting[id]
		ready, gone, err := g.views.readable(f.side, f.window, g.version, g.watermarks[f.side])
		if err != nil {
			return err
		}
		if !ready && !gone {
			continue
		}
		if err := g.waits.take(f, func(records []byte) error { return g.again(ctx, records) }); err != nil {
			return err
		}
	}
	return nil
}

// again admits what has waited.
func (g *gate) again(ctx context.Context, records []byte) error {
	if err := g.admit(ctx, records); err != nil {
		return err
	}
	if g.taken += len(records); g.taken < g.spec.BundleBytes {
		return nil
	}
	g.taken = 0
	return g.runner.cut(ctx)
}

const (
	// firstWord is after how long the job is told of a side input that is waited for, lastPause how long it is until it is told
	// again at most: each pause is twice the one before.
	firstWord = 5 * time.Second
	lastPause = 10 * time.Minute
)

// tell tells the job what is waited for.
func (g *gate) tell(now time.Time) error {
	g.now = now
	oldest := map[int]*waiting{}
	counts := make([]int64, len(g.mappers))
	for _, f := range g.waits.waiting {
		if err := g.describe(f); err != nil {
			return err
		}
		counts[f.side] += f.count
		if o := oldest[f.side]; o == nil || f.since.Before(o.since) || f.since.Equal(o.since) && string(f.window) < string(o.window) {
			oldest[f.side] = f
		}
	}
	for side, count := range counts {
		var since time.Time
		if f := oldest[side]; f != nil {
			since = f.since
		}
		if total, due := g.views.waits(side, g.spec.Index, count, since, now); due {
			g.spec.Out.Message(g.word(oldest[side], total))
		}
	}
	for side, n := range g.gone {
		in := g.spec.Stage.SideInputs[side]
		g.spec.Out.Message(jobpb.JobMessage_JOB_MESSAGE_WARNING, fmt.Sprintf(
			"transform %s: %d elements were dropped: their windows were over, and what they read of side input %q was no longer kept", g.name(in.Transform), n, in.Tag))
	}
	clear(g.gone)
	return g.tellPiles(now)
}

func (g *gate) name(transform string) string {
	return g.spec.Plan.Pipeline.GetComponents().GetTransforms()[transform].GetUniqueName()
}

// word says what is waited for.
func (g *gate) word(f *waiting, total int64) (jobpb.JobMessage_MessageImportance, string) {
	in := g.spec.Stage.SideInputs[f.side]
	side := g.views.live.sides[f.side]
	var b strings.Builder
	fmt.Fprintf(&b, "transform %s: %s for side input %q, the first of them for %s, since %s. Nothing has come of that window, and the side input's watermark is at %s",
		g.name(in.Transform), waitText(total), in.Tag, g.windowText(side, f.window), f.since.UTC().Format(time.RFC3339), timeText(g.watermarks[f.side]))
	if f.empty < coder.EndOfGlobalWindow {
		fmt.Fprintf(&b, "; past %s it counts as empty", timeText(f.empty))
		return jobpb.JobMessage_JOB_MESSAGE_BASIC, b.String()
	}
	fmt.Fprintf(&b, ". By its trigger, %s, it can be read when the trigger fires, or at the end of all of the side input: if that never ends, "+
		"give it windows, or a trigger that fires earlier", side.machine.Trigger())
	return jobpb.JobMessage_JOB_MESSAGE_WARNING, b.String()
}

func waitText(n int64) string {
	if n == 1 {
		return "1 element waits"
	}
	return fmt.Sprintf("%d elements wait", n)
}

func (g *gate) windowText(s *liveSide, w []byte) string {
	switch {
	case len(w) == 0:
		return "the global window"
	case s.custom:
		end, err := s.machine.End(w)
		if err != nil {
			return fmt.Sprintf("window %x", w)
		}
		return "the window that ends at " + timeText(end)
	}
	i, _, err := window.DecodeInterval(w)
	if err != nil {
		return fmt.Sprintf("window %x", w)
	}
	return fmt.Sprintf("window [%s, %s)", timeText(i.Start), timeText(i.End))
}

// timeText is an event time as people read it.
func timeText(millis int64) string {
	switch {
	case millis <= coder.MinTimestamp:
		return "the beginning of time"
	case millis >= coder.EndOfGlobalWindow:
		return "the end of time"
	}
	return time.UnixMilli(millis).UTC().Format("2006-01-02T15:04:05.999Z")
}

// wake is when tell wants to be called again; zero when nothing waits.
func (g *gate) wake() time.Time {
	var wake time.Time
	for _, f := range g.waits.waiting {
		if f.since.IsZero() {
			continue // before any Clock
		}
		if at := g.views.nextWord(f.side, f.since); wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	return wake
}
