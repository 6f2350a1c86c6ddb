package stagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

// splitting is a stage with the process step of a splittable DoFn.
const splitting = `
env other
impulse start() > I
pardo source(I) > in:string
pardo work(in) > out:string restriction=string
pardo next(out) > end env=other
`

var bundleCases = []testCase{
	{directly + "metrics are passed on once a bundle, after its output", metricsOnce},
	{"residuals are processed before the input's end returns", residuals},
	{"a residual waits for its time", residualDelay},
	{"a stage that is not splittable gives nothing back", residualOfNothing},
	{"a residual that is empty is refused", emptyResidual},
	{directly + "a bundle is finalized when its output has been emitted", finalization},
	{directly + "a harness that goes away before it is told to finalize a bundle costs nothing", finalizedByNobody},
}

func metricsOnce(t *testing.T, open Open) {
	n := 0
	r := start(t, open, setup{pipeline: straight, bundleBytes: 1, script: func(b *sdk.Bundle) error {
		n++
		b.Response.MonitoringInfos = []*pipepb.MonitoringInfo{{Urn: fmt.Sprintf("bundle %d", n)}}
		return identity(b)
	}})
	r.process(stage.MainInput, records("a"))
	r.process(stage.MainInput, records("b"))
	r.finish()
	var urns []string
	for _, infos := range r.out.metrics {
		for _, info := range infos {
			urns = append(urns, info.GetUrn())
		}
	}
	if d := cmp.Diff([]string{"bundle 1", "bundle 2"}, urns); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
	if log := r.out.log(); log != "emit keep metrics emit keep metrics quiet" {
		t.Errorf("in the order %s", log)
	}
}

// sized is an element of a process step whose restriction is the number of pieces that are left.
func sized(element string, pieces int) []byte {
	rec := record(nil, 0, element, fmt.Sprint(pieces))
	return append(rec, 0, 0, 0, 0, 0, 0, 0, 0) // the size, a double
}

// pieces does one piece of each element, and gives the others back after the delay.
func pieces(delay time.Duration, did func(piece string)) sdk.Script {
	return func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			s, err := sdk.Strings(e.Value[:len(e.Value)-8])
			if err != nil {
				return err
			}
			left := 0
			if _, err := fmt.Sscan(s[1], &left); err != nil {
				return err
			}
			did(s[0])
			if left > 1 {
				b.Response.ResidualRoots = append(b.Response.ResidualRoots, &fnpb.DelayedBundleApplication{
					Application:        &fnpb.BundleApplication{TransformId: "work", InputId: "i0", Element: sized(s[0], left-1)},
					RequestedTimeDelay: durationpb.New(delay),
				})
			}
			return b.Write("out", record(nil, 0, s[0]+s[1]))
		})
	}
}

func residuals(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: splitting, script: pieces(0, func(string) {})})
	if !r.stage.Input.Splittable {
		t.Fatal("the stage is not splittable")
	}
	r.process(stage.MainInput, sized("a", 3))
	r.process(stage.MainInput, sized("b", 1))
	r.process(stage.MainInput, sized("c", 5))
	r.finish()
	got := r.values(r.exchange("out", "next"))
	slices.Sort(got)
	if d := cmp.Diff(strings.Fields("a1 a2 a3 b1 c1 c2 c3 c4 c5"), got); d != "" {
		t.Errorf("pieces (-want +got):\n%s", d)
	}
}

func residualDelay(t *testing.T, open Open) {
	const delay = 60 * time.Millisecond
	var mu sync.Mutex
	waited := context.Context(nil) // ends when half of the delay is over: two clocks are never quite one
	n := 0
	var cancels []context.CancelFunc
	r := start(t, open, setup{pipeline: splitting, script: pieces(delay, func(string) {
		mu.Lock()
		defer mu.Unlock()
		if waited != nil && waited.Err() == nil {
			t.Error("the rest of an element came before its time")
		}
		n++
		var cancel context.CancelFunc
		waited, cancel = context.WithTimeout(context.Background(), delay/2)
		cancels = append(cancels, cancel)
	})})
	r.process(stage.MainInput, sized("a", 3))
	r.finish()
	if n != 3 {
		t.Errorf("%d pieces", n)
	}
	for _, cancel := range cancels {
		cancel()
	}
}

func residualOfNothing(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, bundleBytes: 1, script: func(b *sdk.Bundle) error {
		b.Response.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{TransformId: "work", Element: records("a")}}}
		return identity(b)
	}})
	if err := r.try(stage.MainInput, records("a")); err == nil || !strings.Contains(err.Error(), "work") {
		t.Errorf("no error that names the transform: %v", err)
	}
}

func emptyResidual(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: splitting, script: func(b *sdk.Bundle) error {
		b.Response.ResidualRoots = []*fnpb.DelayedBundleApplication{{Application: &fnpb.BundleApplication{TransformId: "work"}}}
		return b.Each(func(sdk.Element) error { return nil })
	}})
	if err := r.try(stage.MainInput, sized("a", 1)); err == nil || !strings.Contains(err.Error(), "work") {
		t.Errorf("no error that names the transform: %v", err)
	}
}

func finalization(t *testing.T, open Open) {
	var bundles []string
	r := start(t, open, setup{pipeline: strings.Replace(keying, "WINDOW", "global", 1), bundleBytes: 1, script: func(b *sdk.Bundle) error {
		bundles = append(bundles, b.ID)
		b.Response.RequiresFinalization = len(bundles) != 2
		return b.Each(func(e sdk.Element) error { return b.Write("out", record(nil, 0, "k", "v")) })
	}})
	for i, want := range []int{1, 1, 2} {
		r.out.before = func(context.Context) error {
			if n := len(r.finalized()); n != min(i, 1) {
				t.Errorf("%d bundles were finalized when bundle %d emitted", n, i)
			}
			return nil
		}
		r.process(stage.MainInput, records("a"))
		if n := len(r.finalized()); n != want {
			t.Errorf("%d bundles were finalized after bundle %d", n, i)
		}
	}
	r.finish()
	if d := cmp.Diff([]string{bundles[0], bundles[2]}, r.finalized()); d != "" {
		t.Errorf("finalized (-want +got):\n%s", d)
	}
}

func finalizedByNobody(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, bundleBytes: 1, script: func(b *sdk.Bundle) error {
		b.Response.RequiresFinalization = true
		return identity(b)
	}})
	r.out.settling = func(context.Context, bool) error {
		r.session.Close(errors.New("the worker was taken away"))
		return nil
	}
	r.process(stage.MainInput, records("a"))
	r.process(stage.MainInput, records("b"))
	r.finish()
	if got := strings.Join(r.values(r.exchange("out", "next")), " "); got != "a b" {
		t.Errorf("output %q", got)
	}
	if got := r.finalized(); len(got) > 0 {
		t.Errorf("finalized %v", got)
	}
}
