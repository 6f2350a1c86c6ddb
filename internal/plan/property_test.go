package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trestle/internal/plan"
	"trestle/internal/plan/explain"
	"trestle/internal/plan/plantest"
)

// Whatever the pipeline, its plan keeps the rules of check, is the same each time, and has no more stages than without
// fusion; building it leaves the pipeline as it was.
func TestAnyPipeline(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := pipelineText(t)
		p, err := plantest.Parse(text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		before := proto.Clone(p)
		stages := func(o plan.Options) int {
			built, err := plan.Build(p, o)
			if err != nil {
				t.Fatalf("%v, of\n%s", err, text)
			}
			check(t, built)
			again, err := plan.Build(p, o)
			if err != nil {
				t.Fatalf("%v, the second time", err)
			}
			if one, two := planText(t, built), planText(t, again); one != two {
				t.Fatalf("two plans of\n%s\n%s\n%s", text, one, two)
			}
			return len(built.Stages)
		}
		fused := stages(plan.Options{})
		if apart := stages(plan.Options{DisableFusion: true}); fused > apart {
			t.Errorf("%d stages, %d without fusion, of\n%s", fused, apart, text)
		}
		stages(plan.Options{DisableLifting: true})
		if !proto.Equal(before, p) {
			t.Errorf("Build changed its input")
		}
	})
}

func planText(t *rapid.T, p *plan.Plan) string {
	var b strings.Builder
	if err := explain.JSON(&b, p); err != nil {
		t.Fatalf("%v", err)
	}
	for _, s := range p.Stages {
		if s.Descriptor != nil {
			b.WriteString(descriptorText(s.Descriptor))
		}
	}
	return b.String()
}

// pipelineText draws a valid pipeline, in the language of plantest.
func pipelineText(t *rapid.T) string {
	var b strings.Builder
	b.WriteString("env py cap=beam:coder:state_backed_iterable:v1\nenv twin like=sdk\nimpulse I0 > p0\n")
	coder := []string{"bytes"} // of each PCollection pN
	coders := []string{"string", "kv(string, varint)", "kv(java, python)", "kv(lp(java), row)"}
	pick := func(label string, ok func(c string) bool) string {
		var found []string
		for i, c := range coder {
			if ok(c) {
				found = append(found, fmt.Sprintf("p%d", i))
			}
		}
		if len(found) == 0 {
			return ""
		}
		return rapid.SampledFrom(found).Draw(t, label)
	}
	isKV := func(c string) bool { return strings.HasPrefix(c, "kv(") }
	any := func(string) bool { return true }
	coderOf := func(pc string) string {
		var i int
		if _, err := fmt.Sscanf(pc, "p%d", &i); err != nil {
			t.Fatalf("%v", err)
		}
		return coder[i]
	}
	out := func(c string) string {
		coder = append(coder, c)
		return fmt.Sprintf("p%d:%s", len(coder)-1, c)
	}
	for n := range rapid.IntRange(1, 25).Draw(t, "transforms") {
		env := rapid.SampledFrom([]string{"sdk", "sdk", "sdk", "py", "twin"}).Draw(t, "environment")
		switch kind := rapid.IntRange(0, 12).Draw(t, "kind"); kind {
		case 0:
			fmt.Fprintf(&b, "impulse T%d > %s\n", n, out("bytes"))
		case 1, 2:
			in := pick("grouped", isKV)
			if in == "" {
				continue
			}
			key, value, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(coderOf(in), "kv("), ")"), ", ")
			fmt.Fprintf(&b, "gbk T%d(%s) > %s\n", n, in, out(fmt.Sprintf("kv(%s, iterable(%s))", key, value)))
		case 3, 4:
			first := pick("flattened", any)
			ins := []string{first}
			for range rapid.IntRange(0, 3).Draw(t, "inputs") {
				ins = append(ins, pick("flattened too", func(c string) bool { return c == coderOf(first) }))
			}
			fmt.Fprintf(&b, "flatten T%d(%s) > %s\n", n, strings.Join(ins, ", "), out(coderOf(first)))
		case 5:
			in := pick("reshuffled", any)
			fmt.Fprintf(&b, "reshuffle T%d(%s) > %s\n", n, in, out(coderOf(in)))
		case 6:
			in := pick("combined", isKV)
			if in == "" {
				continue
			}
			group := fmt.Sprintf("composite T%d(%s) > %s urn=beam:transform:combine_per_key:v1 acc=acc env=%s {\n", n, in, out(coderOf(in)), env)
			fmt.Fprintf(&b, "%s  gbk T%d/G(%s) > g%d\n  grouped T%d/C(g%d) > p%d acc=acc env=%s\n}\n", group, n, in, n, n, n, len(coder)-1, env)
		default:
			ins := []string{pick("main", any)}
			for s := range rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "side inputs") {
				ins = append(ins, fmt.Sprintf("s%d=%s", s, pick("side", any)))
			}
			var outs []string
			for range rapid.IntRange(0, 2).Draw(t, "outputs") {
				outs = append(outs, out(rapid.SampledFrom(coders).Draw(t, "coder")))
			}
			option := rapid.SampledFrom([]string{"", "", "", " restriction=rest", " stable"}).Draw(t, "option")
			fmt.Fprintf(&b, "pardo T%d(%s) > %s env=%s%s\n", n, strings.Join(ins, ", "), strings.Join(outs, ", "), env, option)
		}
	}
	return b.String()
}
