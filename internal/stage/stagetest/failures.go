package stagetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/fnapi"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
)

var failureCases = []testCase{
	{directly + "the user's error is told as the SDK told it, with the stage", userError},
	{directly + "a harness that is lost in a bundle fails the task", harnessLost},
	{directly + "a harness that cannot be had fails the task", noHarness},
	{"an output that cannot be cut into records is named", malformedOutput},
	{"an engine that takes no output fails the task", emitFails},
	{"an error is final", errorsAreFinal},
	{"a cancelled call ends, and its cause is told", cancelled},
	{"an input that is not keyed knows no attempts", attemptsOfElements},
	{"odd state requests are answered with an error", oddStateRequests},
}

// ends processes words one by one and ends the input, until something fails.
func (r *rig) ends(words string) error {
	for _, word := range strings.Fields(words) {
		if err := r.try(stage.MainInput, records(word)); err != nil {
			return err
		}
	}
	return r.tasks[0].End(r.ctx, stage.MainInput)
}

// failing passes on what comes, and fails on the element "bad".
func failing(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		if string(e.Value[1:]) == "bad" {
			return errors.New("boom\n  at user.code:7")
		}
		return b.Write("out", e.Record)
	})
}

func userError(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, script: failing})
	err := r.ends("a bad c")
	var user *fnapi.HarnessError
	if !errors.As(err, &user) || user.Text != "boom\n  at user.code:7" || user.Worker != "w0" {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(err.Error(), r.stage.Name) {
		t.Errorf("the stage is not named: %v", err)
	}
	if said, want := stage.Describe(r.plan, err), "boom\nin stage \""+r.stage.Name+"\"\n"; !strings.HasPrefix(said, want) {
		t.Errorf("a person reads %q, which does not begin with %q", said, want)
	}
	if strings.Contains(r.out.log(), "quiet") {
		t.Error("a failed task told that it is quiet")
	}
}

func harnessLost(t *testing.T, open Open) {
	for _, when := range []string{"in the input", "after the input", "after the output"} {
		t.Run(when, func(t *testing.T) {
			r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
				err := b.Each(func(e sdk.Element) error {
					if when == "in the input" {
						return b.Vanish()
					}
					return b.Write("out", e.Record)
				})
				if err != nil {
					return err
				}
				if when == "after the output" {
					if err := b.EndOutputs(); err != nil {
						return err
					}
				}
				return b.Vanish()
			}})
			err := r.ends("a b c")
			if err == nil || !errors.Is(err, r.session.Err()) {
				t.Errorf("the task's error is not why the harness is gone (%v): %v", r.session.Err(), err)
			}
		})
	}
}

func noHarness(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, script: identity})
	refused := errors.New("no image")
	spec := r.spec
	spec.Out = &output{recorder: r.out}
	spec.Harness = func(context.Context) (*fnapi.Session, error) { return nil, refused }
	task := open(t, spec)
	r.tasks = append(r.tasks, task)
	err := task.Process(r.ctx, stage.Delivery{}, records("a"))
	if err == nil { // a small bundle may be held back until its input has ended
		err = task.End(r.ctx, stage.MainInput)
	}
	if !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
}

func malformedOutput(t *testing.T, open Open) {
	whole := record(nil, 0, "key", "value")
	for name, bad := range map[string][]byte{
		"cut short": whole[:len(whole)-1], "cut in the header": whole[:5], "a byte too many": append(whole, 0xff),
	} {
		for kind, pipeline := range map[string]string{
			"keyed": strings.Replace(keying, "WINDOW", "global", 1),
			"rebalance": `
env other
impulse start() > I
pardo source(I) > in:string env=other
pardo work(in) > out:kv(string,string)
reshuffle spread(out) > spread
pardo next(spread) > end env=other`,
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				r := start(t, open, setup{pipeline: pipeline, script: func(b *sdk.Bundle) error {
					return b.Each(func(sdk.Element) error { return b.Write("out", bad) })
				}})
				if err := r.ends("a"); err == nil || !strings.Contains(err.Error(), "output out") {
					t.Errorf("no error that names the output: %v", err)
				}
			})
		}
	}
}

func emitFails(t *testing.T, open Open) {
	for kind, pipeline := range map[string]string{"forward": straight, "keyed": strings.Replace(keying, "WINDOW", "global", 1)} {
		t.Run(kind, func(t *testing.T) {
			full := errors.New("disk full")
			r := start(t, open, setup{pipeline: pipeline, script: func(b *sdk.Bundle) error {
				return b.Each(func(sdk.Element) error { return b.Write("out", pairs("a=b")) })
			}})
			r.out.before = func(context.Context) error { return full }
			if err := r.ends("a"); !errors.Is(err, full) {
				t.Errorf("%v", err)
			}
		})
	}
}

func errorsAreFinal(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: straight, bundleBytes: 1, script: failing})
	first := r.ends("bad")
	if first == nil {
		t.Fatal("no error")
	}
	bundles := r.bundles()
	for range 2 {
		if err := r.ends("a"); err == nil {
			t.Error("a failed task took a block")
		}
		if err := r.tasks[0].End(r.ctx, stage.MainInput); err == nil {
			t.Error("a failed task took the input's end")
		}
	}
	if r.bundles() != bundles {
		t.Error("a failed task began a bundle")
	}
	if log := r.out.log(); strings.Contains(log, "keep") || strings.Contains(log, "quiet") {
		t.Errorf("a failed task put out %s", log)
	}
}

func cancelled(t *testing.T, open Open) {
	started := make(chan struct{}, 1)
	r := start(t, open, setup{pipeline: straight, script: func(b *sdk.Bundle) error {
		if err := b.Each(func(sdk.Element) error { return nil }); err != nil {
			return err
		}
		started <- struct{}{}
		return b.Hang()
	}})
	r.process(stage.MainInput, records("a"))
	ctx, cancel := context.WithCancelCause(r.ctx)
	why := errors.New("the job was cancelled")
	go func() {
		<-started
		cancel(why)
	}()
	if err := r.tasks[0].End(ctx, stage.MainInput); !errors.Is(err, why) {
		t.Errorf("End: %v", err)
	}
}

func attemptsOfElements(t *testing.T, open Open) {
	for _, pipeline := range []string{straight, impulsive} {
		r := start(t, open, setup{pipeline: pipeline, script: identity})
		if err := r.tasks[0].Settle(r.ctx, 1, false); err == nil {
			t.Error("an attempt was forgotten whose blocks count already")
		}
	}
}

// What an SDK may ask wrongly is told to it, and the bundle goes on.
func oddStateRequests(t *testing.T, open Open) {
	get := func(key *fnpb.StateKey, token string) *fnpb.StateRequest {
		return &fnpb.StateRequest{StateKey: key, Request: &fnpb.StateRequest_Get{Get: &fnpb.StateGetRequest{ContinuationToken: []byte(token)}}}
	}
	listKeys := mapKeysKey(first)
	listKeys.GetMultimapKeysSideInput().SideInputId = "list"
	odd := []*fnpb.StateRequest{
		{},
		{StateKey: listKey(first)},
		{StateKey: listKey(first), Request: &fnpb.StateRequest_Append{Append: &fnpb.StateAppendRequest{Data: []byte("x")}}},
		{StateKey: listKey(first), Request: &fnpb.StateRequest_Clear{Clear: &fnpb.StateClearRequest{}}},
		get(nil, ""),
		get(listKeys, ""),
		get(listKey(first), "\xff"),
		get(listKey(first), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
		get(listKey(first), "\x07"),
		get(listKey(first), "\x80\x80\x80\x80\x80\x01"),
		get(mapKey("k", first), "\x07"),
		get(mapKey("k", first), "\x80\x80\x80\x80\x80\x01"),
		get(mapKeysKey(first), "\x80\x80\x80\x80\x80\x01"),
		get(runnerKey([]byte("none")), ""),
	}
	r := start(t, open, setup{pipeline: sided, script: func(b *sdk.Bundle) error {
		return b.Each(func(e sdk.Element) error {
			for _, request := range odd {
				answer, err := b.Ask(request)
				if err != nil {
					return err
				}
				if answer.GetError() == "" {
					return fmt.Errorf("%v was answered with %v", request, answer)
				}
			}
			return b.Write("out", e.Record)
		})
	}})
	r.fill()
	r.process(stage.MainInput, records("a"))
	r.finish()
}
