package plan_test

import (
	"testing"

	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
)

// A plan is a streaming one by what it reads, by what it is asked to be, and, on an engine that has streams, by a trigger that
// looks at the clock, anywhere inside of another: as long as a grouping goes by it.
func TestWhichPlansAreStreamingOnes(t *testing.T) {
	grouped := func(trigger string) string {
		return "window w trigger=" + trigger + "\nimpulse Start > s\npardo A(s) > a:kv(string, string)@w\ngbk G(a) > g\npardo B(g) >"
	}
	for name, c := range map[string]struct {
		pipeline string
		options  plan.Options
		want     bool
	}{
		"bounded":                 {grouped("Default"), plan.Options{Streams: true}, false},
		"asked":                   {grouped("Default"), plan.Options{Streaming: true}, true},
		"unbounded":               {"impulse Start > s\npardo A(s) > a:string~\npardo B(a) >", plan.Options{}, true},
		"by the clock":            {grouped("repeat(delay)"), plan.Options{Streams: true}, true},
		"by the clock, no stream": {grouped("repeat(delay)"), plan.Options{}, false},
		"early, by the clock":     {grouped("AfterEndOfWindow(early=AfterSynchronizedProcessingTime)"), plan.Options{Streams: true}, true},
		"by count":                {grouped("AfterEndOfWindow(early=ElementCount(2))"), plan.Options{Streams: true}, false},
		"not grouped": {
			"window w trigger=repeat(delay)\nimpulse Start > s\npardo A(s) > a:string@w\npardo B(a) >", plan.Options{Streams: true}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := plantest.Parse(c.pipeline)
			if err != nil {
				t.Fatal(err)
			}
			built, err := plan.Build(p, c.options)
			if err != nil {
				t.Fatal(err)
			}
			if built.Streaming != c.want {
				t.Errorf("Streaming is %v", built.Streaming)
			}
		})
	}
}
