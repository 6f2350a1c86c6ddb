package stagetest

import (
	"context"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trestle/internal/fnapi"
	"trestle/internal/plan"
	"trestle/internal/plan/plantest"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
	"trestle/internal/stage/stagetest/sdk"
	"trestle/internal/store/kv"
)

// patience is how long a case may take: only one that fails gets near it.
const patience = time.Minute

// setup is what a case starts from. The stage under test is the one of the transform "work".
type setup struct {
	// pipeline is a pipeline as package plantest reads it.
	pipeline string
	// script is what the harness does with the stage's bundles; nil when the stage has no environment.
	script sdk.Script
	// merge is what the same harness does when it is asked to merge windows; nil when it is not.
	merge sdk.Script
	// mapping is what it does when it is asked which windows of a side input others read; nil when it is not.
	mapping sdk.Script
	// memory is the budget for shuffles; 0 stands for plenty.
	memory      int64
	bundleBytes int
	attempts    int // 0 stands for 1: a failure is the task's at once
	parallelism int // 0 stands for 1
	keyGroups   int // 0 stands for 8
	// streaming has the plan be a streaming one, whatever the pipeline is.
	streaming bool
	// restore are the snapshots that the tasks begin with.
	restore []stage.Restore
}

// rig is a stage with everything around it.
type rig struct {
	t      *testing.T
	ctx    context.Context
	open   Open
	plan   *plan.Plan
	stage  *plan.Stage
	spec   stage.Spec
	budget *shuffle.Budget
	out    *recorder
	// state bounds the tasks' stores, which are below stateDir.
	state    *kv.Cache
	stateDir string
	tasks    []stage.Task
	outputs  []*output
	// session is the latest harness's; harnesses are all that there were: none when the stage has no environment.
	session    *fnapi.Session
	harnesses  []*sdk.Harness
	connecting sync.Mutex // held while the two change
}

// start builds the plan and connects the harness. The end of the test checks that nothing is left.
func start(t *testing.T, open Open, s setup) *rig {
	t.Helper()
	pipeline, err := plantest.Parse(s.pipeline)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, open: open}
	if r.plan, err = plan.Build(pipeline, plan.Options{Streaming: s.streaming}); err != nil {
		t.Fatal(err)
	}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r.stage = r.find("work")
	if s.memory == 0 {
		s.memory = 64 << 20
	}
	r.budget = shuffle.NewBudget(s.memory)
	r.out = &recorder{t: t}
	r.state = kv.NewCache(1 << 20)
	r.stateDir = t.TempDir()
	t.Cleanup(r.state.Close)
	r.spec = stage.Spec{
		Plan: r.plan, Stage: r.stage,
		Parallelism: max(s.parallelism, 1),
		KeyGroups:   s.keyGroups,
		Store:       shuffle.NewStore(t.TempDir(), r.budget),
		BundleBytes: s.bundleBytes,
		Attempts:    max(s.attempts, 1),
		Restore:     s.restore,
		Log:         slog.New(slog.DiscardHandler),
	}
	if r.spec.KeyGroups == 0 {
		r.spec.KeyGroups = 8
	}
	if r.spec.Views, err = stage.NewViews(r.plan, r.stage, r.spec.Store); err != nil {
		t.Fatal(err)
	}
	if s.script != nil {
		r.connect(map[string]sdk.Script{"work": s.script, "merge-windows": s.merge, "map-windows": s.mapping})
	}
	t.Cleanup(r.end)
	for range r.spec.Parallelism {
		r.another()
	}
	return r
}

// another opens one more task.
func (r *rig) another() stage.Task {
	spec := r.spec
	out := &output{recorder: r.out}
	spec.Index, spec.Out = len(r.tasks), out
	r.outputs = append(r.outputs, out)
	spec.State = stage.State{Directory: filepath.Join(r.stateDir, strconv.Itoa(spec.Index)), Cache: r.state}
	task := r.open(r.t, spec)
	r.tasks = append(r.tasks, task)
	return task
}

// find returns the stage that a transform is in, or at whose mouth it stands.
func (r *rig) find(transform string) *plan.Stage {
	for _, s := range r.plan.Stages {
		if s.Input.Group != nil && s.Input.Group.Transform == transform {
			return s
		}
		for _, id := range s.Transforms {
			if id == transform {
				return s
			}
		}
	}
	r.t.Fatalf("no stage has the transform %q", transform)
	return nil
}

// connect starts a Fn API server, and a harness whenever the task asks for one and none is there.
func (r *rig) connect(scripts map[string]sdk.Script) {
	pair, err := sdk.NewPair()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		r.session.Close(nil)
		for _, harness := range r.harnesses {
			harness.Close()
		}
		if err := pair.Close(); err != nil {
			r.t.Errorf("close the Fn API's server: %v", err)
		}
	})
	r.spec.Harness = func(ctx context.Context) (*fnapi.Session, error) {
		r.connecting.Lock()
		defer r.connecting.Unlock()
		if r.session != nil && r.session.Err() == nil {
			return r.session, nil
		}
		session, harness, err := pair.Connect(ctx, scripts)
		if err == nil {
			r.session, r.harnesses = session, append(r.harnesses, harness)
		}
		return session, err
	}
	if scripts["merge-windows"] != nil {
		r.spec.MergeHarness = r.spec.Harness
	}
	if _, err := r.spec.Harness(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

// bundles is how many bundles the harnesses were given.
func (r *rig) bundles() int {
	r.connecting.Lock()
	defer r.connecting.Unlock()
	n := 0
	for _, harness := range r.harnesses {
		n += harness.Bundles()
	}
	return n
}

// finalized are the bundles that were finalized.
func (r *rig) finalized() []string {
	var all []string
	for _, harness := range r.harnesses {
		all = append(all, harness.Finalized()...)
	}
	return all
}

// end closes what is left, and looks for what was not given back.
func (r *rig) end() {
	for _, task := range r.tasks {
		if err := task.Close(); err != nil {
			r.t.Errorf("Close: %v", err)
		}
	}
	if err := r.spec.Views.Close(); err != nil {
		r.t.Errorf("close the views: %v", err)
	}
	if used := r.budget.Used(); used != 0 {
		r.t.Errorf("%d bytes are held after the end", used)
	}
	if err := r.spec.Store.Close(); err != nil {
		r.t.Errorf("close the store: %v", err)
	}
}

// process brings a block to the first task, and overwrites it afterwards: it is the engine's again.
func (r *rig) process(input int, block []byte) {
	r.t.Helper()
	if err := r.try(input, block); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) try(input int, block []byte) error {
	given := append([]byte(nil), block...)
	err := r.tasks[0].Process(r.ctx, stage.Delivery{Input: input}, given)
	if string(given) != string(block) {
		r.t.Error("Process changed the block")
	}
	for i := range given {
		given[i] = 0xa5
	}
	return err
}

// group brings records to the tasks of a stage that takes them by key, as an engine does that got them through a keyed exchange.
func (r *rig) group(records []byte) { r.groupOf(0, records) }

func (r *rig) groupOf(attempt stage.Attempt, records []byte) {
	r.t.Helper()
	id := r.stage.Input.Coder
	if r.stage.Input.Group != nil {
		id = r.stage.Input.Group.Coder
	}
	p, err := shuffle.NewPartitioner(r.windowed(id), r.spec.KeyGroups, func(keyGroup int, block []byte) error {
		task := r.tasks[keyGroup*len(r.tasks)/r.spec.KeyGroups]
		return task.Process(r.ctx, stage.Delivery{KeyGroup: keyGroup, Attempt: attempt}, block)
	})
	if err == nil && r.stage.Input.State != nil {
		p.KeepPanes()
	}
	if err == nil {
		err = p.Write(records)
	}
	if err == nil {
		err = p.Flush()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// endInput ends an input of all tasks.
func (r *rig) endInput(input int) {
	r.t.Helper()
	for _, task := range r.tasks {
		if err := task.End(r.ctx, input); err != nil {
			r.t.Fatal(err)
		}
	}
}

// finish ends the main input and closes the tasks, which have told that they are quiet.
func (r *rig) finish() {
	r.t.Helper()
	r.endInput(stage.MainInput)
	if n := strings.Count(r.out.log(), "quiet"); n != len(r.tasks) {
		r.t.Errorf("%d tasks told %d times that they are quiet", len(r.tasks), n)
	}
	r.end()
}
