package stage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// nowhere is an output of which nothing is wanted.
type nowhere struct{}

func (nowhere) Emit(context.Context, int, int, []byte) error       { return nil }
func (nowhere) Settle(context.Context, bool) error                 { return nil }
func (nowhere) Quiet()                                             {}
func (nowhere) Message(jobpb.JobMessage_MessageImportance, string) {}
func (nowhere) Metrics([]*pipepb.MonitoringInfo, bool)             {}

// seen are the groups that reached the SDK: by key and window, the time and the values in order.
type seen struct {
	mu     sync.Mutex
	groups map[string][]string
	twice  []string
}

func (s *seen) script(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		g, err := e.Group()
		if err != nil {
			return err
		}
		if g.Token != nil {
			data, _, err := b.Read(&fnpb.StateKey{Type: &fnpb.StateKey_Runner_{Runner: &fnpb.StateKey_Runner{Key: g.Token}}})
			if err != nil {
				return err
			}
			if g.Values, err = sdk.Strings(data); err != nil {
				return err
			}
		}
		slices.Sort(g.Values)
		s.mu.Lock()
		defer s.mu.Unlock()
		id := groupID(g.Key, e.Windows)
		if s.groups[id] != nil {
			s.twice = append(s.twice, id)
		}
		s.groups[id] = append([]string{fmt.Sprintf("at %d", e.Timestamp)}, g.Values...)
		return nil
	})
}

func groupID(key string, window []byte) string { return fmt.Sprintf("%q in %x", key, window) }

// groupingPlan is a GroupByKey read by the SDK.
func groupingPlan(t *testing.T, window string, stateBacked bool) *plan.Plan {
	t.Helper()
	capability := ""
	if stateBacked {
		capability = "cap=beam:coder:state_backed_iterable:v1"
	}
	return buildPlan(t, fmt.Sprintf(`
env sdk %s
env other
window end fn=fixed
window early fn=fixed time=earliest
window late fn=fixed time=latest
impulse start() > I
pardo source(I) > in:kv(string,string)@%s env=other
gbk group(in) > grouped
pardo work(grouped) > out
`, capability, window))
}

// element is an input of a grouping.
type element struct {
	key, value string
	at         int64
	windows    []window.Interval // none: the global window
}

func (e element) append(dst []byte) []byte {
	dst = coder.AppendTimestamp(dst, e.at)
	dst = append(dst, 0, 0, 0, byte(max(len(e.windows), 1)))
	for _, w := range e.windows {
		dst = window.AppendInterval(dst, w)
	}
	dst = coder.AppendPane(dst, coder.NoFiring)
	return sdk.String(sdk.String(dst, e.key), e.value)
}

func drawElement(t *rapid.T, global bool) element {
	e := element{key: rapid.SampledFrom([]string{"", "a", "b", "c", "long" + strings.Repeat("k", 200)}).Draw(t, "key")}
	e.value = rapid.StringMatching("[a-z]{0,5}").Draw(t, "value")
	if rapid.IntRange(0, 19).Draw(t, "large") == 19 {
		// Two of these in a group are more than an element holds.
		e.value = strings.Repeat(e.value+"v", 600<<10/(len(e.value)+1))
	}
	e.at = rapid.Int64Range(-1000, 1000).Draw(t, "timestamp")
	if global {
		return e
	}
	starts := rapid.SliceOfNDistinct(rapid.Int64Range(-2, 2), 1, 2, rapid.ID[int64]).Draw(t, "windows")
	for _, start := range starts {
		e.windows = append(e.windows, window.Interval{Start: start * 500, End: start*500 + 700})
	}
	return e
}

// expect adds an element to what a simple grouping makes of it.
func expect(groups map[string][]element, e element) {
	if len(e.windows) == 0 {
		groups[groupID(e.key, nil)] = append(groups[groupID(e.key, nil)], e)
	}
	for _, w := range e.windows {
		id := groupID(e.key, window.AppendInterval(nil, w))
		groups[id] = append(groups[id], element{e.key, e.value, e.at, []window.Interval{w}})
	}
}

// flat says a group as seen does: its time by the strategy's name.
func flat(strategy string, group []element) []string {
	end := coder.EndOfGlobalWindow
	if ws := group[0].windows; len(ws) > 0 {
		end = ws[0].MaxTimestamp()
	}
	at := end
	values := []string{}
	for i, e := range group {
		switch {
		case strategy == "early" && (i == 0 || e.at < at), strategy == "late" && (i == 0 || e.at > at):
			at = e.at
		}
		values = append(values, e.value)
	}
	slices.Sort(values)
	return append([]string{fmt.Sprintf("at %d", min(at, end))}, values...)
}

// TestGroupingIsAMap: whatever the records, windows, keys, memory, bundle sizes, tasks and attempts, what reaches the SDK
// is the map from keys and windows to values that a few lines compute.
func TestGroupingIsAMap(t *testing.T) {
	pair, err := sdk.NewPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pair.Close(); err != nil {
			t.Error(err)
		}
	})
	got := &seen{}
	type form struct {
		strategy    string
		stateBacked bool
	}
	plans, sessions := map[form]*plan.Plan{}, map[form]*fnapi.Session{}
	for _, strategy := range []string{"global", "end", "early", "late"} {
		for _, stateBacked := range []bool{true, false} {
			f := form{strategy, stateBacked}
			plans[f] = groupingPlan(t, strategy, stateBacked)
			session, harness, err := pair.Connect(t.Context(), map[string]sdk.Script{"work": got.script})
			if err != nil {
				t.Fatal(err)
			}
			sessions[f] = session
			defer harness.Close()
		}
	}
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		strategy := rapid.SampledFrom([]string{"global", "end", "early", "late"}).Draw(t, "strategy")
		f := form{strategy, rapid.Bool().Draw(t, "state-backed")}
		budget := shuffle.NewBudget(rapid.SampledFrom([]int64{1, 1 << 20, 64 << 20}).Draw(t, "memory"))
		spec := stage.Spec{
			Plan: plans[f], Stage: plans[f].Stages[1],
			Parallelism: rapid.IntRange(1, 3).Draw(t, "tasks"),
			KeyGroups:   rapid.IntRange(3, 16).Draw(t, "key groups"),
			Harness:     func(context.Context) (*fnapi.Session, error) { return sessions[f], nil },
			Store:       shuffle.NewStore(dir, budget),
			Out:         nowhere{},
			BundleBytes: rapid.SampledFrom([]int{1, 1 << 10, 1 << 20, 0}).Draw(t, "bundle"),
		}
		if spec.Views, err = stage.NewViews(spec.Plan, spec.Stage, spec.Store); err != nil {
			t.Fatal(err)
		}
		var tasks []stage.Task
		for i := range spec.Parallelism {
			spec.Index = i
			task, err := stage.Open(spec)
			if err != nil {
				t.Fatal(err)
			}
			tasks = append(tasks, task)
		}
		got.groups, got.twice = map[string][]string{}, nil
		want := map[string][]element{}
		for attempt := range stage.Attempt(rapid.IntRange(0, 5).Draw(t, "attempts")) {
			var records []byte
			kept := attempt == 0 || rapid.Bool().Draw(t, "kept")
			for range rapid.IntRange(0, 12).Draw(t, "records") {
				e := drawElement(t, strategy == "global")
				records = e.append(records)
				if kept {
					expect(want, e)
				}
			}
			deliver(t, spec, tasks, attempt, records)
			if attempt == 0 {
				continue // its blocks are never taken back
			}
			for _, task := range tasks {
				if err := task.Settle(t.Context(), attempt, kept); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, task := range tasks {
			if err := task.End(t.Context(), stage.MainInput); err != nil {
				t.Fatal(err)
			}
			if err := task.Close(); err != nil {
				t.Fatal(err)
			}
		}
		wanted := map[string][]string{}
		for id, group := range want {
			wanted[id] = flat(strategy, group)
		}
		if d := cmp.Diff(wanted, got.groups); d != "" {
			t.Fatalf("groups (-want +got):\n%s", d)
		}
		if len(got.twice) > 0 {
			t.Fatalf("groups that came in several parts: %q", got.twice)
		}
		if used := budget.Used(); used != 0 {
			t.Fatalf("%d bytes are held after the end", used)
		}
	})
}

// deliver brings records to the tasks that own their key groups.
func deliver(t *rapid.T, spec stage.Spec, tasks []stage.Task, attempt stage.Attempt, records []byte) {
	w, err := coder.CompileWindowed(spec.Plan.Coders(), spec.Stage.Input.Group.Coder)
	if err != nil {
		t.Fatal(err)
	}
	p, err := shuffle.NewPartitioner(w, spec.KeyGroups, func(keyGroup int, block []byte) error {
		task := tasks[keyGroup*len(tasks)/spec.KeyGroups]
		return task.Process(t.Context(), stage.Delivery{KeyGroup: keyGroup, Attempt: attempt}, block)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(records); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
}
