package stagetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trestle/internal/beam/coder"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// straight is a stage that takes strings as they come, and whose output goes on as it is.
const straight = `
env other
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > out:string
pardo next(out) > end env=other
`

var inputCases = []testCase{
	{"an impulse is one empty element on the first task", impulseOnce},
	{"elements pass in order", elementsPass},
	{"a bundle is cut when it has had its bytes", bundlesAreCut},
	{"each block of a rebalancing exchange is a bundle", rebalancedBlocksAreBundles},
	{"a task without input is quiet and asks nothing of the harness", emptyInput},
	{"an impulse takes no blocks", impulseTakesNothing},
	{"a stage without an environment passes its input on", passThrough},
}

const impulsive = `
impulse start() > I
pardo work(I) > out:bytes
env other
pardo next(out) > end env=other
`

func impulseOnce(t *testing.T, open Open) {
	var mu sync.Mutex
	var got []sdk.Element
	r := start(t, open, setup{pipeline: impulsive, parallelism: 3, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e)
			return b.Write("out", e.Record)
		})
	}})
	for i, task := range slices.Backward(r.tasks) {
		if err := task.End(r.ctx, stage.MainInput); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 1}[i == 0]; r.bundles() != want {
			t.Errorf("after the end of task %d there were %d bundles, not %d", i, r.bundles(), want)
		}
	}
	if len(got) != 1 {
		t.Fatalf("%d elements", len(got))
	}
	if e := got[0]; e.Timestamp != coder.MinTimestamp || len(e.Windows) != 0 || e.Pane != coder.NoFiring || string(e.Value) != "\x00" {
		t.Errorf("the element is %+v", e)
	}
	if d := cmp.Diff([]string{""}, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

func elementsPass(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, script: identity})
	r.process(stage.MainInput, records("a b c"))
	r.process(stage.MainInput, records("d"))
	r.process(stage.MainInput, records("e f"))
	r.finish()
	if got := strings.Join(r.values(r.exchange("out", "next")), " "); got != "a b c d e f" {
		t.Errorf("output %q", got)
	}
	if n := r.bundles(); n != 1 {
		t.Errorf("%d bundles", n)
	}
}

func bundlesAreCut(t *testing.T, open Open) {
	// The script answers each bundle with what it saw: a bundle's end shows in the output.
	r := start(t, open, setup{pipeline: straight, bundleBytes: 2 * len(records("abcd")), script: gathering})
	for _, words := range []string{"aaaa", "bbbb", "cccc", "dddd dddd dddd", "eeee"} {
		r.process(stage.MainInput, records(words))
	}
	before := len(r.values(r.exchange("out", "next")))
	r.finish()
	if before != 2 {
		t.Errorf("%d bundles had ended before the input's end", before)
	}
	want := []string{"aaaa,bbbb", "cccc,dddd,dddd,dddd", "eeee"}
	if d := cmp.Diff(want, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("bundles (-want +got):\n%s", d)
	}
}

// gathering writes one record for each bundle, of all its elements.
func gathering(b *sdk.Bundle) error {
	var all []string
	err := b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value)
		all = append(all, s...)
		return err
	})
	if err != nil {
		return err
	}
	return b.Write("out", record(nil, 0, strings.Join(all, ",")))
}

func rebalancedBlocksAreBundles(t *testing.T, open Open) {
	r := start(t, open, setup{script: gathering, pipeline: `
impulse start() > I
pardo source(I) > in:string
reshuffle spread(in) > spread
pardo work(spread) > out:string
env other
pardo next(out) > end env=other
`})
	r.process(stage.MainInput, records("a b"))
	r.process(stage.MainInput, records("c"))
	if d := cmp.Diff([]string{"a,b", "c"}, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("a block's output is not there when Process has returned (-want +got):\n%s", d)
	}
	r.finish()
}

func emptyInput(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, parallelism: 2, script: identity})
	r.finish()
	if n := r.bundles(); n != 0 {
		t.Errorf("%d bundles", n)
	}
	if log := r.out.log(); strings.ReplaceAll(log, "keep ", "") != "quiet quiet" {
		t.Errorf("the tasks put out: %s", log)
	}
}

func impulseTakesNothing(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: impulsive, script: identity})
	if err := r.try(stage.MainInput, records("a")); err == nil {
		t.Error("no error")
	}
}

// A GroupByKey whose result is read as a side input alone runs without an SDK.
func passThrough(t *testing.T, open Open) {
	r := start(t, open, setup{parallelism: 2, pipeline: `
impulse start() > I
pardo source(I) > in:kv(string,string)
gbk work(in) > grouped
pardo reader(I, side=grouped) > out
`})
	r.group(pairs("a=1 b=2 a=3 c=4 a=5"))
	r.finish()
	exchange := r.exchange("grouped", "reader")
	w := r.windowed(r.plan.Exchanges[exchange].Coder)
	var got []string
	for _, b := range r.out.through(exchange) {
		for data := b.data; len(data) > 0; {
			header, size, err := w.Record(data)
			if err != nil {
				t.Fatal(err)
			}
			g, err := sdk.Element{Value: data[header.Size:size]}.Group()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprintf("%s %v", g.Key, g.Values))
			data = data[size:]
		}
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"a [1 3 5]", "b [2]", "c [4]"}, got); d != "" {
		t.Errorf("groups (-want +got):\n%s", d)
	}
}
