package plan_test

import (
	"fmt"
	"strings"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
)

// TestNesting: coders that nest deeper than a walk may go are refused, at any depth and from whichever end they are met;
// what is not refused, the runner can walk.
func TestNesting(t *testing.T) {
	for _, c := range []struct {
		deep    int
		from    []int // from which coders the collections' are
		refused bool
	}{
		{80, []int{0}, false},
		{95, []int{0}, true},
		{95, []int{50, 0}, true},
		{1_000_000, []int{0}, true},
	} {
		text := "impulse I > i\n"
		for n, from := range c.from {
			text += fmt.Sprintf("pardo P%d(i) > p%d:kv(bytes, d%d)\ngbk G%d(p%d) > g%d\n", n, n, from, n, n, n)
		}
		p, err := plantest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.deep {
			p.Components.Coders[fmt.Sprint("d", i)] = &pipepb.Coder{
				Spec: &pipepb.FunctionSpec{Urn: urn.CoderIterable}, ComponentCoderIds: []string{fmt.Sprint("d", i+1)}}
		}
		p.Components.Coders[fmt.Sprint("d", c.deep)] = &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: urn.CoderBytes}}
		built, err := plan.Build(p, plan.Options{})
		if refused := err != nil && strings.Contains(err.Error(), "nest deeper"); refused != c.refused || err != nil && !refused {
			t.Errorf("%d deep, from %v: %.300v", c.deep, c.from, err)
		}
		if err == nil {
			check(t, built)
		}
	}
}
