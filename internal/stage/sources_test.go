package stage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/plan"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// sourcePlan is a stage with the process step of a splittable DoFn, whose SDK can truncate its restrictions unless plain.
func sourcePlan(t failing, plain bool) *plan.Plan {
	capability := "cap=" + urn.SDFTruncateRestriction
	if plain {
		capability = ""
	}
	return buildPlan(t, fmt.Sprintf(`
env sdk %s
env other
impulse start() > I
pardo source(I) > in:string~ env=other
pardo work(in) > out:string~ restriction=string
pardo next(out) > end env=other
`, capability))
}

// part is a restriction of sourceFn: how many pieces are left of it, how long it rests after each, where its watermark is and how
// far each piece brings that; and whether it is one that may never end, or one that goes on until it is asked to stop. A piece may take
// time, and the delay may be one of any seconds and nanoseconds.
type part struct {
	name               string
	left               int
	delay, mark, step  int64
	takes              int64
	rests              *durationpb.Duration // in place of delay
	endless, unstopped bool
}

func (p part) text() string {
	b := fmt.Sprintf("%d/%d/%d/%d", p.left, p.delay, p.mark, p.step)
	if p.takes != 0 {
		b += fmt.Sprintf("/takes:%d", p.takes)
	}
	if p.rests != nil {
		b += fmt.Sprintf("/rests:%d:%d", p.rests.Seconds, p.rests.Nanos)
	}
	if p.endless {
		b += "/endless"
	}
	if p.unstopped {
		b += "/unstopped"
	}
	return b
}

func parsePart(name, text string) (part, error) {
	p := part{name: name, endless: strings.Contains(text, "/endless"), unstopped: strings.Contains(text, "/unstopped")}
	if _, err := fmt.Sscanf(text, "%d/%d/%d/%d", &p.left, &p.delay, &p.mark, &p.step); err != nil {
		return p, err
	}
	for _, option := range strings.Split(text, "/")[4:] {
		var err error
		what, value, _ := strings.Cut(option, ":")
		switch what {
		case "takes":
			_, err = fmt.Sscan(value, &p.takes)
		case "rests":
			p.rests = &durationpb.Duration{}
			_, err = fmt.Sscanf(value, "%d:%d", &p.rests.Seconds, &p.rests.Nanos)
		}
		if err != nil {
			return p, fmt.Errorf("%s: %w", option, err)
		}
	}
	return p, nil
}

// record is the part as an element of the process step.
func (p part) record() []byte {
	b := coder.AppendHeader(nil, p.mark, nil, coder.NoFiring)
	return append(sdk.String(sdk.String(b, p.name), p.text()), make([]byte, 8)...) // the size, a double
}

// residual is the part as an SDK gives it back.
func (p part) residual(delay int64) *fnpb.DelayedBundleApplication {
	bounded := pipepb.IsBounded_BOUNDED
	if p.endless {
		bounded = pipepb.IsBounded_UNBOUNDED
	}
	rests := p.rests
	if rests == nil {
		rests = durationpb.New(time.Duration(delay) * time.Millisecond)
	}
	return &fnpb.DelayedBundleApplication{
		Application: &fnpb.BundleApplication{
			TransformId: "work", InputId: "i0", Element: p.record(), IsBounded: bounded,
			OutputWatermarks: map[string]*timestamppb.Timestamp{"o0": timestamppb.New(time.UnixMilli(p.mark))},
		},
		RequestedTimeDelay: rests,
	}
}

// did is the part after one more piece.
func (p part) did() part {
	p.left, p.mark = p.left-1, p.mark+p.step
	return p
}

// sourceFn is a splittable DoFn that does one piece of a restriction at a time. Truncated, a restriction has one piece left.
type sourceFn struct {
	rig *scriptRig
	// waits is sent to when a part is under way that has to be asked to stop.
	waits chan struct{}
	done  []donePiece // guarded by rig.mu
}

// donePiece is a piece of a restriction that a bundle has done, and when that began and ended.
type donePiece struct {
	name         string
	left         int
	began, ended int64
}

func (f *sourceFn) script(b *sdk.Bundle) error {
	began := f.rig.time().UnixMilli()
	var pieces []donePiece
	truncating := b.Descriptor.GetTransforms()["work"].GetSpec().GetUrn() == urn.SDFTruncateRestriction
	var did []string
	err := b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value[:len(e.Value)-8])
		if err != nil {
			return err
		}
		p, err := parsePart(s[0], s[1])
		if err != nil {
			return err
		}
		did = append(did, fmt.Sprintf("%s %d", p.name, p.left))
		if truncating {
			p.left, p.delay, p.rests, p.unstopped = 1, 0, nil, false
			return b.Write("work-truncated", p.record())
		}
		f.rig.takes(time.Duration(p.takes) * time.Millisecond)
		pieces = append(pieces, donePiece{name: p.name, left: p.left, began: began})
		rest := p.did()
		switch {
		case p.unstopped:
			return f.untilAsked(b, p, rest)
		case rest.left > 0:
			b.Response.ResidualRoots = append(b.Response.ResidualRoots, rest.residual(p.delay))
		}
		return nil
	})
	if err != nil {
		return err
	}
	what := "bundle"
	if truncating {
		what = "truncate"
	}
	f.rig.say("%s: %s", what, strings.Join(did, ", "))
	ended := f.rig.time().UnixMilli()
	f.rig.mu.Lock()
	defer f.rig.mu.Unlock()
	for _, p := range pieces {
		p.ended = ended
		f.done = append(f.done, p)
	}
	return nil
}

// untilAsked goes on with a part until the runner asks for the rest of it.
func (f *sourceFn) untilAsked(b *sdk.Bundle, p, rest part) error {
	asked := make(chan struct{})
	rest.unstopped = false
	b.OnSplit(func(r *fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
		select {
		case <-asked:
			return &fnpb.ProcessBundleSplitResponse{}
		default:
		}
		defer close(asked)
		p.left = 1
		return &fnpb.ProcessBundleSplitResponse{
			ChannelSplits: []*fnpb.ProcessBundleSplitResponse_ChannelSplit{{LastPrimaryElement: -1, FirstResidualElement: 1}},
			PrimaryRoots:  []*fnpb.BundleApplication{p.residual(0).GetApplication()},
			ResidualRoots: []*fnpb.DelayedBundleApplication{rest.residual(0)},
		}
	})
	f.waits <- struct{}{}
	select {
	case <-asked:
		return nil
	case <-b.Gone():
		return fmt.Errorf("nobody asked for the rest of %s", p.name)
	}
}

// checkpoint brings records to the first task, and asks for what is left of them while they are processed.
func (r *scriptRig) checkpoint(f *sourceFn, records []byte) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	flushed := make(chan error, 1)
	go func() { flushed <- r.tasks[0].Process(ctx, stage.Delivery{}, records) }()
	select {
	case <-f.waits:
	case err := <-flushed:
		r.t.Fatalf("nothing was under way: %v", err)
	}
	c := r.tasks[0].(stage.Checkpointer)
	for {
		r.check(c.Checkpoint(ctx, true))
		select {
		case err := <-flushed:
			r.check(err)
			return
		case <-time.After(time.Millisecond): // it was not on offer yet
		}
	}
}

// TestSourceScenarios holds how a splittable DoFn's restrictions are scheduled against what is written down.
//
//	stage [plain] [tasks=N]     a stage; plain: its SDK truncates nothing
//	elements                    restrictions come to the first task: NAME LEFT/DELAY/WATERMARK/STEP[/takes:MILLIS][/rests:SECONDS:NANOS][/endless][/unstopped] (see part)
//	checkpoint                  the same, and the runner asks for the rest of what is under way
//	watermark AT, clock AT, flush, drain, restore [tasks=N]
func TestSourceScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata/sources", func(t *testing.T, path string) {
		var r *scriptRig
		var fn *sourceFn
		defer func() {
			if r != nil {
				r.close()
			}
		}()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			tasks := 1
			d.MaybeScanArgs(t, "tasks", &tasks)
			switch d.Cmd {
			case "stage":
				if r != nil {
					r.close()
				}
				fn = &sourceFn{waits: make(chan struct{}, 1)}
				r = newScriptRig(t, t.TempDir(), sourcePlan(t, d.HasArg("plain")), oneHarness(t, map[string]sdk.Script{"work": fn.script}), tasks, 0)
				fn.rig = r
				return ""
			case "elements", "checkpoint":
				r.t = t
				var records []byte
				for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
					name, text, _ := strings.Cut(line, " ")
					p, err := parsePart(name, text)
					r.check(err)
					records = append(records, p.record()...)
				}
				if d.Cmd == "checkpoint" {
					r.checkpoint(fn, records)
				} else {
					r.check(r.tasks[0].Process(context.Background(), stage.Delivery{}, records))
				}
			default:
				r.t = t
				r.event(t, d, tasks)
			}
			return r.outcome()
		})
	})
}

// TestSourcesAreAsTheReference: whatever restrictions come when, over restarts and other numbers of tasks, each piece is done
// once, when it is due and not before, which is its delay after the end of the bundle that did the one before, however long that
// took; the output watermark is where they let it be; no more is put off than there are
// restrictions; and a drain truncates each that is left once.
func TestSourcesAreAsTheReference(t *testing.T) {
	fn := &sourceFn{}
	harness := oneHarness(t, map[string]sdk.Script{"work": func(b *sdk.Bundle) error { return fn.script(b) }})
	rapid.Check(t, func(rt *rapid.T) {
		r := newScriptRig(rt, t.TempDir(), sourcePlan(rt, false), harness, rapid.IntRange(1, 3).Draw(rt, "tasks"), 0)
		defer r.close()
		fn.rig = r
		r.clock(0)
		input, serial := coder.MinTimestamp, 0
		clock := func() int64 { return r.time().UnixMilli() } // which moves while bundles run
		type waiting struct {
			part
			due int64
		}
		var waits []waiting
		settle := func(what string) {
			r.flush()
			for range 100 {
				again := false
				for _, out := range r.outs {
					again = again || !out.wake.IsZero() && !out.wake.After(r.time())
				}
				if !again {
					break
				}
				r.clock(clock())
				r.flush()
			}
			r.mu.Lock()
			done := fn.done
			fn.done = nil
			r.mu.Unlock()
			for _, d := range done {
				i := slices.IndexFunc(waits, func(w waiting) bool { return w.name == d.name })
				if i < 0 || waits[i].left != d.left || waits[i].due > d.began {
					rt.Fatalf("after %s: %v is done; the reference has %v", what, d, waits)
				}
				w := &waits[i]
				if w.part, w.due = w.did(), d.ended+w.delay; w.left == 0 {
					waits = slices.Delete(waits, i, i+1)
				}
			}
			for _, w := range waits {
				if w.due <= clock() {
					rt.Fatalf("after %s: at %d, %v is not done, which was due at %d", what, clock(), w.part, w.due)
				}
			}
			most := input
			for _, w := range waits {
				most = min(most, w.mark)
			}
			least := coder.MaxTimestamp
			for _, out := range r.outs {
				least = min(least, out.told)
			}
			if least > most && most > coder.MinTimestamp || least < most {
				rt.Fatalf("after %s: the tasks' watermarks are at %d, the reference's at %d", what, least, most)
			}
		}
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"part", "part", "clock", "clock", "watermark", "restore"}).Draw(rt, "step") {
			case "part":
				serial++
				p := part{
					name: fmt.Sprint("p", serial), left: rapid.IntRange(1, 4).Draw(rt, "left"), delay: rapid.Int64Range(0, 30).Draw(rt, "delay"),
					mark: max(input, 0) + rapid.Int64Range(0, 10).Draw(rt, "mark"), step: rapid.Int64Range(0, 10).Draw(rt, "step"),
					takes: rapid.Int64Range(0, 20).Draw(rt, "takes"),
				}
				task := rapid.IntRange(0, len(r.tasks)-1).Draw(rt, "task")
				r.check(r.tasks[task].Process(context.Background(), stage.Delivery{}, p.record()))
				waits = append(waits, waiting{p, 0})
				settle("a restriction")
			case "clock":
				r.clock(clock() + rapid.Int64Range(0, 40).Draw(rt, "clock"))
				settle("the clock")
			case "watermark":
				input = max(input, 0) + rapid.Int64Range(0, 10).Draw(rt, "watermark")
				r.watermark(input)
				settle("a watermark")
			case "restore":
				r.restore(rapid.IntRange(1, 3).Draw(rt, "tasks"))
				settle("a restart")
			}
		}
		input = coder.MaxTimestamp
		r.watermark(input)
		settle("the end of input")
		for i := range waits {
			waits[i].left, waits[i].delay, waits[i].due, waits[i].step = 1, 0, 0, coder.MaxTimestamp-waits[i].mark
		}
		r.drain()
		settle("a drain")
		for i, out := range r.outs {
			if !out.quiet {
				rt.Fatalf("task %d is not quiet", i)
			}
		}
	})
}
