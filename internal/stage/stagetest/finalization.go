package stagetest

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"trestle/internal/stage/stagetest/sdk"
)

var finalizationCases = []testCase{
	{"a bundle is finalized when a snapshot is safe that has its effects, and not before", finalizedWhenSafe},
	{"a snapshot covers those before it, and the end of the job all", finalizedTogether},
	{"a bundle that failed is not finalized, its repetition is", finalizedAttempt},
	{"a harness that is gone is not waited for", finalizedNobody},
}

// finalizing is a streaming stage each of whose bundles wants to be finalized, and names them in order.
func finalizing(t *testing.T, open Open, s setup, fail func(n int) error) (r *rig, bundles *[]string) {
	bundles = new([]string)
	s.pipeline = keptStream("global", "state")
	s.script = func(b *sdk.Bundle) error {
		sdk.Order()
		*bundles = append(*bundles, b.ID)
		n := len(*bundles)
		sdk.Order()
		b.Response.RequiresFinalization = true
		if err := remembering(b); err != nil {
			return err
		}
		return fail(n)
	}
	return start(t, open, s), bundles
}

func succeed(int) error { return nil }

// bundle has a bundle of one element processed.
func (r *rig) bundle(word string) {
	r.t.Helper()
	r.group(pairs(word))
	r.flush()
}

// snapshot takes one of a number of the first task.
func (r *rig) snapshot(id uint64) {
	r.t.Helper()
	if err := r.streaming(0).Snapshot(r.ctx, id, r.t.TempDir()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantFinalized(want ...string) {
	r.t.Helper()
	sdk.Order()
	if d := cmp.Diff(want, r.finalized(), cmpopts.EquateEmpty()); d != "" {
		r.t.Errorf("finalized (-want +got):\n%s", d)
	}
}

func finalizedWhenSafe(t *testing.T, open Open) {
	r, bundles := finalizing(t, open, setup{}, succeed)
	r.bundle("a=1")
	r.wantFinalized()
	r.snapshot(1)
	r.wantFinalized() // it may still be lost
	r.bundle("a=2")   // is not in it
	r.committed(1)
	r.wantFinalized((*bundles)[:1]...)
	r.committed(1)
	r.wantFinalized((*bundles)[:1]...)
	r.snapshot(2)
	r.committed(2)
	r.wantFinalized((*bundles)[:2]...)
}

func finalizedTogether(t *testing.T, open Open) {
	r, bundles := finalizing(t, open, setup{}, succeed)
	r.bundle("a=1")
	r.snapshot(1)
	r.bundle("a=2")
	r.snapshot(2)
	r.bundle("a=3")
	r.committed(2) // the first was never said to be safe
	r.wantFinalized((*bundles)[:2]...)
	r.committed(math.MaxUint64)
	r.wantFinalized((*bundles)[:3]...)
}

func finalizedAttempt(t *testing.T, open Open) {
	r, bundles := finalizing(t, open, setup{attempts: 2}, func(n int) error {
		if n == 1 {
			return errors.New("the first attempt fails")
		}
		return nil
	})
	r.bundle("a=1")
	r.want("a:1")
	r.committed(math.MaxUint64)
	r.wantFinalized((*bundles)[1:]...)
}

func finalizedNobody(t *testing.T, open Open) {
	r, bundles := finalizing(t, open, setup{attempts: 2}, succeed)
	r.bundle("a=1")
	r.session.Close(errors.New("the worker was taken away"))
	r.bundle("a=2")
	r.snapshot(1)
	r.committed(1)
	sdk.Order()
	// The second may have been begun by the harness that went away, too.
	if f := r.finalized(); len(f) != 1 || f[0] == (*bundles)[0] {
		t.Errorf("finalized %v, of the bundles %v", f, *bundles)
	}
}
