package stagetest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"

	"trestle/internal/beam/urn"
	"trestle/internal/fnapi"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

var attemptCases = []testCase{
	{directly + "a bundle that fails is tried again, and its output counts once", triedAgain},
	{directly + "a bundle is tried as often as the spec says", triedOften},
	{directly + "an attempt that failed has measured what its harness had last said", failedMeasured},
	{directly + "a task that is closed has measured what the harness had last said of its bundle", closedMeasured},
	{"the same failure twice is the task's", triedInVain},
	{directly + "another attempt has another harness when the first is gone", anotherHarness},
	{"large groups can be read in another attempt", groupsTriedAgain},
	{directly + "only what failed is tried again", earlierBundlesStay},
	{directly + "an engine that takes nothing back", nothingIsDropped},
	{"malformed output is no reason to try again", malformedOnce},
	{directly + "small bundles travel in their instruction, and their output in the response", embeddedElements},
	{directly + "an attempt's blocks on a keyed input count when it is settled", attemptsArrive},
}

// breaking wraps a script: attempts up to the n-th fail behind it, each in its own words.
func breaking(n int32, script sdk.Script) sdk.Script {
	var made atomic.Int32
	return func(b *sdk.Bundle) error {
		if err := script(b); err != nil {
			return err
		}
		if i := made.Add(1); i <= n {
			return fmt.Errorf("failure with the words %s", strings.Repeat("na", int(i)))
		}
		return nil
	}
}

// tagging writes each element as "key=value", with the bundle's number for a value that tells attempts apart.
func tagging() sdk.Script {
	var n atomic.Int32
	return func(b *sdk.Bundle) error {
		i := n.Add(1)
		return b.Each(func(e sdk.Element) error {
			return b.Write("out", record(nil, 0, string(e.Value[1:]), fmt.Sprint(i)))
		})
	}
}

func triedAgain(t *testing.T, open Open) {
	for kind, pipeline := range map[string]string{"forward": straightPairs, "keyed": strings.Replace(keying, "WINDOW", "global", 1)} {
		t.Run(kind, func(t *testing.T) {
			r := start(t, open, setup{pipeline: pipeline, attempts: 4, script: breaking(2, tagging())})
			for _, words := range []string{"a b", "c", "d"} {
				r.process(stage.MainInput, records(words))
			}
			r.finish()
			exchange := r.exchange("out", "next")
			var got string
			if kind == "keyed" {
				got = r.keyed(exchange)
			} else {
				got = strings.Join(r.values(exchange), " ")
			}
			if got != "a=3 b=3 c=3 d=3" {
				t.Errorf("output %q", got)
			}
			if log := r.out.log(); strings.Count(log, "drop") != 2 || strings.Count(log, "keep") != 1 || strings.Count(log, "metrics") != 1 {
				t.Errorf("in the order %s", log)
			}
			if n := len(r.out.messages); n != 2 {
				t.Errorf("%d messages about two failed attempts: %q", n, r.out.messages)
			}
		})
	}
}

// straightPairs is straight with pairs for output.
var straightPairs = strings.Replace(straight, "out:string", "out:kv(string,string)", 1)

func triedOften(t *testing.T, open Open) {
	for _, attempts := range []int{1, 3} {
		r := start(t, open, setup{pipeline: straight, attempts: attempts, script: breaking(100, identity)})
		err := r.ends("a b")
		var user *fnapi.HarnessError
		if !errors.As(err, &user) || !strings.HasSuffix(user.Text, " "+strings.Repeat("na", attempts)) {
			t.Errorf("the error of %d attempts is not the last one's: %v", attempts, err)
		}
		if n := r.bundles(); n != attempts {
			t.Errorf("%d attempts, not %d", n, attempts)
		}
	}
}

// positions is a metric that has come to n.
func positions(n byte) []*pipepb.MonitoringInfo {
	return []*pipepb.MonitoringInfo{{Urn: "test:positions", Type: urn.MetricTypeSumInt64, Payload: []byte{n}}}
}

// told is what measurements of positions say.
func told(measured [][]*pipepb.MonitoringInfo) (payloads []byte) {
	for _, infos := range measured {
		for _, info := range infos {
			payloads = append(payloads, info.GetPayload()...)
		}
	}
	return payloads
}

// measuring asks the task what its bundle has measured, once the bundle's script says that it has come to n positions; the script goes
// on when that has been heard.
type measuring struct {
	said, heard chan struct{}
	asked       atomic.Bool // the harness was
}

func newMeasuring(r *rig) *measuring {
	m := &measuring{said: make(chan struct{}), heard: make(chan struct{})}
	go func() {
		defer close(m.heard)
		select {
		case <-m.said:
		case <-r.ctx.Done():
		}
		// The harness may have the bundle before the task knows that it has.
		for ; !m.asked.Load() && r.ctx.Err() == nil; runtime.Gosched() {
			r.tasks[0].(stage.Measurer).Measure(r.ctx)
		}
	}()
	return m
}

func (m *measuring) script(b *sdk.Bundle, n byte) {
	b.OnProgress(func() []*pipepb.MonitoringInfo {
		m.asked.Store(true)
		return positions(n)
	})
	close(m.said)
	<-m.heard
}

func failedMeasured(t *testing.T, open Open) {
	var made atomic.Int32
	var m *measuring
	r := start(t, open, setup{pipeline: straight, attempts: 4, script: func(b *sdk.Bundle) error {
		if err := identity(b); err != nil {
			return err
		}
		if made.Add(1) == 1 {
			m.script(b, 5)
			return errors.New("boom")
		}
		b.Response.MonitoringInfos = positions(7)
		return nil
	}})
	m = newMeasuring(r)
	r.process(stage.MainInput, records("a b"))
	r.finish()
	if counted, lost := told(r.out.metrics), told(r.out.lost); string(counted) != "\x07" || string(lost) != "\x05" {
		t.Errorf("measured %v by attempts that count, %v by others", counted, lost)
	}
	if log := r.out.log(); !strings.Contains(log, "lost drop") || !strings.HasSuffix(log, "keep metrics quiet") {
		t.Errorf("in the order %s", log)
	}
}

func closedMeasured(t *testing.T, open Open) {
	var m *measuring
	r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
		m.script(b, 5)
		return b.Hang()
	}})
	m = newMeasuring(r)
	r.process(stage.MainInput, records(strings.Repeat("x", 2*embedded))) // which is sent at once
	<-m.heard
	if err := r.tasks[0].Close(); err != nil {
		t.Fatal(err)
	}
	if lost := told(r.out.lost); string(lost) != "\x05" {
		t.Errorf("measured %v", lost)
	}
}

// embedded is more input than travels in a bundle's instruction.
const embedded = 32 << 10

func triedInVain(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, attempts: 4, script: failing})
	if err := r.ends("a bad b"); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("%v", err)
	}
	if n := r.bundles(); n != 2 {
		t.Errorf("%d attempts", n)
	}
	if log := r.out.log(); strings.Contains(log, "keep") || strings.Contains(log, "quiet") {
		t.Errorf("a failed task put out %s", log)
	}
}

func anotherHarness(t *testing.T, open Open) {
	var made atomic.Int32
	r := start(t, open, setup{pipeline: straight, attempts: 4, script: func(b *sdk.Bundle) error {
		dies := made.Add(1) < 3
		err := b.Each(func(e sdk.Element) error {
			if dies && string(e.Value[1:]) == "c" {
				return b.Vanish()
			}
			return b.Write("out", e.Record)
		})
		return err
	}})
	if err := r.ends("a b c d"); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.values(r.exchange("out", "next")), " "); got != "a b c d" {
		t.Errorf("output %q", got)
	}
	if n := len(r.harnesses); n != 3 {
		t.Errorf("%d harnesses", n)
	}
}

func groupsTriedAgain(t *testing.T, open Open) {
	all, want := largeValues("large")
	all = record(all, 0, "small", "one")
	r := start(t, open, setup{pipeline: grouped("global"), attempts: 4, script: breaking(2, func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			g, err := e.Group()
			if err != nil {
				return err
			}
			if g.Token != nil {
				data, _, err := b.Read(runnerKey(g.Token))
				if err != nil {
					return err
				}
				values, err := sdk.Strings(data)
				if err != nil {
					return err
				}
				if got := digestOf(values); got != want {
					return fmt.Errorf("the large group's values are %s, not %s", got, want)
				}
			}
			return b.Write("out", record(nil, 0, g.Key))
		})
	})})
	r.group(all)
	r.finish()
	got := r.values(r.exchange("out", "next"))
	slices.Sort(got)
	if d := cmp.Diff([]string{"large", "small"}, got); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

func earlierBundlesStay(t *testing.T, open Open) {
	var made atomic.Int32
	r := start(t, open, setup{pipeline: straight, attempts: 4, bundleBytes: 1, script: func(b *sdk.Bundle) error {
		n := made.Add(1)
		if err := identity(b); err != nil {
			return err
		}
		if n%2 == 0 {
			return fmt.Errorf("failure number %d", n)
		}
		return nil
	}})
	for _, word := range []string{"a", "b", "c"} {
		r.process(stage.MainInput, records(word))
	}
	r.finish()
	if got := strings.Join(r.values(r.exchange("out", "next")), " "); got != "a b c" {
		t.Errorf("output %q", got)
	}
	if log := r.out.log(); strings.Count(log, "drop") != 2 || strings.Count(log, "keep") < 3 {
		t.Errorf("in the order %s", log)
	}
}

func nothingIsDropped(t *testing.T, open Open) {
	restart := errors.New("restart the task")
	r := start(t, open, setup{pipeline: straight, attempts: 4, script: breaking(1, identity)})
	r.out.settling = func(_ context.Context, keep bool) error {
		if keep {
			return nil
		}
		return restart
	}
	err := r.ends("a")
	var user *fnapi.HarnessError
	if !errors.Is(err, restart) || !errors.As(err, &user) {
		t.Errorf("the error has not both, what failed and why it is not tried again: %v", err)
	}
	if n := r.bundles(); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func malformedOnce(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: strings.Replace(keying, "WINDOW", "global", 1), attempts: 4, script: func(b *sdk.Bundle) error {
		return b.Each(func(sdk.Element) error { return b.Write("out", []byte("no record")) })
	}})
	if err := r.ends("a"); err == nil {
		t.Error("no error")
	}
	if n := r.bundles(); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func embeddedElements(t *testing.T, open Open) {
	const capable = "env sdk cap=beam:protocol:control_request_elements_embedding:v1\n"
	var made atomic.Int32
	r := start(t, open, setup{pipeline: capable + straight, attempts: 2, script: func(b *sdk.Bundle) error {
		n := made.Add(1)
		if embedded := n != 2 && n != 4; b.Embedded() != embedded {
			return fmt.Errorf("bundle %d came in its instruction: %t", n, b.Embedded())
		}
		err := b.Each(func(e sdk.Element) error {
			if n < 5 {
				b.Embed("out", e.Record)
				return nil
			}
			return b.Write("out", e.Record)
		})
		if err == nil && n == 1 {
			err = errors.New("the first attempt fails")
		}
		return err
	}})
	large := strings.Repeat("l", 100<<10)
	for _, words := range [][]string{{"a", "b"}, {"c"}, {"d", large}, {"e"}} {
		task := r.another()
		if err := task.Process(r.ctx, stage.Delivery{}, nil); err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if err := task.Process(r.ctx, stage.Delivery{}, records(word)); err != nil {
				t.Fatal(err)
			}
		}
		if err := task.End(r.ctx, stage.MainInput); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a", "b", "c", "d", large, "e"}
	if d := cmp.Diff(want, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

func attemptsArrive(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{pipeline: grouped("global"), script: c.script})
	settle := func(attempt stage.Attempt, keep bool) {
		t.Helper()
		if err := r.tasks[0].Settle(r.ctx, attempt, keep); err != nil {
			t.Fatal(err)
		}
	}
	r.groupOf(7, pairs("a=7 b=7"))
	r.groupOf(0, pairs("a=0"))
	r.groupOf(8, pairs("a=8 c=8"))
	settle(7, false)
	r.groupOf(9, pairs("a=9 b=9"))
	settle(8, true)
	settle(9, true)
	r.finish()
	c.check(t, "a [0 8 9]", "b [9]", "c [8]")
}
