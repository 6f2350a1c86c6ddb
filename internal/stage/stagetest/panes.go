package stagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"trestle/internal/stage/stagetest/sdk"
)

// bounded is grouping with triggers.
var bounded = strings.Replace(grouping, "window fixed fn=fixed\n", `window count fn=fixed trigger=Repeat(ElementCount(2)) mode=accumulating
window once fn=fixed trigger=ElementCount(2)
window always fn=sessions trigger=Always ontime=always
window closing fn=fixed trigger=Repeat(ElementCount(2)) ontime=always mode=accumulating lateness=5 closing=always
`, 1)

var paneCases = []testCase{
	{"a group has the panes that its trigger makes of it", panesOfTriggers},
	{"a large group's panes are read from state", panesOfLargeGroup},
}

// panes is a script that keeps the groups that it sees, with their panes and without their values' order.
func (c *collector) panes(b *sdk.Bundle) error {
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
		p := e.Pane
		text := fmt.Sprintf("%s %v at %d timing %d index %d/%d", g.Key, g.Values, e.Timestamp, p.Timing, p.Index, p.NonSpeculative)
		if len(g.Values) > 0 && len(g.Values[0]) > 100 {
			text = fmt.Sprintf("%s %d values timing %d", g.Key, len(g.Values), p.Timing)
		}
		if p.First {
			text += " first"
		}
		if p.Last {
			text += " last"
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.groups = append(c.groups, text)
		return nil
	})
}

func panesOfTriggers(t *testing.T, open Open) {
	for _, test := range []struct {
		window string
		want   []string
	}{
		// Accumulating, without EMIT_ALWAYS: nothing new at the end.
		{"count", []string{
			"a [1 2 3] at 9 timing 0 index 0/-1 first",
			"b [4] at 9 timing 1 index 0/0 first last",
			"b [5] at 19 timing 1 index 0/0 first last",
		}},
		// It is finished by firing.
		{"once", []string{
			"a [1 2 3] at 9 timing 0 index 0/-1 first last",
			"b [4] at 9 timing 1 index 0/0 first last",
			"b [5] at 19 timing 1 index 0/0 first last",
		}},
		// FIRE_ALWAYS, discarding: an empty pane on time.
		{"always", []string{
			"a [1 2 3] at 9 timing 0 index 0/-1 first", "a [] at 9 timing 1 index 1/0 last",
			"b [4] at 9 timing 0 index 0/-1 first", "b [] at 9 timing 1 index 1/0 last",
			"b [5] at 19 timing 0 index 0/-1 first", "b [] at 19 timing 1 index 1/0 last",
		}},
	} {
		t.Run(test.window, func(t *testing.T) {
			var c collector
			r := start(t, open, setup{pipeline: strings.Replace(bounded, "WINDOW", test.window, 1), script: c.panes})
			for value, of := range map[string]string{"1": "a", "2": "a", "3": "a", "4": "b"} {
				r.group(windowedRecord(nil, 7, interval(0, 10), of, value))
			}
			r.group(windowedRecord(nil, 17, interval(10, 20), "b", "5"))
			r.finish()
			c.check(t, test.want...)
		})
	}
}

func panesOfLargeGroup(t *testing.T, open Open) {
	var c collector
	r := start(t, open, setup{pipeline: strings.Replace(bounded, "WINDOW", "closing", 1), script: c.panes})
	for i := range 1500 {
		value := fmt.Sprintf("%04d-%s", i, strings.Repeat("v", 1<<10))
		r.group(windowedRecord(nil, 7, interval(0, 10), "a", value))
	}
	r.finish()
	c.check(t, "a 1500 values timing 0 first", "a 1500 values timing 1 last")
}
