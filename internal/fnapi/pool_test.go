package fnapi

import (
	"testing"

	"google.golang.org/grpc/mem"
)

var _ mem.BufferPool = &pool{}

func TestPoolGivesTheLengthAndAtMostTwiceTheRoom(t *testing.T) {
	var p pool
	for range 2 { // fresh ones, then used ones
		for _, length := range []int{0, 1, 4095, 4096, 4097, 33_000, 1<<20 - 1, 1 << 20, 1<<20 + 1, 4_100_000, 1 << 23, 1<<23 + 1} {
			buf := p.Get(length)
			if len(*buf) != length {
				t.Errorf("asked for %d bytes, got %d", length, len(*buf))
			}
			if most := max(2*length, 1<<smallest); cap(*buf) > most {
				t.Errorf("asked for %d bytes, got room for %d", length, cap(*buf))
			}
			p.Put(buf)
		}
	}
}

func TestPoolRefusesWhatIsNotItsOwn(t *testing.T) {
	var p pool
	for _, size := range []int{0, 100, 5000, 1 << 24} {
		buf := make([]byte, size)
		p.Put(&buf)
	}
	for _, length := range []int{1, 5000} {
		if buf := p.Get(length); len(*buf) != length || cap(*buf) < length {
			t.Errorf("asked for %d bytes, got %d of %d", length, len(*buf), cap(*buf))
		}
	}
}
