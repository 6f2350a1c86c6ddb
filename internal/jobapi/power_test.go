package jobapi_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"

	"trestle/internal/job"
	"trestle/internal/jobapi"
	"trestle/internal/store/journal"
)

// TestPowerLostBeforeRun: what is left of a job that was prepared and not run, when not all of it came to the disk, is
// removed.
func TestPowerLostBeforeRun(t *testing.T) {
	s := serve(t, t.TempDir())
	id := s.prepare(t, "x").GetStagingSessionToken()
	for name, lose := range map[string]func(folder string) error{
		"all but the names": func(folder string) error {
			return errors.Join(os.Truncate(filepath.Join(folder, "journal"), 0), os.Truncate(filepath.Join(folder, "pipeline.pb"), 0))
		},
		"the journal's contents": func(folder string) error {
			log := filepath.Join(folder, "journal")
			info, err := os.Stat(log)
			return errors.Join(err, os.Truncate(log, 0), os.Truncate(log, info.Size()))
		},
		"the pipeline's contents": func(folder string) error { return os.Truncate(filepath.Join(folder, "pipeline.pb"), 0) },
		"the pipeline":            func(folder string) error { return os.Remove(filepath.Join(folder, "pipeline.pb")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := s.killed(t)
			folder := filepath.Join(dir, "jobs", id)
			if err := lose(folder); err != nil {
				t.Fatal(err)
			}
			again := serve(t, dir)
			jobs, err := again.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
			if err != nil || len(jobs.GetJobInfo()) > 0 {
				t.Errorf("listed: %v, %v", jobs, err)
			}
			if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the folder is still there: %v", err)
			}
		})
	}
}

// TestWhatIsTold: what a client was told, and what the server needs to find the run again, is on the disk by then; and
// nothing else waits for the disk.
func TestWhatIsTold(t *testing.T) {
	files := new(disks)
	r := newRunner()
	s := serveWith(t, jobapi.WithWrap(config(discard{t}, t.TempDir(), r), files.wrap))
	s.runner = r
	run := s.run(t, "x")
	disk := files.of(run.ID)
	has := func(when, want string) {
		t.Helper()
		if got := disk.survives(t); !contains(strings.Join(got, " "), want) {
			t.Errorf("%s, the disk has %q; want %s", when, got, want)
		}
	}
	has("Run has answered", "STARTING")
	<-run.followed
	has("the engine's run is followed", "handle of x-")
	before := disk.count.Load()
	run.State(jobpb.JobState_RUNNING)
	run.Message(basic, "all read")
	if after := disk.count.Load(); after != before {
		t.Errorf("%d syncs for RUNNING and a message; want none", after-before)
	}
	if st := s.cancelJob(t, run.ID); st != jobpb.JobState_CANCELLING {
		t.Errorf("cancelled: %v", st)
	}
	has("Cancel has answered", "CANCELLING")
	run.end(jobpb.JobState_CANCELLED)
	s.states(t, run.ID)
	has("the end has been read", "CANCELLED")
	if before, after := before+2, disk.count.Load(); after != before {
		t.Errorf("%d syncs since; want %d", after, before)
	}
}

// TestDiskRefusesJob: when the disk comes to refuse what Prepare and Run wrote while the engine starts the job, Run fails,
// and the engine's run is ended.
func TestDiskRefusesJob(t *testing.T) {
	files := &disks{slow: make(chan struct{})}
	r := newRunner()
	s := serveWith(t, jobapi.WithWrap(config(discard{t}, t.TempDir(), r), files.wrap))
	p := s.prepare(t, "x")
	r.start = func(context.Context, jobapi.Submission) error {
		files.of(p.GetStagingSessionToken()).fail.Store(true)
		close(files.slow)
		return nil
	}
	_, err := s.Run(t.Context(), &jobpb.RunJobRequest{PreparationId: p.GetPreparationId()})
	refused(t, err, codes.Internal, "input/output error")
	run := <-r.starts
	<-run.cancelled
	run.end(jobpb.JobState_CANCELLED)
	if st := s.states(t, run.ID); st[len(st)-1] != "CANCELLED" {
		t.Errorf("states: %q", st)
	}
}

// disks are the files of journals, by job.
type disks struct {
	files sync.Map
	slow  chan struct{} // syncs wait for it, when it is set
}

func (d *disks) wrap(f *os.File) journal.File {
	file := &disk{File: f, slow: d.slow}
	d.files.Store(filepath.Base(filepath.Dir(f.Name())), file)
	return file
}

func (d *disks) of(id string) *disk {
	file, _ := d.files.Load(id)
	return file.(*disk)
}

// disk is a file that knows how much of it a power cut would leave, and fails its syncs when it is told to.
type disk struct {
	*os.File
	slow          chan struct{} // see disks
	count         atomic.Int32  // of syncs
	fail          atomic.Bool
	mu            sync.Mutex
	size, durable int64
}

func (d *disk) WriteAt(b []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.File.WriteAt(b, off)
	d.size = max(d.size, off+int64(n))
	return n, err
}

func (d *disk) Sync() error {
	if d.slow != nil {
		<-d.slow
	}
	if d.fail.Load() {
		return errors.New("input/output error")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Add(1)
	d.durable = d.size
	return nil
}

// survives are the states and handles that a power cut would leave.
func (d *disk) survives(t *testing.T) []string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := t.TempDir()
	path := filepath.Join(dir, "jobs", "x", "journal")
	b, err := os.ReadFile(d.Name())
	if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b[:d.durable], 0o644)); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records(t, dir, "x") {
		if st := job.StateEvent(r); st != nil {
			got = append(got, st.GetState().String())
		} else if r, ok := r.(*job.Accepted); ok {
			got = append(got, r.Handle)
		}
	}
	return got
}
