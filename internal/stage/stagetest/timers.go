package stagetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"trestle/internal/beam/coder"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

var timerCases = []testCase{
	{"timers of a key fire one by one, in the order of their times", timersInOrder},
	{"a timer that is set again fires at the last time that was set", timerSetAgain},
	{"a timer that is cleared does not fire", timerCleared},
	{"a timer may set an earlier one, and clear one that was due", timerChangesTimers},
	{"timers of one key and family are told apart by window and tag", timersByTag},
	{"processing time passes for bounded input when nothing else is left", processingTimeEnds},
	{"a window's end is told last", windowExpires},
	{"a timer past the end of time is refused by its name", timerPastEnd},
	{"timers that are no encoding are refused", timerGarbage},
}

// timer is a timer of a string key.
type timer struct {
	key, tag string
	window   []byte
	fires    int64
	clear    bool
}

// timersOf are timers of the transform "work", of its family "t".
func timersOf(timers ...timer) sdk.Timers {
	var b []byte
	for _, t := range timers {
		b = sdk.String(sdk.String(b, t.key), t.tag)
		b = append(append(b, 0, 0, 0, 1), t.window...)
		if t.clear {
			b = append(b, 1)
			continue
		}
		b = coder.AppendTimestamp(coder.AppendTimestamp(append(b, 0), t.fires), t.fires)
		b = coder.AppendPane(b, coder.NoFiring)
	}
	return sdk.Timers{Transform: "work", Family: "t", Data: b}
}

// readTimers takes timers of string keys apart, in windows of the size.
func readTimers(b []byte, windowSize int) ([]timer, error) {
	var all []timer
	for len(b) > 0 {
		var t timer
		for _, field := range []*string{&t.key, &t.tag} {
			size, n := binary.Uvarint(b)
			*field, b = string(b[n:n+int(size)]), b[n+int(size):]
		}
		if len(b) < 4+windowSize+18 || binary.BigEndian.Uint32(b) != 1 || b[4+windowSize] != 0 {
			return nil, fmt.Errorf("a timer that fires is %x", b)
		}
		t.window, b = b[4:4+windowSize], b[4+windowSize+1:]
		t.fires = coder.Timestamp(b)
		b = b[17:]
		all = append(all, t)
	}
	return all, nil
}

// fires calls f with each timer that a bundle fires.
func fires(b *sdk.Bundle, windowSize int, f func(family string, t timer) error) error {
	for _, fired := range b.Fired() {
		timers, err := readTimers(fired.Data, windowSize)
		if err != nil {
			return err
		}
		for _, t := range timers {
			if err := f(fired.Family, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// history is a script that sets timers when elements come, and notes what fires.
type history struct {
	windowSize int
	onElement  func(b *sdk.Bundle, e sdk.Element, key, value string) error
	onTimer    func(b *sdk.Bundle, t timer) error // may be nil
	events     []string
}

func (h *history) script(b *sdk.Bundle) error {
	if err := eachPair(b, func(e sdk.Element, key, value string) error {
		h.events = append(h.events, value)
		return h.onElement(b, e, key, value)
	}); err != nil {
		return err
	}
	keys := map[string]bool{}
	return fires(b, h.windowSize, func(family string, t timer) error {
		if keys[t.key] {
			return errors.New("two timers of a key fire in one bundle")
		}
		keys[t.key] = true
		h.events = append(h.events, strings.TrimPrefix(family+t.tag, "t")+fmt.Sprint("@", t.fires))
		if h.onTimer == nil {
			return nil
		}
		return h.onTimer(b, t)
	})
}

func (h *history) check(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(h.events, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func timersInOrder(t *testing.T, open Open) {
	h := &history{onElement: func(b *sdk.Bundle, _ sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, tag: "b", fires: 20}, timer{key: key, tag: "a", fires: 10}, timer{key: key, tag: "c", fires: 30}))
	}}
	r := start(t, open, setup{pipeline: keeper("global", "timers"), script: h.script})
	r.group(pairs("k=x"))
	r.finish()
	h.check(t, "x a@10 b@20 c@30")
}

func timerSetAgain(t *testing.T, open Open) {
	h := &history{onElement: func(b *sdk.Bundle, _ sdk.Element, key, _ string) error {
		if err := b.SetTimers(timersOf(timer{key: key, fires: 10}, timer{key: key, fires: 30})); err != nil {
			return err
		}
		return b.SetTimers(timersOf(timer{key: key, fires: 20}))
	}}
	r := start(t, open, setup{pipeline: keeper("global", "timers"), bundleBytes: 1, script: h.script})
	r.group(pairs("k=x k=y"))
	r.finish()
	h.check(t, "x y @20")
}

func timerCleared(t *testing.T, open Open) {
	h := &history{onElement: func(b *sdk.Bundle, _ sdk.Element, key, value string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: 10, clear: value == "clear"}, timer{key: key, tag: "other", fires: 5}))
	}}
	r := start(t, open, setup{pipeline: keeper("global", "timers"), bundleBytes: 1, script: h.script})
	r.group(pairs("k=set k=clear"))
	r.finish()
	h.check(t, "set clear other@5")
}

func timerChangesTimers(t *testing.T, open Open) {
	h := &history{onElement: func(b *sdk.Bundle, _ sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, tag: "a", fires: 10}, timer{key: key, tag: "b", fires: 20}))
	}}
	h.onTimer = func(b *sdk.Bundle, t timer) error {
		if t.tag != "a" {
			return nil
		}
		return b.SetTimers(timersOf(timer{key: t.key, tag: "b", clear: true}, timer{key: t.key, tag: "early", fires: 5}, timer{key: t.key, tag: "same", fires: 10}))
	}
	r := start(t, open, setup{pipeline: keeper("global", "timers"), script: h.script})
	r.group(pairs("k=x"))
	r.finish()
	h.check(t, "x a@10 early@5 same@10")
}

func timersByTag(t *testing.T, open Open) {
	first, second := interval(0, 10), interval(10, 20)
	h := &history{windowSize: len(first), onElement: func(b *sdk.Bundle, e sdk.Element, key, value string) error {
		return b.SetTimers(timersOf(timer{key: key, tag: value, window: e.Windows, fires: int64(len(value))}))
	}}
	r := start(t, open, setup{pipeline: keeper("fixed", "timers"), script: h.script})
	r.group(windowedRecord(windowedRecord(windowedRecord(nil, 1, first, "k", "a"), 1, first, "k", "bb"), 11, second, "k", "ccc"))
	r.finish()
	h.check(t, "a bb ccc a@1 bb@2 ccc@3")
}

func processingTimeEnds(t *testing.T, open Open) {
	n := 0
	h := &history{onElement: func(b *sdk.Bundle, _ sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: 1 << 50}))
	}}
	h.onTimer = func(b *sdk.Bundle, t timer) error {
		if n++; n == 3 {
			return nil
		}
		return b.SetTimers(timersOf(timer{key: t.key, fires: t.fires + 1}))
	}
	r := start(t, open, setup{pipeline: keeper("global", "timers=processing"), script: h.script})
	r.group(pairs("k=x"))
	r.finish()
	h.check(t, fmt.Sprintf("x @%d @%d @%d", 1<<50, 1<<50+1, 1<<50+2))
}

func windowExpires(t *testing.T, open Open) {
	w := interval(0, 10)
	h := &history{windowSize: len(w), onElement: func(b *sdk.Bundle, e sdk.Element, key, value string) error {
		return b.SetTimers(timersOf(timer{key: key, tag: "last", window: e.Windows, fires: 9}))
	}}
	r := start(t, open, setup{pipeline: keeper("fixed", "timers expiry"), script: h.script})
	r.group(windowedRecord(nil, 1, w, "k", "x"))
	r.finish()
	h.check(t, "x last@9 end@9")
}

func timerPastEnd(t *testing.T, open Open) {
	h := &history{onElement: func(b *sdk.Bundle, _ sdk.Element, key, _ string) error {
		return b.SetTimers(timersOf(timer{key: key, fires: coder.MaxTimestamp + 1}))
	}}
	r := start(t, open, setup{pipeline: keeper("global", "timers"), script: h.script})
	r.group(pairs("k=x"))
	err := r.tasks[0].End(r.ctx, stage.MainInput)
	if err == nil || !strings.Contains(err.Error(), `transform work set a timer of family "t" past the end of time`) {
		t.Errorf("no error that names the timer: %v", err)
	}
}

func timerGarbage(t *testing.T, open Open) {
	whole := timersOf(timer{key: "k", tag: "tag", fires: 1})
	for size := 1; size < len(whole.Data); size++ {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := start(t, open, setup{pipeline: keeper("global", "timers"), script: func(b *sdk.Bundle) error {
				if err := b.Each(func(sdk.Element) error { return nil }); err != nil {
					return err
				}
				return b.SetTimers(sdk.Timers{Transform: "work", Family: "t", Data: whole.Data[:size]})
			}})
			r.group(pairs("k=x"))
			if err := r.tasks[0].End(r.ctx, stage.MainInput); err == nil {
				t.Error("no error")
			}
		})
	}
}
