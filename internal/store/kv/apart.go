package kv

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// apartBytes is from which size on values lie apart from keys: a changed key then rewrites few bytes.
	apartBytes = 256
	// A table's values lie in so many files at most before a compaction writes them anew, side by side: else reads in the order
	// of keys would go all over the disk. That is for what goes down from level to level, a few tables at a time.
	scattered = 16
	// What comes from the flushes has been written a moment ago, and is all over the keys: it keeps its values where they are,
	// though a checkpoint of changes all over the state adds a file of values to each table. The next level's compactions bring them together.
	scatteredAbove = 64
)

// apart decides which compactions write anew the values that lie apart from their keys. It is asked before each, not told which;
// begin says it. There is one at a time (pebble's CompactionConcurrencyRange, which is left at that). Flushes ask as well: they
// always write what they have, so that the answer matters little to them.
type apart struct{ above atomic.Bool }

// begin takes note of a compaction's inputs.
func (a *apart) begin(c pebble.CompactionInfo) {
	a.above.Store(len(c.Input) > 0 && c.Input[0].Level == 0)
}

func (a *apart) policy() pebble.ValueSeparationPolicy {
	p := pebble.ValueSeparationPolicy{
		Enabled: true, MinimumSize: apartBytes, MaxBlobReferenceDepth: scattered, TargetGarbageRatio: 0.5,
	}
	if a.above.Load() {
		p.MaxBlobReferenceDepth = scatteredAbove
	}
	return p
}
