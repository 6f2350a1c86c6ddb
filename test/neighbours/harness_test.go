package neighbours

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
)

// grouping is a pipeline of one stage that sends into a group, and one that reads it.
const grouping = `impulse I > i
pardo P(i) > p:kv(bytes, bytes)
gbk G(p) > g:kv(bytes, iterable(bytes))
pardo Q(g) >`

// splitting has a stage whose work is split while it is done.
const splitting = `impulse I > i
pardo P(i) > p:kv(bytes, bytes) restriction=bytes
gbk G(p) > g:kv(bytes, iterable(bytes))`

// siding has a stage with a side input.
const siding = `impulse I > i
impulse J > j
pardo P(i, side=j) > p:kv(bytes, bytes)`

// record is an element in the global window, at the beginning of time, in the pane of a source.
func record(element string) []byte {
	return append([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x0f}, element...)
}

// TestHarnesses: what a harness does that breaks the Fn API fails its own job, with a reason, and nothing else.
func TestHarnesses(t *testing.T) {
	n := settle(t)
	for _, c := range []struct {
		name, pipeline string
		behave         func(*wild)
		says           string
	}{
		{"hangs up at once", grouping, func(w *wild) {
			if w.connect() {
				_, _ = w.control.Recv()
			}
		}, "is gone"},
		{"hangs up in each bundle", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				_ = b.conn.Close()
				return nil
			})
		}, "is gone"},
		{"answers what nobody asked", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				for _, id := range []string{"", "i0", "i999999", b.id + "x"} {
					_ = b.control.Send(&fnpb.InstructionResponse{InstructionId: id, Error: "not asked"})
				}
				return nil
			})
		}, "enough"},
		{"answers with nothing", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				b.send(b.sink, nil, true)
				return &fnpb.InstructionResponse{Response: &fnpb.InstructionResponse_ProcessBundleSplit{}}
			})
		}, "no answer to a bundle"},
		{"answers an error without end", grouping, func(w *wild) {
			w.each(func(bundle) *fnpb.InstructionResponse {
				return &fnpb.InstructionResponse{Error: strings.Repeat("E\x00é\n", 8<<20)}
			})
		}, "E"},
		{"sends to strangers", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				_ = b.data.Send(&fnpb.Elements{Data: []*fnpb.Elements_Data{
					{}, {InstructionId: "i0", TransformId: b.sink, Data: record("x")}, {InstructionId: b.id, TransformId: "nobody", Data: record("x")},
				}})
				return done(&fnpb.ProcessBundleResponse{})
			})
		}, "nobody"},
		{"sends to its source", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				b.send(b.source, record("x"), true)
				return done(&fnpb.ProcessBundleResponse{})
			})
		}, "no output of it"},
		{"sets timers", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				_ = b.data.Send(&fnpb.Elements{Timers: []*fnpb.Elements_Timers{{InstructionId: b.id, TransformId: "P", TimerFamilyId: "t", Timers: []byte{1}}}})
				return done(&fnpb.ProcessBundleResponse{})
			})
		}, "timer"},
		{"sends after the end", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				b.send(b.sink, nil, true)
				b.send(b.sink, record("\x01k\x01v"), false)
				b.send(b.sink, nil, true)
				return nil
			})
		}, ""},
		{"sends no elements", grouping, garbage([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), ""},
		{"sends half an element", grouping, garbage(record("\x01k\x05v")), ""},
		{"sends an element of exabytes", grouping, garbage(record("\x01k\xff\xff\xff\xff\xff\xff\xff\xff\x7f")), ""},
		{"sends an element in two thousand million windows", grouping,
			garbage([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0x0f, 1, 'k', 1, 'v'}), ""},
		{"sends an element in no window", grouping,
			garbage([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 'k', 1, 'v'}), ""},
		{"embeds garbage", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				return done(&fnpb.ProcessBundleResponse{Elements: &fnpb.Elements{
					Data:   []*fnpb.Elements_Data{{TransformId: b.sink, Data: []byte("garbage")}, {TransformId: "nobody"}, {}},
					Timers: []*fnpb.Elements_Timers{{}},
				}})
			})
		}, ""},
		{"leaves residuals of nobody", grouping, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				b.send(b.sink, nil, true)
				return done(&fnpb.ProcessBundleResponse{ResidualRoots: []*fnpb.DelayedBundleApplication{
					{}, {Application: &fnpb.BundleApplication{TransformId: "nobody", InputId: "none", Element: []byte("garbage")}},
				}})
			})
		}, ""},
		{"splits what cannot be split", splitting, func(w *wild) {
			split := make(chan struct{})
			w.serve(func(b bundle) *fnpb.InstructionResponse {
				if b.splits {
					b.send(b.sink, record("\x01e\x01r\x00\x00\x00\x00\x00\x00\x00\x00"), true)
					return done(&fnpb.ProcessBundleResponse{})
				}
				select {
				case <-split:
				case <-b.ctx.Done():
				}
				return nil
			}, func(r *fnpb.InstructionRequest) *fnpb.InstructionResponse {
				if r.GetProcessBundleSplit() == nil {
					return nil
				}
				select {
				case <-split:
				default:
					close(split)
				}
				return &fnpb.InstructionResponse{Response: &fnpb.InstructionResponse_ProcessBundleSplit{ProcessBundleSplit: &fnpb.ProcessBundleSplitResponse{
					PrimaryRoots:  []*fnpb.BundleApplication{{TransformId: "nobody"}},
					ResidualRoots: []*fnpb.DelayedBundleApplication{{}, {Application: &fnpb.BundleApplication{TransformId: "nobody", Element: []byte("garbage")}}},
					ChannelSplits: []*fnpb.ProcessBundleSplitResponse_ChannelSplit{{TransformId: "nobody", LastPrimaryElement: -5, FirstResidualElement: 1 << 62}},
				}}}
			})
		}, ""},
		{"measures nonsense", grouping, func(w *wild) {
			infos := []*pipepb.MonitoringInfo{nil, {}, {Urn: "beam:metric:user:sum_int64:v1"}}
			for _, kind := range []string{"sum_int64", "distribution_int64", "latest_int64", "set_string", "bounded_trie", "histogram_int64", "top_n_double"} {
				infos = append(infos, &pipepb.MonitoringInfo{Urn: "beam:metric:user:" + kind + ":v1", Type: "beam:metrics:" + kind + ":v1",
					Payload: []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Labels: map[string]string{"": ""}})
			}
			for i := range 20000 {
				infos = append(infos, &pipepb.MonitoringInfo{Urn: fmt.Sprint("urn:", i), Type: "none", Payload: []byte{1}})
			}
			w.each(func(b bundle) *fnpb.InstructionResponse {
				b.send(b.sink, record("\x01k\x01v"), true)
				if b.sink == "" { // the second stage
					return nil
				}
				return done(&fnpb.ProcessBundleResponse{MonitoringInfos: infos[1:], MonitoringData: map[string][]byte{"no such id": {1}, "": nil}})
			})
		}, "enough"},
		{"asks for state of nobody's", siding, func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				for i, key := range stateKeys() {
					for _, ask := range []*fnpb.StateRequest{
						{Request: &fnpb.StateRequest_Get{Get: &fnpb.StateGetRequest{ContinuationToken: []byte("\xff\xff\xff\xff")}}},
						{Request: &fnpb.StateRequest_Append{Append: &fnpb.StateAppendRequest{Data: []byte("x")}}},
						{Request: &fnpb.StateRequest_Clear{}},
						{},
					} {
						for _, instruction := range []string{b.id, "i0", ""} {
							ask.Id, ask.InstructionId, ask.StateKey = fmt.Sprint(i), instruction, key
							if b.state.Send(ask) != nil {
								return nil
							}
							if r, err := b.state.Recv(); err != nil || r.GetError() == "" {
								return &fnpb.InstructionResponse{Error: fmt.Sprintf("answered %v with %v, %v", ask, r, err)}
							}
						}
					}
				}
				return nil
			})
		}, "enough"},
		{"logs more than anyone reads", grouping, func(w *wild) {
			var once sync.Once // in a bundle: the server waits for it as long as it takes, and half a minute for a harness to connect
			w.each(func(bundle) *fnpb.InstructionResponse {
				once.Do(func() {
					logs, err := fnpb.NewBeamFnLoggingClient(w.conn).Logging(w.as(w.id))
					if err != nil {
						return
					}
					list := &fnpb.LogEntry_List{LogEntries: []*fnpb.LogEntry{
						{}, {Severity: fnpb.LogEntry_Severity_CRITICAL, Message: strings.Repeat("x", 1<<20), Trace: strings.Repeat("\n", 1<<20)},
					}}
					for range 60 {
						if logs.Send(list) != nil {
							return
						}
					}
				})
				return nil
			})
		}, "enough"},
		{"is not who it says", grouping, func(w *wild) {
			if w.connect() {
				// The worker of the quiet job, if its id could be guessed.
				other, err := fnpb.NewBeamFnControlClient(w.conn).Control(w.as(n.id + "-e0-w0"))
				if err == nil {
					_, err = other.Recv()
				}
				if err == nil {
					_ = other.CloseSend()
				}
				for _, ids := range []string{"", "nobody", "a\nb"} {
					stream, err := fnpb.NewBeamFnDataClient(w.conn).Data(w.as(ids))
					if err == nil {
						_, _ = stream.Recv()
					}
				}
			}
			_ = w.conn.Close()
		}, "is gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPool(t, c.behave)
			id, err := n.submit(t.Context(), "wild", p.pipeline(t, c.pipeline))
			if err != nil {
				t.Fatal(err)
			}
			n.failed(t, id, c.says)
			n.quiet(t)
		})
	}
}

// garbage is a harness that sends some bytes for elements, and says that all went well.
func garbage(b []byte) func(*wild) {
	return func(w *wild) {
		w.each(func(r bundle) *fnpb.InstructionResponse {
			r.send(r.sink, b, true)
			return done(&fnpb.ProcessBundleResponse{})
		})
	}
}

func stateKeys() []*fnpb.StateKey {
	long := bytes.Repeat([]byte("k"), 1<<20)
	return []*fnpb.StateKey{
		nil, {},
		{Type: &fnpb.StateKey_Runner_{}},
		{Type: &fnpb.StateKey_Runner_{Runner: &fnpb.StateKey_Runner{Key: []byte("\xff\xff\xff")}}},
		{Type: &fnpb.StateKey_IterableSideInput_{IterableSideInput: &fnpb.StateKey_IterableSideInput{TransformId: "P", SideInputId: "none", Window: long}}},
		{Type: &fnpb.StateKey_IterableSideInput_{IterableSideInput: &fnpb.StateKey_IterableSideInput{TransformId: "nobody", SideInputId: "side"}}},
		{Type: &fnpb.StateKey_MultimapSideInput_{MultimapSideInput: &fnpb.StateKey_MultimapSideInput{TransformId: "P", SideInputId: "side", Key: long}}},
		{Type: &fnpb.StateKey_MultimapKeysSideInput_{MultimapKeysSideInput: &fnpb.StateKey_MultimapKeysSideInput{TransformId: "P", SideInputId: "side"}}},
		{Type: &fnpb.StateKey_BagUserState_{BagUserState: &fnpb.StateKey_BagUserState{TransformId: "P", UserStateId: "s", Key: long}}},
		{Type: &fnpb.StateKey_MultimapUserState_{MultimapUserState: &fnpb.StateKey_MultimapUserState{TransformId: "P"}}},
		{Type: &fnpb.StateKey_MultimapKeysUserState_{}},
		{Type: &fnpb.StateKey_OrderedListUserState_{OrderedListUserState: &fnpb.StateKey_OrderedListUserState{TransformId: "P"}}},
	}
}

// TestHarnessesThatDoNothing are cancelled, whatever they wait for.
func TestHarnessesThatDoNothing(t *testing.T) {
	n := settle(t)
	for name, behave := range map[string]func(*wild){
		"never connects":   func(w *wild) { <-w.ctx.Done() },
		"never opens data": func(w *wild) { _, _ = fnpb.NewBeamFnControlClient(w.conn).Control(w.as(w.id)); <-w.ctx.Done() },
		"never answers":    func(w *wild) { w.each(func(b bundle) *fnpb.InstructionResponse { <-b.ctx.Done(); return nil }) },
		"never ends its output": func(w *wild) {
			w.each(func(bundle) *fnpb.InstructionResponse { return done(&fnpb.ProcessBundleResponse{}) })
		},
		"never stops sending": func(w *wild) {
			w.each(func(b bundle) *fnpb.InstructionResponse {
				for b.ctx.Err() == nil {
					b.send(b.sink, record("\x01k\x01v"), false)
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPool(t, behave)
			id, err := n.submit(t.Context(), "idle", p.pipeline(t, grouping))
			if err != nil {
				t.Fatal(err)
			}
			n.runs(t, id)
			if _, err := n.jobs.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id}); err != nil {
				t.Error(err)
			}
			if o := n.end(t, id); o.state != jobpb.JobState_CANCELLED {
				t.Errorf("the job ended as %v: %s", o.state, o.errors)
			}
			n.quiet(t)
		})
	}
}
