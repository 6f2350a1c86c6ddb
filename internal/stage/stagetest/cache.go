package stagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"trestle/internal/stage/stagetest/sdk"
)

var cacheCases = []testCase{
	{"state may be kept for bundles to come", stateIsKept},
	{"state that was kept is read anew after a failure", keptStateOfFailedBundle},
	{directly + "state that was kept is read anew when the harness is another", keptStateOfAnotherHarness},
	{"state that was kept is read anew after a restore", keptStateRestored},
	{"each task has state of its own kept", keptStateOfTasks},
	{"keys of a multimap that were read in pages are not kept", keptPages},
}

// cache keeps bags by their tokens, as SDKs do: it has what was read, and adds to it what its bundles append, which may fail
// afterwards.
type cache struct {
	bags   map[string][]string
	reads  int
	tokens []string // bundle by bundle
	fails  int      // the number of a bundle that fails at its end
}

func (c *cache) script(b *sdk.Bundle) error {
	token := userToken(b)
	c.tokens = append(c.tokens, token)
	if c.bags == nil {
		c.bags = map[string][]string{}
	}
	err := eachPair(b, func(e sdk.Element, key, value string) error {
		at := strings.Join([]string{token, key, string(e.Windows)}, "\x00")
		have, kept := c.bags[at]
		if !kept {
			var err error
			if have, err = readStrings(b, bag(key, e.Windows)); err != nil {
				return err
			}
			c.reads++
		}
		c.bags[at] = append(slices.Clone(have), value)
		if err := appendState(b, bag(key, e.Windows), sdk.String(nil, value)); err != nil {
			return err
		}
		return b.Write("out", record(nil, 0, key+":"+strings.Join(c.bags[at], ",")))
	})
	if err == nil && c.fails == len(c.tokens) {
		err = errors.New("once")
	}
	return err
}

// userToken is the bundle's token for user state; nothing if it has none, or several.
func userToken(b *sdk.Bundle) string {
	var tokens []string
	for _, t := range b.Tokens {
		if t.GetUserState() != nil {
			tokens = append(tokens, string(t.GetToken()))
		}
	}
	if len(tokens) != 1 {
		return ""
	}
	return tokens[0]
}

// each has each word processed in a bundle of its own.
func (r *rig) each(words ...string) {
	r.t.Helper()
	for _, w := range words {
		r.group(pairs(w))
		r.flush()
	}
}

func stateIsKept(t *testing.T, open Open) {
	c := &cache{}
	r := start(t, open, setup{pipeline: keptStream("global", "state"), script: c.script})
	r.each("a=1", "a=2", "b=1", "a=3")
	r.want("a:1 a:1,2 b:1 a:1,2,3")
	if c.reads != 2 || c.tokens[0] == "" {
		t.Errorf("%d reads of two bags with the tokens %q", c.reads, c.tokens)
	}
}

func keptStateOfFailedBundle(t *testing.T, open Open) {
	c := &cache{fails: 2}
	r := start(t, open, setup{pipeline: keptStream("global", "state"), script: c.script, attempts: 2})
	r.each("a=1", "a=2", "a=3")
	r.want("a:1 a:1,2 a:1,2,3")
	if c.reads != 2 {
		t.Errorf("%d reads, where the bag was to be read at the start and after the failure", c.reads)
	}
}

func keptStateOfAnotherHarness(t *testing.T, open Open) {
	c := &cache{}
	r := start(t, open, setup{pipeline: keptStream("global", "state"), script: c.script})
	r.each("a=1")
	r.session.Close(errors.New("gone"))
	r.each("a=2", "a=3")
	r.want("a:1 a:1,2 a:1,2,3")
	if len(r.harnesses) != 2 || c.tokens[0] == c.tokens[1] || c.tokens[1] != c.tokens[2] {
		t.Errorf("%d harnesses, and the tokens %q", len(r.harnesses), c.tokens)
	}
}

func keptStateRestored(t *testing.T, open Open) {
	c := &cache{}
	first := start(t, open, setup{pipeline: keptStream("global", "state"), script: c.script})
	first.each("a=1")
	restore := first.snapshots()
	first.each("a=lost")
	first.end()

	second := start(t, open, setup{pipeline: keptStream("global", "state"), script: c.script, restore: restore})
	second.each("a=2")
	second.want("a:1,2")
}

func keptStateOfTasks(t *testing.T, open Open) {
	c := &cache{}
	r := start(t, open, setup{pipeline: keptStream("global", "state"), script: c.script, parallelism: 3})
	for i := range 40 { // enough to have some of each task's
		r.each(fmt.Sprintf("%d=1", i))
	}
	if n := len(slices.Compact(slices.Sorted(slices.Values(c.tokens)))); n != 3 {
		t.Errorf("%d tokens of three tasks", n)
	}
}

func keptPages(t *testing.T, open Open) {
	long := strings.Repeat("x", 700_000)
	var tokens []string
	var read [][]string
	r := start(t, open, setup{pipeline: keptStream("global", "state=multimap"), script: func(b *sdk.Bundle) error {
		tokens = append(tokens, userToken(b))
		return eachPair(b, func(_ sdk.Element, key, value string) error {
			if err := appendState(b, multimap(key, sdk.String(nil, value+long)), sdk.String(nil, "v")); err != nil {
				return err
			}
			keys, err := readStrings(b, multimapKeys(key))
			for i := range keys {
				keys[i] = keys[i][:1]
			}
			read = append(read, keys)
			return err
		})
	}})
	r.each("a=m", "a=n", "a=o", "a=p", "a=b")
	if got := fmt.Sprint(read); got != "[[m] [m n] [m n o] [m n o p] [b m n o p]]" {
		t.Errorf("keys read: %s", got)
	}
	if tokens[0] != tokens[1] || tokens[1] != tokens[2] || tokens[2] == tokens[3] || tokens[3] == tokens[4] {
		t.Errorf("the tokens %q: those of what was read whole are to be the same, those after pages others", tokens)
	}
}
