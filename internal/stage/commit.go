package stage

import (
	"context"
	"math"

	"trestle/internal/fnapi"
)

// finalization is a bundle that its harness wants to be told of when its effects are safe (FinalizeBundleRequest in
// beam_fn_api.proto).
type finalization struct {
	session *fnapi.Session
	bundle  string
	// snapshot is the first one that has the bundle's effects; 0 when none has been taken since.
	snapshot uint64
}

// covered says that a snapshot has the effects of all bundles so far.
func (b *bundles) covered(snapshot uint64) {
	for i := range b.unsafe {
		if b.unsafe[i].snapshot == 0 {
			b.unsafe[i].snapshot = snapshot
		}
	}
}

// committed finalizes the bundles whose effects are safe. The harness of a bundle may be gone: then nobody is left to be
// told.
func (b *bundles) committed(ctx context.Context, snapshot uint64) {
	var left []finalization
	for _, f := range b.unsafe {
		if (f.snapshot == 0 || f.snapshot > snapshot) && snapshot != math.MaxUint64 {
			left = append(left, f)
			continue
		}
		if err := f.session.Finalize(ctx, f.bundle); err != nil && f.session.Err() == nil {
			b.spec.Log.Warn("finalize a bundle", "stage", b.spec.Stage.Name, "error", err)
		}
	}
	b.unsafe = left
}
