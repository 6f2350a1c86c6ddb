package stagetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"github.com/google/go-cmp/cmp"

	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sided is a stage with an iterable and a multimap as side inputs, in windows of their own.
const sided = `
env other
window fixed fn=fixed
impulse start() > I
pardo source(I) > in:string env=other
pardo sides(I) > L:string@fixed, M:kv(string,string)@fixed env=other
pardo work(in, list=L, map=M/multimap) > out:string
pardo next(out) > end env=other
`

// The side inputs of sided, by the contract's numbers.
const listInput, mapInput = stage.MainInput + 1, stage.MainInput + 2

var sideInputCases = []testCase{
	{"side inputs are read by window and key; what is not there is empty", sidesAreRead},
	{"a large side input comes in pages", sidesInPages},
	{"a side input cannot be read before its end", sidesBeforeTheirEnd},
	{"all tasks see the side inputs that one of them was given", sidesAreShared},
	{"what was read of side inputs may be kept for other bundles, as long as they are the same", sidesMayBeKept},
	{"a side input takes nothing after its end", sidesAfterTheirEnd},
	{"a side input is not read in another way than declared", sidesReadWrongly},
	{"a side input of a grouping stage", sidesOfGroups},
	{directly + "a side input that failed stays unreadable for all tasks", sidesFailed},
}

func listKey(window []byte) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_IterableSideInput_{IterableSideInput: &fnpb.StateKey_IterableSideInput{
		TransformId: "work", SideInputId: "list", Window: window}}}
}

func mapKey(key string, window []byte) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_MultimapSideInput_{MultimapSideInput: &fnpb.StateKey_MultimapSideInput{
		TransformId: "work", SideInputId: "map", Window: window, Key: sdk.String(nil, key)}}}
}

func mapKeysKey(window []byte) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_MultimapKeysSideInput_{MultimapKeysSideInput: &fnpb.StateKey_MultimapKeysSideInput{
		TransformId: "work", SideInputId: "map", Window: window}}}
}

// reading writes, for each element, what it reads of each of the state keys.
func reading(keys ...*fnpb.StateKey) sdk.Script {
	return func(b *sdk.Bundle) error {
		return b.Each(func(sdk.Element) error {
			for _, key := range keys {
				data, _, err := b.Read(key)
				if err != nil {
					return err
				}
				values, err := sdk.Strings(data)
				if err != nil {
					return err
				}
				slices.Sort(values)
				if err := b.Write("out", record(nil, 0, strings.Join(values, " "))); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

var first, second, third = interval(0, 10), interval(10, 20), interval(20, 30)

// fill brings and ends the side inputs of sided.
func (r *rig) fill() {
	r.t.Helper()
	list := windowedRecord(nil, 1, first, "a")
	list = windowedRecord(list, 11, second, "b")
	r.process(listInput, windowedRecord(list, 2, first, "c"))
	r.process(listInput, windowedRecord(nil, 3, first, "d"))
	m := windowedRecord(nil, 1, first, "k", "1")
	m = windowedRecord(m, 1, first, "k", "2")
	m = windowedRecord(m, 1, first, "l", "3")
	r.process(mapInput, windowedRecord(m, 11, second, "k", "4"))
	r.endInput(listInput)
	r.endInput(mapInput)
}

func sidesAreRead(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: sided, script: reading(
		listKey(first), listKey(second), listKey(third),
		mapKey("k", first), mapKey("l", first), mapKey("l", second), mapKey("k", third), mapKey("absent", first),
		mapKeysKey(first), mapKeysKey(second), mapKeysKey(third),
	)})
	r.fill()
	r.process(stage.MainInput, records("x"))
	r.finish()
	want := []string{"a c d", "b", "", "1 2", "3", "", "", "", "k l", "k", ""}
	if d := cmp.Diff(want, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("side inputs (-want +got):\n%s", d)
	}
}

func sidesInPages(t *testing.T, open Open) {
	var want string
	r := start(t, open, setup{pipeline: sided, memory: 1 << 20, script: func(b *sdk.Bundle) error {
		return b.Each(func(sdk.Element) error {
			for _, key := range []*fnpb.StateKey{listKey(first), mapKey("list", first)} {
				data, pages, err := b.Read(key)
				if err != nil {
					return err
				}
				values, err := sdk.Strings(data)
				if err != nil {
					return err
				}
				if got := digestOf(values); got != want || pages < 2 {
					return fmt.Errorf("%v has %s in %d pages, not %s", key, got, pages, want)
				}
			}
			return nil
		})
	}})
	var values []string
	for i := range 300 {
		var list, m []byte
		for j := range 10 {
			value := fmt.Sprintf("%d-%d-%s", i, j, strings.Repeat("v", 1<<10))
			values = append(values, value)
			list = windowedRecord(list, 0, first, value)
			m = windowedRecord(m, 0, first, "list", value)
		}
		r.process(listInput, list)
		r.process(mapInput, m)
	}
	want = digestOf(values)
	r.endInput(listInput)
	r.endInput(mapInput)
	r.process(stage.MainInput, records("x"))
	r.finish()
}

func sidesBeforeTheirEnd(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: sided, bundleBytes: 1, script: reading(listKey(first))})
	r.process(listInput, windowedRecord(nil, 1, first, "a"))
	err := r.try(stage.MainInput, records("x"))
	if err == nil || !strings.Contains(err.Error(), "list") || !strings.Contains(err.Error(), "not complete") {
		t.Errorf("read before the end: %v", err)
	}
}

func sidesAreShared(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: sided, parallelism: 3, script: reading(listKey(first), mapKeysKey(first))})
	r.fill()
	for _, task := range r.tasks {
		if err := task.Process(r.ctx, stage.Delivery{}, records("x")); err != nil {
			t.Fatal(err)
		}
		if err := task.End(r.ctx, stage.MainInput); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a c d", "k l", "a c d", "k l", "a c d", "k l"}
	if d := cmp.Diff(want, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("side inputs (-want +got):\n%s", d)
	}
}

func sidesMayBeKept(t *testing.T, open Open) {
	seen := map[string][]string{} // the side inputs that a token is for, bundle by bundle
	var mu sync.Mutex
	for range 2 {
		r := start(t, open, setup{pipeline: sided, parallelism: 2, bundleBytes: 1, script: func(b *sdk.Bundle) error {
			mu.Lock()
			for _, token := range b.Tokens {
				side := token.GetSideInput()
				seen[string(token.GetToken())] = append(seen[string(token.GetToken())], side.GetTransformId()+"/"+side.GetSideInputId())
			}
			mu.Unlock()
			return identity(b)
		}})
		r.fill()
		for _, task := range r.tasks {
			if err := task.Process(r.ctx, stage.Delivery{}, records("x")); err != nil {
				t.Fatal(err)
			}
			if err := task.End(r.ctx, stage.MainInput); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := []string{"work/list", "work/map", "work/list", "work/map"}
	if len(seen) != 2 {
		t.Errorf("tokens %q; want one for each of two runs", seen)
	}
	for token, sides := range seen {
		if d := cmp.Diff(want, sides); token == "" || d != "" {
			t.Errorf("token %q (-want +got):\n%s", token, d)
		}
	}
}

func sidesAfterTheirEnd(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: sided, script: identity})
	r.endInput(listInput)
	if err := r.try(listInput, windowedRecord(nil, 1, first, "a")); err == nil {
		t.Error("no error")
	}
}

func sidesReadWrongly(t *testing.T, open Open) {
	iterable := mapKey("k", first)
	iterable.GetMultimapSideInput().SideInputId = "list"
	unknown := listKey(first)
	unknown.GetIterableSideInput().SideInputId = "nothing"
	for name, key := range map[string]*fnpb.StateKey{
		"an iterable by key": iterable,
		"an unknown name":    unknown,
		"user state":         {Type: &fnpb.StateKey_BagUserState_{BagUserState: &fnpb.StateKey_BagUserState{TransformId: "work"}}},
		"nothing at all":     {},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, open, setup{pipeline: sided, bundleBytes: 1, script: reading(key)})
			r.fill()
			if err := r.try(stage.MainInput, records("x")); err == nil {
				t.Error("no error")
			}
		})
	}
}

func sidesOfGroups(t *testing.T, open Open) {
	r := start(t, open, setup{script: reading(listKey(nil)), pipeline: `
env other
impulse start() > I
pardo source(I) > in:kv(string,string) env=other
pardo sides(I) > L:string env=other
gbk group(in) > grouped
pardo work(grouped, list=L) > out:string
pardo next(out) > end env=other
`})
	r.group(pairs("a=1"))
	r.process(listInput, records("y"))
	r.group(pairs("b=2 a=3"))
	r.process(listInput, records("z"))
	r.endInput(listInput)
	r.finish()
	if d := cmp.Diff([]string{"y z", "y z"}, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("side input, once for each group (-want +got):\n%s", d)
	}
}

func sidesFailed(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: sided, parallelism: 2, script: reading(mapKey("k", first))})
	if err := r.try(mapInput, []byte("no record")); err == nil {
		t.Error("a block that is no run of records was taken")
	}
	for i, task := range r.tasks {
		if err := task.End(r.ctx, mapInput); err == nil {
			t.Errorf("task %d: a side input became readable that failed", i)
		}
	}
}
