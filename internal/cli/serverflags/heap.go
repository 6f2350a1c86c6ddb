package serverflags

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"

	"trestle/internal/server"
)

// What a server needs besides its jobs' data: itself, and for each core the messages and blocks on their way.
const (
	heapBase    = 64 << 20
	heapPerCore = 32 << 20
)

// LimitHeap makes the garbage collector run before the process takes more than its memory for data, in bytes (0: the
// server's default), and what it needs besides. By its own rule it would run when the heap has doubled, and a budget of 512 MiB would take 1.1 GB. As data is
// kept in large blocks without pointers, a collection costs next to nothing. GOMEMLIMIT, if it is set, holds instead.
func LimitHeap(memory int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit(memory, runtime.GOMAXPROCS(0)))
	}
}

func heapLimit(memory int64, cores int) int64 {
	besides := heapBase + int64(cores)*heapPerCore
	if memory == 0 {
		memory = server.DefaultMemory
	}
	return memory + min(besides, math.MaxInt64-memory)
}
