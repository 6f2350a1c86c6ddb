package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
)

// emitted is an output that keeps the blocks of each exchange.
type emitted map[int][][]byte

func (e emitted) Emit(_ context.Context, exchange, _ int, block []byte) error {
	e[exchange] = append(e[exchange], bytes.Clone(block))
	return nil
}

func (emitted) Settle(context.Context, bool) error                 { return nil }
func (emitted) Quiet()                                             {}
func (emitted) Message(jobpb.JobMessage_MessageImportance, string) {}
func (emitted) Metrics([]*pipepb.MonitoringInfo, bool)             {}

// fuzzed is a stage whose one output goes through all kinds of exchanges, and is read as both kinds of side input.
const fuzzed = `
env other
window fixed fn=fixed
impulse start() > I
pardo work(I) > out:kv(string,string)@%s
gbk group(out) > grouped
pardo grouper(grouped) > a env=other
reshuffle spread(out) > spread
pardo rebalanced(spread) > b env=other
pardo reader(I, list=out, map=out/multimap) > c env=other
pardo next(out) > d env=other
`

func fuzzedPlan(f testing.TB, window string) *plan.Plan {
	f.Helper()
	pipeline, err := plantest.Parse(fmt.Sprintf(fuzzed, window))
	if err != nil {
		f.Fatal(err)
	}
	p, err := plan.Build(pipeline, plan.Options{})
	if err != nil {
		f.Fatal(err)
	}
	return p
}

func stageOf(f testing.TB, p *plan.Plan, transform string) *plan.Stage {
	f.Helper()
	for _, s := range p.Stages {
		for _, id := range s.Transforms {
			if id == transform {
				return s
			}
		}
	}
	f.Fatalf("no stage has %s", transform)
	return nil
}

// FuzzOutput: whatever bytes a harness sends for an output, they are records, which arrive whole wherever the output goes,
// or the task fails with an error that names the output.
func FuzzOutput(f *testing.F) {
	global := coder.AppendHeader(nil, 7, nil, coder.NoFiring)
	global = append(global, 1, 'k', 1, 'v')
	fixed := coder.AppendHeader(nil, 7, window.AppendInterval(nil, window.Interval{Start: 0, End: 10}), coder.OnTimeAndOnly)
	fixed = append(fixed, 1, 'k', 1, 'v')
	f.Add(false, global)
	f.Add(false, bytes.Repeat(global, 9))
	f.Add(true, append(fixed, fixed...))
	f.Add(true, fixed[:len(fixed)-1])
	f.Add(false, global[:9])
	f.Add(false, append(coder.AppendTimestamp(nil, 0), 0xff, 0xff, 0xff, 0xff))
	f.Add(true, append(coder.AppendTimestamp(nil, 0), 0, 0, 0, 0, 0x0f, 1, 'k', 1, 'v'))
	plans := map[bool]*plan.Plan{false: fuzzedPlan(f, "global"), true: fuzzedPlan(f, "fixed")}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, windowed bool, data []byte) {
		p := plans[windowed]
		s := stageOf(t, p, "work")
		budget := shuffle.NewBudget(1 << 20)
		out := emitted{}
		spec := Spec{Plan: p, Stage: s, Parallelism: 2, KeyGroups: 4, Store: shuffle.NewStore(dir, budget), Out: out, Log: slog.New(slog.DiscardHandler)}
		outlets, err := newOutlets(spec)
		if err != nil {
			t.Fatal(err)
		}
		records, valid := wellFormed(t, p, s.Outputs[0].Coder, data)
		given := bytes.Clone(data)
		err = outlets.write(t.Context(), 0, data)
		if err == nil {
			err = outlets.flush(t.Context())
		}
		if !bytes.Equal(given, data) {
			t.Fatal("the harness's bytes were changed")
		}
		if (err == nil) != valid {
			t.Fatalf("valid %t, error %v", valid, err)
		}
		if err != nil && !strings.Contains(err.Error(), "output out") {
			t.Fatalf("the output is not named: %v", err)
		}
		for _, id := range s.Outputs[0].Exchanges {
			if e := p.Exchanges[id]; valid && e.Kind != plan.Keyed && !bytes.Equal(bytes.Join(out[id], nil), data) {
				t.Fatalf("%d records arrived changed through exchange %d", records, id)
			}
		}

		views, err := NewViews(p, stageOf(t, p, "reader"), spec.Store)
		if err != nil {
			t.Fatal(err)
		}
		for i := range views.stage.SideInputs {
			if err := views.add(i, data); (err == nil) != valid {
				t.Fatalf("side input %d: valid %t, error %v", i, valid, err)
			}
			if err := views.end(i); (err == nil) != valid {
				t.Fatalf("side input %d: valid %t, end %v", i, valid, err)
			}
		}
		if err := errors.Join(views.Close(), spec.Store.Close()); err != nil {
			t.Fatal(err)
		}
		if used := budget.Used(); used != 0 {
			t.Fatalf("%d bytes are held after the end", used)
		}
	})
}

// wellFormed tells whether data are records, and how many.
func wellFormed(t *testing.T, p *plan.Plan, id string, data []byte) (n int, ok bool) {
	w, err := coder.CompileWindowed(p.Coders(), id)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		_, size, err := w.Record(data)
		if err != nil {
			return n, false
		}
		data, n = data[size:], n+1
	}
	return n, true
}

// FuzzState: whatever a harness asks of state, it is answered with data or an error; and what it is given as a
// continuation token leads to the end.
func FuzzState(f *testing.F) {
	p := fuzzedPlan(f, "fixed")
	s := stageOf(f, p, "reader")
	store := shuffle.NewStore(f.TempDir(), shuffle.NewBudget(1<<20))
	views, err := NewViews(p, s, store)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := errors.Join(views.Close(), store.Close()); err != nil {
			f.Error(err)
		}
	})
	first := window.AppendInterval(nil, window.Interval{Start: 0, End: 10})
	var data []byte
	for i := range 30 {
		data = coder.AppendHeader(data, int64(i), first, coder.NoFiring)
		data = append(data, 1, 'a'+byte(i%2))
		data = append(append(data, 0x80, 0x80, 0x08), make([]byte, 1<<17)...)
	}
	for i := range s.SideInputs {
		if err := errors.Join(views.add(i, data), views.end(i)); err != nil {
			f.Fatal(err)
		}
	}
	state := &stateServer{views: views, stage: s}
	f.Cleanup(state.release)
	large := store.NewPages()
	for range 40 {
		if err := large.Append(make([]byte, 1<<16)); err != nil {
			f.Fatal(err)
		}
	}
	if err := large.Seal(); err != nil {
		f.Fatal(err)
	}
	token := state.keep(large)

	f.Add(uint8(0), "reader", "list", first, []byte(nil), []byte(nil))
	f.Add(uint8(1), "reader", "map", first, []byte{1, 'a'}, []byte(nil))
	f.Add(uint8(2), "reader", "map", first, []byte(nil), []byte(nil))
	f.Add(uint8(3), "", "", []byte(nil), token, []byte(nil))
	f.Add(uint8(3), "", "", []byte(nil), token, []byte{0x80, 0x80, 0x80, 0x01})
	f.Add(uint8(0), "reader", "map", []byte("window"), []byte(nil), []byte{7})
	f.Add(uint8(1), "reader", "list", first, []byte{0xff}, []byte{0xff, 0xff})
	f.Add(uint8(4), "work", "", []byte(nil), []byte(nil), []byte(nil))
	f.Add(uint8(5), "", "", []byte(nil), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, kind uint8, transform, tag string, window, key, continuation []byte) {
		request := &fnpb.StateRequest{StateKey: &fnpb.StateKey{}}
		switch kind {
		case 0:
			request.StateKey.Type = &fnpb.StateKey_IterableSideInput_{IterableSideInput: &fnpb.StateKey_IterableSideInput{
				TransformId: transform, SideInputId: tag, Window: window}}
		case 1:
			request.StateKey.Type = &fnpb.StateKey_MultimapSideInput_{MultimapSideInput: &fnpb.StateKey_MultimapSideInput{
				TransformId: transform, SideInputId: tag, Window: window, Key: key}}
		case 2:
			request.StateKey.Type = &fnpb.StateKey_MultimapKeysSideInput_{MultimapKeysSideInput: &fnpb.StateKey_MultimapKeysSideInput{
				TransformId: transform, SideInputId: tag, Window: window}}
		case 3:
			request.StateKey.Type = &fnpb.StateKey_Runner_{Runner: &fnpb.StateKey_Runner{Key: key}}
		case 4:
			request.StateKey.Type = &fnpb.StateKey_BagUserState_{BagUserState: &fnpb.StateKey_BagUserState{
				TransformId: transform, UserStateId: tag, Window: window, Key: key}}
		default:
			request.StateKey = nil
		}
		for pages := 0; ; pages++ {
			request.Request = &fnpb.StateRequest_Get{Get: &fnpb.StateGetRequest{ContinuationToken: continuation}}
			answer, err := state.answer(t.Context(), request)
			if err != nil {
				if pages > 0 {
					t.Fatalf("the token of page %d is not taken: %v", pages, err)
				}
				return
			}
			if continuation = answer.GetGet().GetContinuationToken(); len(continuation) == 0 {
				return
			}
			if len(answer.GetGet().GetData()) == 0 || pages > 100 {
				t.Fatalf("page %d leads nowhere", pages)
			}
		}
	})
}
