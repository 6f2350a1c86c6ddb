package stagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// sidedStream is a stage of a streaming plan whose elements, in windows, read a side input in windows.
const sidedStream = `
env other
window fixed fn=fixed
window counted fn=fixed trigger=Repeat(ElementCount(2)) mode=accumulating
window never
impulse start() > I
pardo source(I) > in:ELEMENT@fixed~ env=other
pardo sides(I) > L:string@SIDE~ env=other
pardo work(in, list=L) > out:string@global OPTIONS
pardo next(out) > end env=other
`

func sidedBy(side, element, options string) string {
	return strings.NewReplacer("SIDE", side, "ELEMENT", element, "OPTIONS", options).Replace(sidedStream)
}

var pushbackCases = []testCase{
	{"an element waits until a pane of the window that it reads has come, and holds the watermark", elementWaits},
	{"a window that nothing has come of can be read when nothing can come any more", emptyWindowIsReady},
	{"an element of several windows is processed in those that are ready", elementWaitsInParts},
	{"what is read is the latest pane", latestPaneIsRead},
	{"timers do not overtake elements that wait", timersWaitForElements},
	{"what waits for a side input, and what has come of that, are in a snapshot, for tasks of any number", snapshotOfPushback},
	{"what is waited for is told by transform, side input and window", waitingIsTold},
	{"a mapping of windows that fails alike is the task's failure, by the side input's name", mappingFails},
	{"windows are mapped again when the harness dies", mappedAgain},
	{directly + "a harness that goes away between two questions about windows costs nothing", mappedByAnother},
}

// sameWindow is a window mapping that gives the same window.
func sameWindow(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		// KV<nonce, window>, as it came.
		return b.Write("mapped", append(coder.AppendHeader(nil, e.Timestamp, nil, coder.NoFiring), e.Value...))
	})
}

// readWindows puts out, for each element and window, what it reads.
func readWindows(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		words, err := sdk.Strings(e.Value)
		if err != nil {
			return err
		}
		for rest := e.Windows; len(rest) > 0; {
			w, n, err := window.DecodeInterval(rest)
			if err != nil {
				return err
			}
			values, err := readStrings(b, listKey(rest[:n]))
			if err != nil {
				return err
			}
			slices.Sort(values)
			rest = rest[n:]
			if err := b.Write("out", record(nil, e.Timestamp, fmt.Sprintf("%s@%d[%s]", words[0], w.Start, strings.Join(values, ",")))); err != nil {
				return err
			}
		}
		return nil
	})
}

func startSided(t *testing.T, open Open, s setup) *rig {
	if s.pipeline == "" {
		s.pipeline = sidedBy("fixed", "string", "")
	}
	if s.script == nil {
		s.script = readWindows
	}
	if s.mapping == nil {
		s.mapping = sameWindow
	}
	return start(t, open, s)
}

// side brings elements of the side input to the first task.
func (r *rig) side(records []byte) {
	r.t.Helper()
	r.process(listInput, records)
	r.spread()
}

// sideWatermark tells all tasks of the side input's watermark, as an engine does.
func (r *rig) sideWatermark(millis int64) {
	r.t.Helper()
	for i := range r.tasks {
		if err := r.streaming(i).Watermark(r.ctx, listInput, millis); err != nil {
			r.t.Fatal(err)
		}
		if i == 0 {
			r.spread()
		}
	}
}

// spread brings to the others what the first task has told of the side inputs.
func (r *rig) spread() {
	r.t.Helper()
	for _, version := range r.outputs[0].versions {
		for i := range r.tasks[1:] {
			if err := r.streaming(1+i).Readable(r.ctx, version); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	r.outputs[0].versions = nil
}

func elementWaits(t *testing.T, open Open) {
	r := startSided(t, open, setup{})
	r.process(stage.MainInput, windowedRecord(windowedRecord(nil, 3, first, "a"), 12, second, "b"))
	r.watermark(15)
	r.flush()
	r.want("")
	r.told(3)
	r.side(windowedRecord(nil, 1, first, "x"))
	r.flush()
	r.want("") // its pane comes with the end of the window
	r.sideWatermark(10)
	r.flush()
	r.want("a@0[x]")
	r.told(12)
	r.side(windowedRecord(nil, 11, second, "y"))
	r.sideWatermark(20)
	r.flush()
	r.want("a@0[x] b@10[y]")
	r.told(15)
	r.quiet(false)
	r.watermark(coder.MaxTimestamp)
	r.quiet(true)
}

func emptyWindowIsReady(t *testing.T, open Open) {
	r := startSided(t, open, setup{})
	r.process(stage.MainInput, windowedRecord(windowedRecord(nil, 3, first, "a"), 12, second, "b"))
	r.sideWatermark(9)
	r.flush()
	r.want("")
	r.sideWatermark(10)
	r.flush()
	r.want("a@0[]")
	r.sideWatermark(coder.MaxTimestamp)
	r.flush()
	r.want("a@0[] b@10[]")
}

func elementWaitsInParts(t *testing.T, open Open) {
	r := startSided(t, open, setup{})
	windows := slices.Concat(first, second, third)
	b := coder.AppendTimestamp(nil, 5)
	b = append(append(append(b, 0, 0, 0, 3), windows...), coder.AppendPane(nil, coder.NoFiring)...)
	r.side(windowedRecord(windowedRecord(nil, 1, first, "x"), 21, third, "z"))
	r.sideWatermark(10)
	r.process(stage.MainInput, sdk.String(b, "a"))
	r.watermark(30)
	r.flush()
	r.want("a@0[x]")
	r.told(5)
	r.sideWatermark(30)
	r.flush()
	r.want("a@0[x] a@10[] a@20[z]")
	r.told(30)
}

func latestPaneIsRead(t *testing.T, open Open) {
	r := startSided(t, open, setup{pipeline: sidedBy("counted", "string", "")})
	r.side(windowedRecord(windowedRecord(windowedRecord(nil, 1, first, "x"), 1, first, "y"), 1, first, "z"))
	r.process(stage.MainInput, windowedRecord(nil, 3, first, "a"))
	r.flush()
	r.want("a@0[x,y]")
	r.side(windowedRecord(nil, 1, first, "w"))
	r.process(stage.MainInput, windowedRecord(nil, 3, first, "b"))
	r.flush()
	r.want("a@0[x,y] b@0[w,x,y,z]")
}

func timersWaitForElements(t *testing.T, open Open) {
	r := startSided(t, open, setup{
		pipeline: sidedBy("fixed", "kv(string,string)", "timers"),
		script: func(b *sdk.Bundle) error {
			if err := eachPair(b, func(e sdk.Element, key, value string) error {
				if value == "sets" {
					if err := b.SetTimers(timersOf(timer{key: key, window: e.Windows, fires: 8})); err != nil {
						return err
					}
				}
				return b.Write("out", record(nil, e.Timestamp, key+"="+value))
			}); err != nil {
				return err
			}
			return fires(b, len(second), func(_ string, t timer) error { return b.Write("out", record(nil, t.fires, t.key+"@fired")) })
		},
	})
	r.group(windowedRecord(nil, 3, first, "k", "sets"))
	r.sideWatermark(5)
	r.watermark(9) // the timer's time has come, but the element that sets it waits
	r.flush()
	r.want("")
	r.told(3)
	r.sideWatermark(10)
	r.flush()
	r.want("k=sets k@fired")
	r.told(9)
}

func snapshotOfPushback(t *testing.T, open Open) {
	one := startSided(t, open, setup{parallelism: 2})
	one.process(stage.MainInput, windowedRecord(windowedRecord(nil, 3, first, "a"), 12, second, "b"))
	if err := one.tasks[1].Process(one.ctx, stage.Delivery{}, windowedRecord(nil, 13, second, "c")); err != nil {
		t.Fatal(err)
	}
	one.side(windowedRecord(windowedRecord(nil, 1, first, "x"), 11, second, "y"))
	one.sideWatermark(10)
	one.flush()
	one.want("a@0[x]")
	restore := one.snapshots()
	one.side(windowedRecord(nil, 11, second, "later"))
	one.end()
	for _, parallelism := range []int{1, 2, 3} {
		two := startSided(t, open, setup{parallelism: parallelism, restore: restore})
		two.watermark(15)
		two.sideWatermark(10)
		two.process(stage.MainInput, windowedRecord(nil, 4, first, "d"))
		two.flush()
		two.want("d@0[x]")
		two.sideWatermark(20)
		two.flush()
		two.want("b@10[y] c@10[y] d@0[x]")
		two.watermark(coder.MaxTimestamp)
		two.quiet(true)
		two.end()
	}
}

func waitingIsTold(t *testing.T, open Open) {
	r := startSided(t, open, setup{pipeline: sidedBy("never", "string", "")})
	r.clock(0)
	r.process(stage.MainInput, windowedRecord(nil, 3, first, "a"))
	r.clock(10_000)
	r.clock(100_000)
	r.out.mu.Lock()
	defer r.out.mu.Unlock()
	if len(r.out.messages) == 0 {
		t.Fatal("nothing is said")
	}
	for _, says := range []string{"transform work", `side input "list"`, "the global window", "1 element waits"} {
		if !strings.Contains(r.out.messages[0], says) {
			t.Errorf("%q does not say %q", r.out.messages[0], says)
		}
	}
}

func mappingFails(t *testing.T, open Open) {
	r := startSided(t, open, setup{attempts: 3, mapping: func(*sdk.Bundle) error { return errors.New("this window maps to none") }})
	err := r.try(stage.MainInput, windowedRecord(nil, 3, first, "a"))
	if err == nil {
		err = r.streaming(0).Flush(r.ctx)
	}
	for _, says := range []string{"this window maps to none", "side input list of transform work"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

func mappedAgain(t *testing.T, open Open) {
	died := false
	r := startSided(t, open, setup{attempts: 3, mapping: func(b *sdk.Bundle) error {
		defer sdk.Order()
		if sdk.Order(); !died {
			died = true
			return b.Vanish()
		}
		return sameWindow(b)
	}})
	r.side(windowedRecord(nil, 1, first, "x"))
	r.sideWatermark(10)
	r.process(stage.MainInput, windowedRecord(nil, 3, first, "a"))
	r.flush()
	r.want("a@0[x]")
}

func mappedByAnother(t *testing.T, open Open) {
	r := startSided(t, open, setup{attempts: 1, mapping: sameWindow})
	r.side(windowedRecord(nil, 1, first, "x"))
	r.side(windowedRecord(nil, 11, second, "y"))
	r.sideWatermark(30)
	r.process(stage.MainInput, windowedRecord(nil, 3, first, "a"))
	r.flush()
	r.session.Close(errors.New("the worker was taken away"))
	r.process(stage.MainInput, windowedRecord(nil, 13, second, "b"))
	r.flush()
	r.want("a@0[x] b@10[y]")
}
