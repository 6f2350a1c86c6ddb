package chaos

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/server"
	"trestle/test/gopipeline"
	"trestle/test/shapes"
)

var leakJobs = flag.Int("leak.jobs", 200, "how many tiny jobs run, one after another, in the leak test")

// tiny is a pipeline that has a bit of everything.
var tiny = shapes.Pipeline{
	{Kind: "source", A: 3, B: 1},
	{Kind: "group", In: []int{0}},
	{Kind: "lookup", In: []int{0, 1}},
	{Kind: "range", In: []int{2}},
	{Kind: "sum", In: []int{3}},
}

// held is what the process holds.
type held struct {
	goroutines, files int
	heap              uint64
}

func hold(t *testing.T) held {
	t.Helper()
	debug.FreeOSMemory() // a whole collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return held{runtime.NumGoroutine(), len(openFiles(t)), m.HeapAlloc}
}

// more tells whether there are more goroutines and files than before. A few come and go with the connections under way.
func (h held) more(before held) bool {
	return h.goroutines > before.goroutines+10 || h.files > before.files+5
}

const (
	// warmUp is how many jobs run before it counts.
	warmUp = 20
	// historyBytes is what a job that has ended may keep in memory: its pipeline, messages and metrics, for those who ask.
	historyBytes = 100 << 10
)

// TestNothingIsLeft runs many jobs in one server: what it holds afterwards is what it held after a few.
func TestNothingIsLeft(t *testing.T) {
	pool := startPool(t)
	dir := t.TempDir()
	s, err := gopipeline.Start(t.Context(), server.Config{
		Data: filepath.Join(dir, "data"), Memory: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs := func(from, to int) {
		for i := from; i < to; i++ {
			result := filepath.Join(dir, fmt.Sprintf("result-%d", i))
			if err := os.Mkdir(result, 0o700); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), jobTimeout)
			job, err := s.Run(ctx, fmt.Sprintf("tiny-%d", i), tiny.Build(result, shapes.None), pool.Environment())
			cancel()
			if err != nil || job.State != jobpb.JobState_DONE {
				t.Fatalf("job %d: %+v, %v", i, job, err)
			}
		}
	}
	jobs(0, warmUp)
	before := hold(t)
	jobs(warmUp, warmUp+*leakJobs)
	after := hold(t)
	// What the last job had may be on its way out: the connections of its workers, which are another process's.
	for deadline := time.Now().Add(time.Minute); after.more(before) && time.Now().Before(deadline); after = hold(t) {
		<-time.After(100 * time.Millisecond)
	}
	if err := s.Left(); err != nil {
		t.Error(err)
	}
	growth := (int64(after.heap) - int64(before.heap)) / int64(*leakJobs)
	t.Logf("after %d jobs: %+v; after %d more: %+v; %d bytes a job", warmUp, before, *leakJobs, after, growth)
	if after.more(before) {
		t.Errorf("%d goroutines and %d open files, and %d jobs later %d and %d", before.goroutines, before.files, *leakJobs, after.goroutines, after.files)
	}
	if growth > historyBytes {
		t.Errorf("a job leaves %d bytes of memory", growth)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
