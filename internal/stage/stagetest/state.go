package stagetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// keeping is a stage whose first transform keeps state, of strings by key.
const keeping = `
env other
window fixed fn=fixed
impulse start() > I
pardo source(I) > in:kv(string,string)@WINDOW env=other
pardo work(in) > out:string@global OPTIONS
pardo next(out) > end env=other
`

func keeper(window, options string) string {
	return strings.NewReplacer("WINDOW", window, "OPTIONS", options).Replace(keeping)
}

var stateCases = []testCase{
	{"a bag has what was appended to it, by key and window, over bundles", bagOverBundles},
	{"a bag that was cleared has what was appended after that", bagCleared},
	{"a bag is read page by page", bagPages},
	{"what a failed bundle did to state is forgotten", stateOfFailedBundle},
	{"a multimap has its keys, and values by key", multimapState},
	{"an ordered list is read and cleared by ranges", orderedListState},
	{"state that the transform does not have is refused by name", stateOfNobody},
	{"a key's elements come to one task, with their panes", keyedElements},
	{"elements are sorted by time, if the transform wants that", sortedElements},
}

func bag(key string, window []byte) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_BagUserState_{BagUserState: &fnpb.StateKey_BagUserState{
		TransformId: "work", UserStateId: "s", Window: window, Key: sdk.String(nil, key),
	}}}
}

// appendState appends to state, clearState clears it.
func appendState(b *sdk.Bundle, key *fnpb.StateKey, data []byte) error {
	return asked(b.Ask(&fnpb.StateRequest{StateKey: key, Request: &fnpb.StateRequest_Append{Append: &fnpb.StateAppendRequest{Data: data}}}))
}

func clearState(b *sdk.Bundle, key *fnpb.StateKey) error {
	return asked(b.Ask(&fnpb.StateRequest{StateKey: key, Request: &fnpb.StateRequest_Clear{Clear: &fnpb.StateClearRequest{}}}))
}

func asked(r *fnpb.StateResponse, err error) error {
	if err == nil && r.GetError() != "" {
		err = errors.New(r.GetError())
	}
	return err
}

// readStrings reads state of strings.
func readStrings(b *sdk.Bundle, key *fnpb.StateKey) ([]string, error) {
	data, _, err := b.Read(key)
	if err != nil {
		return nil, err
	}
	return sdk.Strings(data)
}

// eachPair calls f with each element, a key and a value.
func eachPair(b *sdk.Bundle, f func(e sdk.Element, key, value string) error) error {
	return b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value)
		if err != nil || len(s) != 2 {
			return fmt.Errorf("element %x: %w", e.Value, err)
		}
		return f(e, s[0], s[1])
	})
}

// remembering puts out, for each element, what its key's bag has after it.
func remembering(b *sdk.Bundle) error {
	return remember(b, func(string, string) error { return nil })
}

func remember(b *sdk.Bundle, also func(key, value string) error) error {
	return eachPair(b, func(e sdk.Element, key, value string) error {
		if err := also(key, value); err != nil {
			return err
		}
		if err := appendState(b, bag(key, e.Windows), sdk.String(nil, value)); err != nil {
			return err
		}
		have, err := readStrings(b, bag(key, e.Windows))
		if err != nil {
			return err
		}
		slices.Sort(have)
		return b.Write("out", record(nil, 0, key+":"+strings.Join(have, ",")))
	})
}

// outs are the values that were put out, sorted.
func (r *rig) outs() []string {
	got := r.values(r.exchange("out", "next"))
	slices.Sort(got)
	return got
}

func (r *rig) want(words string) {
	r.t.Helper()
	want := strings.Fields(words)
	slices.Sort(want)
	if d := cmp.Diff(want, r.outs(), cmpopts.EquateEmpty()); d != "" {
		r.t.Errorf("put out (-want +got):\n%s", d)
	}
}

func bagOverBundles(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keeper("fixed", "state"), bundleBytes: 1, script: remembering})
	var all []byte
	for _, w := range []int64{0, 10} {
		for _, word := range []string{"a", "b"} {
			all = windowedRecord(all, w, interval(w, w+10), word, "x")
		}
	}
	r.group(all)
	r.group(windowedRecord(nil, 1, interval(0, 10), "a", "x"))
	r.finish()
	r.want("a:x a:x a:x,x b:x b:x")
	if n := r.bundles(); n < 4 {
		t.Errorf("%d bundles, where each was to have an element or two", n)
	}
}

func bagCleared(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keeper("global", "state"), script: func(b *sdk.Bundle) error {
		return eachPair(b, func(e sdk.Element, key, value string) error {
			if err := appendState(b, bag(key, e.Windows), sdk.String(nil, "gone")); err != nil {
				return err
			}
			if err := clearState(b, bag(key, e.Windows)); err != nil {
				return err
			}
			have, err := readStrings(b, bag(key, e.Windows))
			if err != nil || len(have) > 0 {
				return fmt.Errorf("a cleared bag has %q (%w)", have, err)
			}
			if err := appendState(b, bag(key, e.Windows), sdk.String(nil, value)); err != nil {
				return err
			}
			have, err = readStrings(b, bag(key, e.Windows))
			if err != nil {
				return err
			}
			return b.Write("out", record(nil, 0, strings.Join(have, ",")))
		})
	}})
	r.group(pairs("a=1 b=2"))
	r.finish()
	r.want("1 2")
}

func bagPages(t *testing.T, open Open) {
	long := strings.Repeat("x", 700_000)
	r := start(t, open, setup{pipeline: keeper("global", "state"), script: func(b *sdk.Bundle) error {
		return eachPair(b, func(e sdk.Element, key, _ string) error {
			for i := range 5 {
				if err := appendState(b, bag(key, nil), sdk.String(nil, fmt.Sprint(i)+long)); err != nil {
					return err
				}
			}
			data, pages, err := b.Read(bag(key, nil))
			if err != nil {
				return err
			}
			have, err := sdk.Strings(data)
			if err != nil || len(have) != 5 || pages < 2 {
				return fmt.Errorf("%d values in %d pages: %w", len(have), pages, err)
			}
			for i, v := range have {
				if v != fmt.Sprint(i)+long {
					return fmt.Errorf("value %d is %.5q", i, v)
				}
			}
			return nil
		})
	}})
	r.group(pairs("a=1"))
	r.finish()
}

func stateOfFailedBundle(t *testing.T, open Open) {
	n := 0
	r := start(t, open, setup{pipeline: keeper("global", "state timers"), attempts: 2, script: func(b *sdk.Bundle) error {
		err := remembering(b)
		for _, fired := range b.Fired() {
			if err := b.Write("out", record(nil, 0, "fired:"+fired.Family)); err != nil {
				return err
			}
		}
		if n++; n == 1 && err == nil {
			if err = b.SetTimers(timersOf(timer{key: "a", fires: 5})); err == nil {
				err = errors.New("once")
			}
		}
		return err
	}})
	r.group(pairs("a=1"))
	r.finish()
	r.want("a:1")
}

func multimap(key string, mapKey []byte) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_MultimapUserState_{MultimapUserState: &fnpb.StateKey_MultimapUserState{
		TransformId: "work", UserStateId: "s", Key: sdk.String(nil, key), MapKey: mapKey,
	}}}
}

func multimapKeys(key string) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_MultimapKeysUserState_{MultimapKeysUserState: &fnpb.StateKey_MultimapKeysUserState{
		TransformId: "work", UserStateId: "s", Key: sdk.String(nil, key),
	}}}
}

func multimapState(t *testing.T, open Open) {
	n := 0
	r := start(t, open, setup{pipeline: keeper("global", "state=multimap"), bundleBytes: 1, script: func(b *sdk.Bundle) error {
		return eachPair(b, func(_ sdk.Element, key, value string) error {
			if n++; n == 1 {
				for _, v := range []string{"one", "two"} {
					for _, mapKey := range []string{"m", "mm", "n"} {
						if err := appendState(b, multimap(key, sdk.String(nil, mapKey)), sdk.String(nil, v)); err != nil {
							return err
						}
					}
				}
				return clearState(b, multimap(key, sdk.String(nil, "n")))
			}
			keys, err := readStrings(b, multimapKeys(key))
			if err != nil {
				return err
			}
			slices.Sort(keys)
			values, err := readStrings(b, multimap(key, sdk.String(nil, "m")))
			if err != nil {
				return err
			}
			if err := asked(b.Ask(&fnpb.StateRequest{StateKey: multimapKeys(key), Request: &fnpb.StateRequest_Append{Append: &fnpb.StateAppendRequest{}}})); err == nil {
				return errors.New("keys were appended to a multimap")
			}
			if err := clearState(b, multimapKeys(key)); err != nil {
				return err
			}
			left, err := readStrings(b, multimapKeys(key))
			if err != nil {
				return err
			}
			return b.Write("out", record(nil, 0, strings.Join(keys, ",")+":"+strings.Join(values, ",")+":"+strings.Join(left, ",")))
		})
	}})
	r.group(pairs("a=1 a=2"))
	r.finish()
	if n == 2 && r.bundles() == 1 {
		t.Error("both elements were in one bundle")
	}
	r.want("m,mm:one,two:")
}

func list(key string, from, to int64) *fnpb.StateKey {
	return &fnpb.StateKey{Type: &fnpb.StateKey_OrderedListUserState_{OrderedListUserState: &fnpb.StateKey_OrderedListUserState{
		TransformId: "work", UserStateId: "s", Key: sdk.String(nil, key), Range: &fnpb.OrderedListRange{Start: from, End: to},
	}}}
}

func orderedListState(t *testing.T, open Open) {
	listed := func(b *sdk.Bundle, key string, from, to int64) (string, error) {
		data, _, err := b.Read(list(key, from, to))
		if err != nil {
			return "", err
		}
		var all []string
		for len(data) > 0 {
			at, n := binary.Uvarint(data)
			size := int(data[n])
			all = append(all, fmt.Sprintf("%d%s", int64(at), data[n+1:n+1+size]))
			data = data[n+1+size:]
		}
		return strings.Join(all, ","), nil
	}
	r := start(t, open, setup{pipeline: keeper("global", "state=list"), script: func(b *sdk.Bundle) error {
		return eachPair(b, func(_ sdk.Element, key, _ string) error {
			var entries []byte
			for _, at := range []int64{7, -3, 5, 7} {
				entries = sdk.String(binary.AppendUvarint(entries, uint64(at)), fmt.Sprint("v", len(entries)))
			}
			whole := list(key, 0, 0)
			whole.GetOrderedListUserState().Range = nil
			if err := appendState(b, whole, entries); err != nil {
				return err
			}
			part, err := listed(b, key, -3, 7)
			if err != nil {
				return err
			}
			if err := clearState(b, list(key, 0, 6)); err != nil {
				return err
			}
			rest, err := listed(b, key, -100, 100)
			if err != nil {
				return err
			}
			return b.Write("out", record(nil, 0, part+";"+rest))
		})
	}})
	r.group(pairs("a=1"))
	r.finish()
	r.want("-3v4,5v17;-3v4,7v0,7v22")
}

func stateOfNobody(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keeper("global", "state"), script: func(b *sdk.Bundle) error {
		return eachPair(b, func(_ sdk.Element, key, _ string) error {
			return appendState(b, multimap(key, nil), nil)
		})
	}})
	r.group(pairs("a=1"))
	err := r.tasks[0].End(r.ctx, stage.MainInput)
	if err == nil || !strings.Contains(err.Error(), `state "s" of transform work`) {
		t.Errorf("no error that names the state: %v", err)
	}
}

func keyedElements(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: keeper("global", "state"), parallelism: 3, script: func(b *sdk.Bundle) error {
		return eachPair(b, func(e sdk.Element, key, value string) error {
			return b.Write("out", record(nil, e.Timestamp, fmt.Sprintf("%s=%s@%d,%d", key, value, e.Timestamp, e.Pane.Index)))
		})
	}})
	var all []byte
	for i := range 5 {
		pane := onTimePane(int64(i))
		all = append(all, paned(int64(i), pane, string(rune('a'+i)), "x")...)
	}
	r.group(all)
	r.finish()
	r.want("a=x@0,0 b=x@1,1 c=x@2,2 d=x@3,3 e=x@4,4")
}

func sortedElements(t *testing.T, open Open) {
	var order []string
	r := start(t, open, setup{pipeline: keeper("global", "sorted"), script: func(b *sdk.Bundle) error {
		return eachPair(b, func(e sdk.Element, key, value string) error {
			order = append(order, fmt.Sprint(key, e.Timestamp))
			return nil
		})
	}})
	var all []byte
	for _, at := range []int64{5, -2, 9, 0, 3} {
		all = record(all, at, "a", "x")
	}
	r.group(all)
	r.finish()
	if got := strings.Join(order, " "); got != "a-2 a0 a3 a5 a9" {
		t.Errorf("elements came as %s", got)
	}
}
