package stagetest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trestle/internal/beam/coder"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

var outputCases = []testCase{
	{"elements may become more, fewer or none", manyOrNone},
	{"output may come before the response or after it", beforeAndAfter},
	{"output of megabytes passes", largeOutput},
	{"several outputs are kept apart, and one goes through several exchanges", severalOutputs},
	{"keyed output goes by key group, in order", keyedOutput},
	{"a record in several windows is an entry for each", keyedWindows},
	{"rebalanced output is cut so that each task finds its share", rebalancedOutput},
}

func manyOrNone(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			n := 0
			if _, err := fmt.Sscanf(string(e.Value[1:]), "%d", &n); err != nil {
				return err
			}
			return b.Write("out", bytes.Repeat(e.Record, n))
		})
	}})
	r.process(stage.MainInput, records("0 3 1 0 2"))
	r.finish()
	if got := strings.Join(r.values(r.exchange("out", "next")), " "); got != "3 3 3 1 2 2" {
		t.Errorf("output %q", got)
	}
}

func beforeAndAfter(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, bundleBytes: 1, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			if string(e.Value[1:]) == "first" {
				if err := b.Write("out", e.Record); err != nil {
					return err
				}
				if err := b.EndOutputs(); err != nil {
					return err
				}
				return b.Respond()
			}
			if err := b.Respond(); err != nil {
				return err
			}
			return b.Write("out", e.Record)
		})
	}})
	for _, word := range []string{"first", "last", "first", "last"} {
		r.process(stage.MainInput, records(word))
	}
	r.finish()
	if got := strings.Join(r.values(r.exchange("out", "next")), " "); got != "first last first last" {
		t.Errorf("output %q", got)
	}
}

func largeOutput(t *testing.T, open Open) {
	const size, n = 3 << 20, 4
	r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			large := record(nil, 0, strings.Repeat(string(e.Value[1:]), size))
			for range n {
				if err := b.Write("out", large); err != nil {
					return err
				}
			}
			return nil
		})
	}})
	r.process(stage.MainInput, records("x y"))
	r.finish()
	got := r.values(r.exchange("out", "next"))
	if len(got) != 2*n {
		t.Fatalf("%d values", len(got))
	}
	for i, v := range got {
		if want := strings.Repeat(map[bool]string{true: "x", false: "y"}[i < n], size); v != want {
			t.Errorf("value %d has changed", i)
		}
	}
}

func severalOutputs(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: `
env other
env third
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > out:string, more:kv(string,string)
pardo next(out) > a env=other
pardo last(out) > b env=third
gbk group(more) > grouped
pardo reader(grouped) > c env=other
`, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			word := string(e.Value[1:])
			if err := b.Write("more", record(nil, 0, word, "1")); err != nil {
				return err
			}
			return b.Write("out", e.Record)
		})
	}})
	r.process(stage.MainInput, records("a b a"))
	r.finish()
	for _, to := range []string{"next", "last"} {
		if got := strings.Join(r.values(r.exchange("out", to)), " "); got != "a b a" {
			t.Errorf("to %s: %q", to, got)
		}
	}
	if got := r.keyed(r.exchange("more", "reader")); got != "a=1 a=1 b=1" {
		t.Errorf("keyed output: %q", got)
	}
}

// keyed returns what came through a keyed exchange as "key=value …", by key and in order; each key in one key group.
func (r *rig) keyed(exchange int) string {
	r.t.Helper()
	groups, values := map[string]int{}, map[string][]string{}
	for _, b := range r.out.through(exchange) {
		all, err := entries(b.data)
		if err != nil {
			r.t.Fatal(err)
		}
		if b.keyGroup < 0 || b.keyGroup >= r.spec.KeyGroups || len(all) == 0 {
			r.t.Errorf("a block of %d entries for key group %d", len(all), b.keyGroup)
		}
		for _, e := range all {
			if group, seen := groups[e.key]; seen && group != b.keyGroup {
				r.t.Errorf("key %q is in the key groups %d and %d", e.key, group, b.keyGroup)
			}
			groups[e.key] = b.keyGroup
			kv, err := sdk.Strings([]byte(e.key + e.value))
			if err != nil {
				r.t.Fatal(err)
			}
			values[kv[0]] = append(values[kv[0]], strings.Join(kv, "="))
		}
	}
	var all []string
	for _, key := range sorted(values) {
		all = append(all, values[key]...)
	}
	return strings.Join(all, " ")
}

const keying = `
env other
window sliding fn=sliding
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > out:kv(string,string)@WINDOW
gbk group(out) > grouped
pardo next(grouped) > end env=other
`

func keyedOutput(t *testing.T, open Open) {
	n := map[string]int{}
	r := start(t, open, setup{pipeline: strings.Replace(keying, "WINDOW", "global", 1), bundleBytes: 2000, keyGroups: 16,
		script: func(b *sdk.Bundle) error {
			return b.Each(func(e sdk.Element) error {
				key := string(e.Value[1:])
				n[key]++
				return b.Write("out", record(nil, 0, key, fmt.Sprintf("%04d", n[key])))
			})
		}})
	var want []string
	for i := range 100 {
		for j := range 12 {
			r.process(stage.MainInput, records(fmt.Sprintf("%02d", (i*j)%100)))
		}
	}
	r.finish()
	for _, key := range sorted(n) {
		for i := range n[key] {
			want = append(want, fmt.Sprintf("%s=%04d", key, i+1))
		}
	}
	if d := cmp.Diff(want, strings.Fields(r.keyed(r.exchange("out", "next")))); d != "" {
		t.Errorf("output by key (-want +got):\n%s", d)
	}
	if r.bundles() < 2 {
		t.Error("the order is not kept across bundles, because there is one only")
	}
}

func keyedWindows(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: strings.Replace(keying, "WINDOW", "sliding", 1), keyGroups: 1, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			out := coder.AppendTimestamp(nil, 3)
			out = append(out, 0, 0, 0, 2)
			out = append(append(out, interval(0, 10)...), interval(-5, 5)...)
			out = coder.AppendPane(out, coder.NoFiring)
			return b.Write("out", sdk.String(sdk.String(out, "k"), "v"))
		})
	}})
	r.process(stage.MainInput, records("a"))
	r.finish()
	var got []entry
	for _, b := range r.out.through(r.exchange("out", "next")) {
		all, err := entries(b.data)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, all...)
	}
	want := []entry{{"\x01k", string(interval(0, 10)), "\x01v", 3}, {"\x01k", string(interval(-5, 5)), "\x01v", 3}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
}

func rebalancedOutput(t *testing.T, open Open) {
	const parallelism = 4
	r := start(t, open, setup{parallelism: parallelism, script: identityAtOnce, pipeline: `
env other
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > out:string
reshuffle spread(out) > spread
pardo next(spread) > end env=other
`})
	var words []string
	for i := range 200 {
		words = append(words, fmt.Sprintf("w%03d", i))
	}
	r.process(stage.MainInput, records(strings.Join(words, " ")))
	r.process(stage.MainInput, records("alone"))
	r.finish()
	exchange := r.exchange("out", "next")
	if d := cmp.Diff(append(words, "alone"), r.values(exchange)); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
	if n := len(r.out.through(exchange)); n < parallelism {
		t.Errorf("200 records came in %d blocks, for %d tasks", n, parallelism)
	}
}

// identityAtOnce writes what it got in one message.
func identityAtOnce(b *sdk.Bundle) error {
	var all []byte
	if err := b.Each(func(e sdk.Element) error { all = append(all, e.Record...); return nil }); err != nil {
		return err
	}
	return b.Write("out", all)
}
