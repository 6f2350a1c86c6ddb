package streaming

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trestle/internal/beam/urn"
	"trestle/internal/stage/stagetest/sdk"
)

var cuts = flag.Int("streaming.cuts", 0, "how many jobs TestJobCutOffAnywhere cuts off again and again")

// trouble has bundles fail now and then, before or after their work, and cuts a job off in the middle of one. A nil one has
// nothing of that.
type trouble struct {
	mu       sync.Mutex
	random   *rand.Rand
	failures int
	left     int // bundles until the job is cut off
	cut      context.CancelFunc
}

func (tr *trouble) with(script sdk.Script) sdk.Script {
	if tr == nil {
		return script
	}
	return func(b *sdk.Bundle) error {
		before, after := tr.next()
		if before != nil {
			return before
		}
		return errors.Join(script(b), after)
	}
}

// next is how a bundle fails, if it does. No two fail alike: what fails alike is not tried again.
func (tr *trouble) next() (before, after error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.left--; tr.left == 0 {
		tr.cut()
	}
	switch tr.random.IntN(10) {
	case 0:
		tr.failures++
		return fmt.Errorf("failure %d, before the bundle", tr.failures), nil
	case 1:
		tr.failures++
		return nil, fmt.Errorf("failure %d, after the bundle", tr.failures)
	}
	return nil, nil
}

// TestJobCutOffAnywhere: a job whose bundles fail now and then, and that is cut off at any bundle, while snapshots are written, as
// soon as it is opened, twice from the same snapshot, and while it is drained, does each thing once, and comes out with the same as one
// that is left alone.
func TestJobCutOffAnywhere(t *testing.T) {
	if *cuts == 0 {
		t.Skip("make chaos-streaming runs it")
	}
	for i := range *cuts {
		t.Run(strconv.Itoa(i), func(t *testing.T) { cutOffAnywhere(t, uint64(time.Now().UnixNano())) })
	}
}

func cutOffAnywhere(t *testing.T, seed uint64) {
	const lives = 5
	r := newRig(t)
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	// A drain leaves restrictions as they are, so that what comes out does not depend on when it came.
	r.pipeline = strings.Replace(counting, "env other\n", "env other cap="+urn.SDFTruncateRestriction+"\n", 1)
	if random.IntN(2) == 0 {
		r.pipeline = strings.Replace(r.pipeline, "fixed state timers", "fixed state timers stable", 1)
		r.requires = []string{urn.RequirementStableInput}
	}
	r.limit = 100
	r.trouble = &trouble{random: random}
	draining, over := random.IntN(lives), false
	for life := range lives {
		// The random numbers are those of the bundles from here on.
		r.trouble.mu.Lock()
		parallelism, after := 1+random.IntN(3), random.IntN(50)
		r.trouble.mu.Unlock()
		if over = r.cutOff(parallelism, after, life >= draining); over {
			t.Logf("the job has come to its end in life %d", life)
			break
		}
		r.killedInSnapshot()
	}
	if !over {
		over = r.cutOff(2, -1, random.IntN(2) == 0)
	}
	if !over {
		t.Error("the job was cut off in the end")
	}
	r.exact()
}

// cutOff runs the job until so many bundles were begun; with 0 it is opened only, and with less it is not cut off. over says that
// it came to its end.
func (r *rig) cutOff(parallelism, after int, draining bool) (over bool) {
	r.t.Helper()
	run, err := r.open(parallelism)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if draining {
		close(run.draining)
	}
	if after != 0 {
		r.trouble.mu.Lock()
		r.trouble.left, r.trouble.cut = after, cancel
		r.trouble.mu.Unlock()
		err = run.job.Run(ctx)
		// A bundle that failed is not tried again once the job is cut off: then that is what the job says.
		if over = err == nil; !over && !errors.Is(ctx.Err(), context.Canceled) {
			r.t.Errorf("the job ended with %v", err)
		}
	}
	run.close()
	return over
}

// killedInSnapshot leaves the snapshots' folder as a kill can: with one that is all there but its name, and an old one that was
// being removed.
func (r *rig) killedInSnapshot() {
	r.t.Helper()
	all, err := numbers(r.snapshots)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(all) == 0 {
		return
	}
	unnamed := filepath.Join(r.snapshots, pending)
	if err := os.RemoveAll(unnamed); err != nil {
		r.t.Fatal(err)
	}
	if err := os.CopyFS(unnamed, os.DirFS(filepath.Join(r.snapshots, strconv.FormatUint(all[0], 10)))); err != nil {
		r.t.Fatal(err)
	}
	if len(all) > 1 {
		if err := os.Remove(files(r.t, filepath.Join(r.snapshots, strconv.FormatUint(all[len(all)-1], 10)))[0]); err != nil {
			r.t.Fatal(err)
		}
	}
}

// What a job does at its very end is in a snapshot before bundles are finalized for it: a server that is killed before it has noted
// the end does nothing again.
func TestKilledAfterTheEnd(t *testing.T) {
	r := newRig(t)
	r.requires = []string{urn.RequirementFinalization}
	r.until(2, 2)
	r.drain(3)
	worked := r.worked.Load()
	for _, parallelism := range []int{3, 2} {
		r.trouble = &trouble{random: rand.New(rand.NewPCG(1, 1))}
		if !r.cutOff(parallelism, -1, parallelism == 2) {
			t.Error("the job did not come to its end")
		}
	}
	if now := r.worked.Load(); now != worked {
		t.Errorf("%d bundles were processed again", now-worked)
	}
	r.exact()
}
