package plan_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
)

// A job is told of resource hints once for each environment that has some, by its stages.
func TestWishes(t *testing.T) {
	pipeline, err := plantest.Parse(`
env plain
env large hint=68719476736 hint=cpu_count:16 hint=max_active_bundles_per_worker:2 hint=accelerator:type:t4;count:1
impulse Start > s
pardo A(s) > a:string env=large
pardo B(a) > b:string env=plain
pardo C(b) > c:string env=large
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Build(pipeline, plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`A; C: the pipeline wishes for accelerator "type:t4;count:1", CPUs: 16, bundles at a time in a worker: at most 2, at least 64 GiB of memory. ` +
		`Workers of environment "large", which is theirs alone, run it; Trestle does not act on the wish otherwise, and neither reserves nor looks for any ` +
		`of that: see to it that the workers' hosts, or their containers, have it`}
	if diff := cmp.Diff(want, plan.Wishes(p)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
