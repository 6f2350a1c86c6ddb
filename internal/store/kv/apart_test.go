package kv

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// What comes from the flushes keeps its values where they are, whatever compaction came before; what goes down further does not.
func TestValuesOfFlushesStayWhereTheyAre(t *testing.T) {
	var a apart
	for _, c := range []struct {
		levels []int
		depth  int
	}{
		{[]int{5, 6}, scattered}, {[]int{0, 5}, scatteredAbove}, {[]int{0, 0}, scatteredAbove}, {[]int{4, 5, 6}, scattered}, {nil, scattered},
	} {
		var info pebble.CompactionInfo
		for _, level := range c.levels {
			info.Input = append(info.Input, pebble.LevelInfo{Level: level})
		}
		a.begin(info)
		if got := a.policy().MaxBlobReferenceDepth; got != c.depth {
			t.Errorf("levels %v: values in up to %d files, want %d", c.levels, got, c.depth)
		}
	}
}
