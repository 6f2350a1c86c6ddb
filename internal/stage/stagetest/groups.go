package stagetest

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"github.com/google/go-cmp/cmp"

	"trestle/internal/beam/coder"
	"trestle/internal/stage/stagetest/sdk"
)

// grouping is a stage that groups strings by key; its harness reads large groups from state.
const grouping = `
env sdk cap=beam:coder:state_backed_iterable:v1
env other
window fixed fn=fixed
window early fn=fixed time=earliest
window late fn=fixed time=latest
window custom fn=my:windows merge=needs env=sdk time=earliest
window sessions fn=sessions
impulse start() > I
pardo source(I) > in:kv(string,string)@WINDOW env=other
gbk group(in) > grouped
pardo work(grouped) > out:string@global
pardo next(out) > end env=other
`

func grouped(window string) string { return strings.Replace(grouping, "WINDOW", window, 1) }

var groupCases = []testCase{
	{"elements are grouped by key", groupsByKey},
	{"elements are grouped by window, and timed by the strategy", groupsByWindow},
	{"sessions that overlap are one group", groupsBySession},
	{"groups fill bundles", groupsFillBundles},
	{"a large group is read from state, and again", largeGroup},
	{"large groups count as input of their bundle", largeGroupsFillBundles},
	{"a large group stays whole for an SDK that cannot read it from state", largeGroupInline},
	{"a flatten's branches are grouped together", groupsOfFlatten},
	{"groups are the same when memory is short", groupsSpilled},
}

// collector is a script that keeps the groups that it sees.
type collector struct {
	mu     sync.Mutex
	groups []string // "key@window start time pane: values"
}

func (c *collector) script(b *sdk.Bundle) error {
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
			if g.Values, err = sdk.Strings(data); err != nil {
				return err
			}
		}
		slices.Sort(g.Values)
		window := ""
		if len(e.Windows) > 0 {
			window = fmt.Sprintf("until %d at %d", coder.Timestamp(e.Windows), e.Timestamp)
		}
		if e.Pane != coder.OnTimeAndOnly {
			return fmt.Errorf("pane %+v of a group", e.Pane)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.groups = append(c.groups, strings.TrimSpace(fmt.Sprintf("%s %v %s", g.Key, g.Values, window)))
		return nil
	})
}

func (c *collector) check(t *testing.T, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.groups)
	slices.Sort(want)
	if d := cmp.Diff(want, c.groups); d != "" {
		t.Errorf("groups (-want +got):\n%s", d)
	}
}

func runnerKey(token []byte) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_Runner_{Runner: &fnpb.StateKey_Runner{Key: token}}}
}

func groupsByKey(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{pipeline: grouped("global"), parallelism: 3, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			if e.Timestamp != coder.EndOfGlobalWindow {
				return fmt.Errorf("a group of the global window at %d", e.Timestamp)
			}
			g, err := e.Group()
			c.mu.Lock()
			defer c.mu.Unlock()
			c.groups = append(c.groups, fmt.Sprintf("%s %v", g.Key, g.Values))
			return err
		})
	}})
	r.group(pairs("a=1 b=2 c=3 a=4 =5 b=6 a=1"))
	r.group(pairs("b=7 d="))
	if n := r.bundles(); n != 0 {
		t.Errorf("%d bundles before the input's end", n)
	}
	r.finish()
	c.check(t, "a [1 4 1]", "b [2 6 7]", "c [3]", "d []", " [5]")
}

func groupsByWindow(t *testing.T, open Open) {
	for window, want := range map[string][3]int{"fixed": {9, 19, 9}, "early": {2, 11, 4}, "late": {7, 11, 4}} {
		t.Run(window, func(t *testing.T) {
			var c collector
			r := start(t, open, setup{pipeline: grouped(window), script: c.script})
			var all []byte
			all = windowedRecord(all, 7, interval(0, 10), "a", "x")
			all = windowedRecord(all, 11, interval(10, 20), "a", "y")
			all = windowedRecord(all, 2, interval(0, 10), "a", "z")
			all = windowedRecord(all, 4, interval(0, 10), "b", "x")
			r.group(all)
			r.finish()
			c.check(t, fmt.Sprintf("a [x z] until 10 at %d", want[0]), fmt.Sprintf("a [y] until 20 at %d", want[1]),
				fmt.Sprintf("b [x] until 10 at %d", want[2]))
		})
	}
}

func groupsBySession(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{pipeline: grouped("sessions"), script: c.script})
	r.group(windowedRecord(nil, 0, interval(0, 10), "a", "x"))
	r.group(windowedRecord(nil, 15, interval(15, 25), "a", "z"))
	r.group(windowedRecord(nil, 20, interval(20, 30), "b", "x"))
	r.group(windowedRecord(nil, 5, interval(5, 15), "a", "y")) // overlaps the first, touches the second
	r.group(windowedRecord(nil, 20, interval(20, 30), "a", "w"))
	r.finish()
	c.check(t, "a [x y] until 15 at 14", "a [w z] until 30 at 29", "b [x] until 30 at 29")
}

func groupsFillBundles(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{pipeline: grouped("global"), script: c.script, bundleBytes: 1 << 20})
	var all []byte
	var want []string
	for i := range 40 {
		key, value := fmt.Sprintf("key-%02d", i), strings.Repeat("v", 100<<10)
		all = record(all, 0, key, value)
		want = append(want, fmt.Sprintf("%s [%s]", key, value))
	}
	r.group(all)
	r.finish()
	c.check(t, want...)
	if n := r.bundles(); n < 3 || n > 4 {
		t.Errorf("%d bundles of 1 MiB for 4 MB", n)
	}
}

// largeValues are values of 1 KiB, 1.5 MB of them, and a digest of their multiset.
func largeValues(key string) (records []byte, digest string) {
	seen := map[string]int{}
	for i := range 1500 {
		value := fmt.Sprintf("%s-%04d-%s", key, i, strings.Repeat("v", 1<<10))
		records = record(records, int64(i), key, value)
		seen[value]++
	}
	return records, digestOf(slices.Collect(maps.Keys(seen)))
}

func digestOf(values []string) string {
	values = slices.Sorted(slices.Values(values))
	return fmt.Sprintf("%d %x", len(values), sha256.Sum256([]byte(strings.Join(values, "\n"))))
}

func largeGroup(t *testing.T, open Open) {
	all, want := largeValues("large")
	all = record(all, 0, "small", "one")
	r := start(t, open, setup{pipeline: grouped("global"), script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			g, err := e.Group()
			if err != nil {
				return err
			}
			if (g.Token != nil) != (g.Key == "large") {
				return fmt.Errorf("group %q has the token %q", g.Key, g.Token)
			}
			if g.Token == nil {
				return nil
			}
			for range 2 {
				data, pages, err := b.Read(runnerKey(g.Token))
				if err != nil {
					return err
				}
				values, err := sdk.Strings(data)
				if err != nil {
					return err
				}
				if got := digestOf(values); got != want || pages < 2 {
					return fmt.Errorf("the large group's values are %s in %d pages, not %s", got, pages, want)
				}
			}
			return b.Write("out", record(nil, 0, "read"))
		})
	}})
	r.group(all)
	r.finish()
	if d := cmp.Diff([]string{"read"}, r.values(r.exchange("out", "next"))); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

func largeGroupsFillBundles(t *testing.T, open Open) {
	var tokens [][]byte // of earlier bundles
	r := start(t, open, setup{pipeline: grouped("global"), bundleBytes: 2 << 20, script: func(b *sdk.Bundle) error {
		for _, token := range tokens {
			if _, _, err := b.Read(runnerKey(token)); err == nil {
				return fmt.Errorf("a group of another bundle can be read")
			}
		}
		return b.Each(func(e sdk.Element) error {
			g, err := e.Group()
			if err != nil {
				return err
			}
			tokens = append(tokens, g.Token)
			_, _, err = b.Read(runnerKey(g.Token))
			return err
		})
	}})
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		records, _ := largeValues(key)
		r.group(records)
	}
	r.finish()
	if n := r.bundles(); n != 3 {
		t.Errorf("%d bundles of 2 MiB for five groups of 1.5 MB", n)
	}
	if len(tokens) != 5 {
		t.Errorf("%d groups", len(tokens))
	}
}

func largeGroupInline(t *testing.T, open Open) {
	all, want := largeValues("large")
	r := start(t, open, setup{pipeline: strings.Replace(grouped("global"), "env sdk cap=beam:coder:state_backed_iterable:v1", "", 1),
		script: func(b *sdk.Bundle) error {
			return b.Each(func(e sdk.Element) error {
				g, err := e.Group()
				if err == nil && digestOf(g.Values) != want {
					err = fmt.Errorf("the values are %s, not %s", digestOf(g.Values), want)
				}
				return err
			})
		}})
	r.group(all)
	r.finish()
}

func groupsOfFlatten(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{script: c.script, pipeline: `
env other
impulse start() > I
pardo one(I) > A:kv(string,string)
pardo two(I) > B:kv(string,string) env=other
flatten both(A, B) > AB
gbk group(AB) > grouped
pardo work(grouped) > out:string
pardo next(out) > end env=other
`})
	if n := len(r.stage.Input.Exchanges); n != 2 {
		t.Fatalf("the stage has %d exchanges", n)
	}
	r.group(pairs("a=1 b=2"))
	r.group(pairs("b=3 a=4"))
	r.group(pairs("a=5"))
	r.finish()
	c.check(t, "a [1 4 5]", "b [2 3]")
}

func groupsSpilled(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{pipeline: grouped("global"), memory: 1, script: c.script})
	var want []string
	for i := range 6 {
		var all []byte
		for k := range 8 {
			all = record(all, 0, fmt.Sprintf("key-%d", k), fmt.Sprintf("%d%s", i, strings.Repeat("v", 100<<10)))
		}
		r.group(all)
	}
	for k := range 8 {
		values := make([]string, 6)
		for i := range values {
			values[i] = fmt.Sprintf("%d%s", i, strings.Repeat("v", 100<<10))
		}
		want = append(want, fmt.Sprintf("key-%d %v", k, values))
	}
	if r.spec.Store.Spilled() == 0 {
		t.Error("nothing was spilled")
	}
	r.finish()
	c.check(t, want...)
}
