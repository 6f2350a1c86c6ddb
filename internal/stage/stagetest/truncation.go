package stagetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// draining is a streaming stage with the process step of a splittable DoFn, whose SDK can truncate its restrictions.
const draining = `
env sdk cap=beam:transform:sdf_truncate_sized_restrictions:v1
env other
window counted trigger=Repeat(ElementCount(1))
impulse start() > I
pardo source(I) > in:string~ env=other
pardo sides(I) > L:string@counted~ env=other
pardo work(inSIDES) > out:string~ restriction=string
pardo next(out) > end env=other
`

func drainingWith(sides string) string { return strings.Replace(draining, "SIDES", sides, 1) }

var truncationCases = []testCase{
	{"drained, restrictions are truncated by their SDK, once, and what it leaves of them is done", drainTruncates},
	{"what arrives when a task is drained is truncated before it is begun", drainTruncatesWhatComes},
	{"drained, an SDK that truncates nothing has its bounded restrictions done, and the others given up", drainWithoutTruncation},
	{"a truncation may read side inputs", truncationReadsSides},
	{"restrictions are truncated again when the harness dies", truncatedAgain},
	{"a truncation that fails alike is the task's failure, by the transform's name", truncationFails},
	{"what was truncated is so in a snapshot", snapshotOfTruncated},
	{"what is left of what was truncated is not truncated again, also when a restored task resumes it before it is drained again", resumedBeforeDrain},
}

// drainer is a splittable DoFn that does a piece at a time, an hour after the other, and leaves few of what is truncated.
type drainer struct {
	mu        sync.Mutex
	bounded   pipepb.IsBounded_Enum
	truncated []string
	truncate  func(b *sdk.Bundle) error // unless nil, it comes before
	leaves    int                       // pieces of what is truncated; one when it is 0
	read      bool                      // both steps read the side input
}

func (d *drainer) script(b *sdk.Bundle) error {
	truncating := b.Descriptor.GetTransforms()["work"].GetSpec().GetUrn() == urn.SDFTruncateRestriction
	if truncating && d.truncate != nil {
		if err := d.truncate(b); err != nil {
			return err
		}
	}
	return b.Each(func(e sdk.Element) error {
		s, err := sdk.Strings(e.Value[:len(e.Value)-8])
		if err != nil {
			return err
		}
		side := ""
		if d.read {
			values, err := readStrings(b, listKey(nil))
			if err != nil {
				return err
			}
			side = "(" + strings.Join(values, ",") + ")"
		}
		if truncating {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.truncated = append(d.truncated, s[0]+s[1]+side)
			return b.Write("work-truncated", sized(s[0], max(1, d.leaves)))
		}
		left := 0
		if _, err := fmt.Sscan(s[1], &left); err != nil {
			return err
		}
		if left > 1 {
			b.Response.ResidualRoots = append(b.Response.ResidualRoots, &fnpb.DelayedBundleApplication{
				Application: &fnpb.BundleApplication{
					TransformId: "work", InputId: "i0", Element: sized(s[0], left-1), IsBounded: d.bounded,
					OutputWatermarks: map[string]*timestamppb.Timestamp{"o0": timestamppb.New(time.UnixMilli(7))},
				},
				RequestedTimeDelay: durationpb.New(time.Hour),
			})
		}
		return b.Write("out", record(nil, 7, s[0]+s[1]+side))
	})
}

func (d *drainer) wantTruncated(t *testing.T, words string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	got := slices.Sorted(slices.Values(d.truncated))
	if strings.Join(got, " ") != words {
		t.Errorf("truncated %q, want %q", got, words)
	}
}

func (r *rig) drain() {
	r.t.Helper()
	for i := range r.tasks {
		if err := r.streaming(i).Drain(r.ctx); err != nil {
			r.t.Fatal(err)
		}
	}
}

func drainTruncates(t *testing.T, open Open) {
	d := &drainer{}
	r := start(t, open, setup{pipeline: drainingWith(""), script: d.script})
	r.clock(0)
	r.process(stage.MainInput, slices.Concat(sized("a", 3), sized("b", 9)))
	r.flush()
	r.want("a3 b9")
	r.watermark(coder.MaxTimestamp)
	r.told(7) // what is put off holds the watermark
	r.drain()
	r.flush()
	r.want("a3 b9 a1 b1")
	d.wantTruncated(t, "a2 b8")
	r.told(coder.MaxTimestamp)
	r.quiet(true)
}

func drainTruncatesWhatComes(t *testing.T, open Open) {
	d := &drainer{}
	r := start(t, open, setup{pipeline: drainingWith(""), script: d.script})
	r.clock(0)
	r.drain()
	r.process(stage.MainInput, slices.Concat(sized("a", 3), sized("b", 9)))
	r.flush()
	r.want("a1 b1")
	d.wantTruncated(t, "a3 b9")
	r.watermark(coder.MaxTimestamp)
	r.quiet(true)
}

func drainWithoutTruncation(t *testing.T, open Open) {
	pipeline := strings.Replace(drainingWith(""), "env sdk cap=beam:transform:sdf_truncate_sized_restrictions:v1\n", "", 1)
	for _, c := range []struct {
		bounded pipepb.IsBounded_Enum
		want    string
	}{
		{pipepb.IsBounded_BOUNDED, "a3 a2 a1"},
		{pipepb.IsBounded_UNBOUNDED, "a3"},
	} {
		d := &drainer{bounded: c.bounded}
		r := start(t, open, setup{pipeline: pipeline, script: d.script})
		r.clock(0)
		r.process(stage.MainInput, sized("a", 3))
		r.flush()
		r.watermark(coder.MaxTimestamp)
		r.drain()
		r.flush()
		r.clock(2 * 60 * 60 * 1000) // delays that the SDK asks for from then on are waited for
		r.flush()
		r.want(c.want)
		d.wantTruncated(t, "")
		r.quiet(true)
		r.end()
	}
}

func truncationReadsSides(t *testing.T, open Open) {
	d := &drainer{read: true}
	r := start(t, open, setup{pipeline: drainingWith(", list=L"), script: d.script})
	r.clock(0)
	r.side(record(nil, 1, "x"))
	r.process(stage.MainInput, sized("a", 3))
	r.flush()
	r.want("a3(x)")
	r.side(record(nil, 1, "y"))
	r.drain()
	r.flush()
	d.wantTruncated(t, "a2(y)")
	r.want("a3(x) a1(y)")
}

func truncatedAgain(t *testing.T, open Open) {
	died := false
	d := &drainer{truncate: func(b *sdk.Bundle) error {
		defer sdk.Order()
		if sdk.Order(); !died {
			died = true
			return b.Vanish()
		}
		return nil
	}}
	r := start(t, open, setup{pipeline: drainingWith(""), attempts: 2, script: d.script})
	r.clock(0)
	r.process(stage.MainInput, sized("a", 3))
	r.flush()
	r.drain()
	r.flush()
	r.want("a3 a1")
	d.wantTruncated(t, "a2")
}

func truncationFails(t *testing.T, open Open) {
	d := &drainer{truncate: func(*sdk.Bundle) error { return errors.New("there is no end to this") }}
	r := start(t, open, setup{pipeline: drainingWith(""), attempts: 3, script: d.script})
	r.clock(0)
	r.process(stage.MainInput, sized("a", 3))
	r.flush()
	err := r.streaming(0).Drain(r.ctx)
	for _, says := range []string{"there is no end to this", "truncate", "work"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}

func snapshotOfTruncated(t *testing.T, open Open) {
	d := &drainer{}
	one := start(t, open, setup{pipeline: drainingWith(""), script: d.script})
	one.clock(0)
	one.process(stage.MainInput, slices.Concat(sized("a", 3), sized("b", 9)))
	one.flush()
	before := one.snapshots()
	one.drain()
	one.flush()
	d.wantTruncated(t, "a2 b8")
	after := one.snapshots()
	one.end()
	for _, c := range []struct {
		restore         []stage.Restore
		truncated, want string
	}{{before, "a2 b8", "a1 b1"}, {after, "", ""}} {
		d := &drainer{}
		two := start(t, open, setup{pipeline: drainingWith(""), parallelism: 2, script: d.script, restore: c.restore})
		two.clock(1)
		two.watermark(coder.MaxTimestamp)
		two.drain()
		two.flush()
		d.wantTruncated(t, c.truncated)
		two.want(c.want)
		two.quiet(true)
		two.end()
	}
}

func resumedBeforeDrain(t *testing.T, open Open) {
	const hour = 60 * 60 * 1000
	d := &drainer{leaves: 3}
	one := start(t, open, setup{pipeline: drainingWith(""), script: d.script})
	one.clock(0)
	one.process(stage.MainInput, sized("a", 9))
	one.flush()
	one.drain()
	one.flush()
	one.want("a9 a3")
	d.wantTruncated(t, "a8")
	restore := one.snapshots()
	one.end()
	for _, parallelism := range []int{1, 2} {
		d := &drainer{leaves: 3}
		two := start(t, open, setup{pipeline: drainingWith(""), parallelism: parallelism, script: d.script, restore: restore})
		two.clock(2 * hour)
		two.watermark(coder.MaxTimestamp)
		two.want("a2")
		two.drain()
		two.clock(4 * hour)
		two.flush()
		two.want("a2 a1")
		d.wantTruncated(t, "")
		two.quiet(true)
		two.end()
	}
}
