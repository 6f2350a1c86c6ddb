// Package chaos runs many jobs in one server while their harnesses are killed and disk writes fail, and sees that each ends
// right or says why not, and that nothing is left of any of them.
package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"trestle/internal/server"
	"trestle/internal/shuffle"
	"trestle/test/gopipeline"
	"trestle/test/shapes"
)

var (
	chaosJobs = flag.Int("chaos.jobs", 20, "how many jobs run while harnesses are killed and writes fail")
	chaosSeed = flag.Uint64("chaos.seed", 0, "what chooses pipelines, kills and failing writes; 0: the time")
)

func TestMain(m *testing.M) { gopipeline.Main(m) }

const (
	// together is how many jobs run at a time.
	together = 4
	// jobTimeout is how long a job may take, with all that happens to it on a machine that does other things too.
	jobTimeout = 4 * time.Minute
	// killEvery is the mean time between two kills: about a third of the jobs are hit.
	killEvery = 2 * time.Second
	// failOneIn is how many writes to the disk there are to one that fails.
	failOneIn = 20
)

// TestChaos runs jobs whose harnesses are processes. (A worker pool of the Go SDK's would not do: when one job fails while
// another bundle is answered, the SDK panics with "send on closed channel" and takes the other jobs' workers with it.)
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-chaos.seed=%d -chaos.jobs=%d", seed, *chaosJobs)
	dir := t.TempDir()
	processes, err := gopipeline.Process(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	disk := &failingDisk{FileSystem: shuffle.Disk(), random: rand.New(rand.NewPCG(seed, 1))}
	s, err := gopipeline.Start(t.Context(), server.Config{
		Data:   filepath.Join(dir, "data"),
		Memory: 1, // whatever can be on the disk is there
		Trial:  server.Trial{Files: disk},
		Log:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	var killed atomic.Int32
	stop := killer(t, rand.New(rand.NewPCG(seed, 2)), &killed)

	var jobs sync.WaitGroup
	var right, failed atomic.Int32
	slots := make(chan struct{}, together)
	pipelines := rapid.Custom(shapes.Draw)
	for i := range *chaosJobs {
		p := pipelines.Example(int(seed%(1<<32)) + i)
		if i%3 == 0 { // in every one, hardly a job would end right
			p = spilling(p, i)
		}
		slots <- struct{}{}
		jobs.Go(func() {
			defer func() { <-slots }()
			result := filepath.Join(dir, fmt.Sprintf("result-%d", i))
			ok, err := runJob(t, s, i, p, result, processes)
			switch {
			case err != nil:
				t.Errorf("job %d: %v\nthe pipeline:\n%s", i, err, p)
			case ok:
				right.Add(1)
			default:
				failed.Add(1)
			}
		})
	}
	jobs.Wait()
	stop()
	t.Logf("%d jobs ended right, %d with an error; %d harnesses were killed, %d writes of %d failed",
		right.Load(), failed.Load(), killed.Load(), disk.failed, disk.writes)
	if err := s.Left(); err != nil {
		t.Error(err)
	}
	if left, err := descendants(os.Getpid()); err != nil || len(left) > 0 {
		t.Errorf("processes that are left: %v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := openFiles(t); len(after) > len(before) {
		t.Errorf("open files before: %q, after: %q", before, after)
	}
}

// spilling adds a group to a pipeline, of more bytes than a grouper keeps in memory whatever its budget.
func spilling(p shapes.Pipeline, seed int) shapes.Pipeline {
	return append(p,
		shapes.Op{Kind: "source", A: 3000, B: seed},
		shapes.Op{Kind: "reshuffle", In: []int{len(p)}},
		shapes.Op{Kind: "fat", In: []int{len(p) + 1}, A: 99, B: 99})
}

// runJob tells whether a job ended right; an error is that it ended wrong, or without a reason.
func runJob(t *testing.T, s *gopipeline.Server, i int, p shapes.Pipeline, dir string,
	env gopipeline.Environment) (right bool, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), jobTimeout, errors.New("the job hangs"))
	defer cancel()
	job, err := s.Run(ctx, fmt.Sprintf("chaos-%d", i), p.Build(dir, shapes.None), env)
	if err != nil {
		return false, err
	}
	switch job.State {
	case jobpb.JobState_DONE:
		out, err := shapes.Read(dir)
		if err != nil {
			return false, err
		}
		if diff := cmp.Diff(p.Output(), out); diff != "" {
			return false, fmt.Errorf("output (-want +got):\n%s", diff)
		}
		return true, nil
	case jobpb.JobState_FAILED:
		t.Logf("job %d failed: %q", i, job.Errors)
		return false, isClear(job.Errors)
	default:
		return false, fmt.Errorf("it ended as %v", job.State)
	}
}

// isClear tells whether a failed job says why: one error, short, of what was done to it.
func isClear(messages []string) error {
	if len(messages) != 1 {
		return fmt.Errorf("the job failed with %d errors: %q", len(messages), messages)
	}
	text := messages[0]
	full := strings.Contains(text, "spill") && strings.Contains(text, syscall.ENOSPC.Error()) && strings.Contains(text, "free space")
	dead := strings.Contains(text, "killed") || strings.Contains(text, "137")
	if !full && !dead || strings.Count(text, "\n") > 30 {
		return fmt.Errorf("no clear error: %s", text)
	}
	return nil
}

// failingDisk is a disk of which one in so many writes fails, as if it were full.
type failingDisk struct {
	shuffle.FileSystem
	mu             sync.Mutex
	random         *rand.Rand
	writes, failed int
}

func (d *failingDisk) Create(dir string) (shuffle.File, error) {
	f, err := d.FileSystem.Create(dir)
	if err != nil {
		return nil, err
	}
	return &failingFile{f, d}, nil
}

func (d *failingDisk) fails() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	if d.random.IntN(failOneIn) > 0 {
		return false
	}
	d.failed++
	return true
}

type failingFile struct {
	shuffle.File
	disk *failingDisk
}

func (f *failingFile) WriteAt(b []byte, off int64) (int, error) {
	if f.disk.fails() {
		n, err := f.File.WriteAt(b[:len(b)/2], off)
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return f.File.WriteAt(b, off)
}
