package serverflags

import (
	"math"
	"testing"
)

func TestHeapLimitLeavesRoomBesidesTheData(t *testing.T) {
	for _, test := range []struct {
		memory int64
		cores  int
		want   int64
	}{
		{0, 2, 640 << 20}, // the default of 512 MiB
		{256 << 20, 2, 384 << 20},
		{4 << 30, 16, 4<<30 + 576<<20},
		{math.MaxInt64, 64, math.MaxInt64},
	} {
		if got := heapLimit(test.memory, test.cores); got != test.want {
			t.Errorf("memory %d on %d cores: limit %d, want %d", test.memory, test.cores, got, test.want)
		}
	}
}
