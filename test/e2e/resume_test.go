package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	jobscli "trestle/internal/cli/jobs"
	"trestle/internal/engine/local"
	"trestle/internal/kit/sealed"
	"trestle/internal/server"
	"trestle/test/gopipeline"
)

func init() { register.DoFn2x0[int, int](&tally{}) }

// tally has, of each number that came out of inOrder, with which count it did last. Unlike judge it forgets nothing, so that a number
// that never comes is seen.
type tally struct{ Watch int }

var tallies struct {
	sync.Mutex
	of map[int]map[int]int // by the watch's number
}

func (f *tally) ProcessElement(n, off int) {
	tallies.Lock()
	if tallies.of == nil {
		tallies.of = map[int]map[int]int{}
	}
	if tallies.of[f.Watch] == nil {
		tallies.of[f.Watch] = map[int]int{}
	}
	tallies.of[f.Watch][n] = off
	tallies.Unlock()
	watchOf(f.Watch).state.Store(int64(n))
}

// tallied is a pipeline of endless's numbers, which are counted in state and all noted down.
func (w *watch) tallied() *beam.Pipeline {
	p, scope := beam.NewPipelineWithRoot()
	numbers := beam.ParDo(scope, stumble, beam.ParDo(scope, &endless{w.number}, beam.Create(scope, 1)))
	beam.ParDo0(scope, &tally{w.number}, beam.Reshuffle(scope, beam.ParDo(scope, &inOrder{}, beam.ParDo(scope, toOneKey, numbers))))
	return p
}

// exact checks that each number up to the last has come, and met a count of exactly those before it.
func (w *watch) exact(t *testing.T) {
	t.Helper()
	tallies.Lock()
	defer tallies.Unlock()
	seen := tallies.of[w.number]
	for n := range len(seen) {
		if off, ok := seen[n]; !ok || off != 0 {
			t.Errorf("of %d numbers, %d has come: %t; it met a count that is off by %d", len(seen), n, ok, off)
			return
		}
	}
}

// failed is a job that has failed, with snapshots, and a server that knows it.
type failed struct {
	t      *testing.T
	cfg    server.Config
	seen   *watch
	server *gopipeline.Server
	id     string
	folder string // of its snapshots
}

// interrupted runs a job until it has two snapshots, and stops its server.
func interrupted(t *testing.T) *failed {
	t.Helper()
	tornOff(t)
	stumbled.left.Store(0)
	f := &failed{t: t, seen: newWatch(t), cfg: server.Config{
		Data: t.TempDir(), Parallelism: 1, SnapshotEvery: 50 * time.Millisecond,
		Trial: server.Trial{Attempts: 1, Restarts: local.Restarts{Pause: time.Millisecond}},
	}}
	f.start()
	f.id = submitPipeline(t, f.client(), portable(t, f.seen.tallied()))
	f.folder = filepath.Join(f.cfg.Data, "snapshots", f.id)
	await(t, func() bool { return f.seen.state.Load() > 300 && len(f.manifests()) >= 2 })
	stop(t, f.server)
	return f
}

func (f *failed) start() {
	f.t.Helper()
	var err error
	if f.server, err = gopipeline.Start(f.t.Context(), config(f.t, f.cfg)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *failed) client() jobpb.JobServiceClient { return jobs(f.t, f.server.Server) }

// manifests are those of the job's snapshots.
func (f *failed) manifests() []string {
	f.t.Helper()
	all, err := filepath.Glob(filepath.Join(f.folder, "[0-9]*", "manifest.json"))
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

// fails waits until the job has failed, and checks what the last of its errors says.
func (f *failed) fails(says ...string) {
	f.t.Helper()
	if state := lastState(f.t, f.client(), f.id); state != jobpb.JobState_FAILED {
		f.t.Fatalf("the job is %v", state)
	}
	errs, _ := messages(f.t, f.server.Server)
	for _, say := range says {
		if len(errs) == 0 || !strings.Contains(errs[len(errs)-1], say) {
			f.t.Errorf("the job's errors say nothing of %q: %q", say, errs)
		}
	}
}

// resume asks for it as a person does, and returns what is said.
func (f *failed) resume() (string, error) {
	f.t.Helper()
	var out bytes.Buffer
	cmd := jobscli.NewCommand()
	cmd.SetArgs([]string{"--server", f.server.Endpoint(), "--resume", f.id})
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(f.t.Context())
	return out.String(), err
}

// goesOn resumes the job, which goes on where it was and is then drained: every count is exact.
func (f *failed) goesOn() {
	f.t.Helper()
	before := f.seen.state.Load()
	if said, err := f.resume(); err != nil || !strings.Contains(said, f.id+" goes on") {
		f.t.Fatalf("resumed: %q, %v", said, err)
	}
	await(f.t, func() bool { return f.seen.state.Load() > before+200 })
	if _, err := f.client().Drain(f.t.Context(), &jobpb.DrainJobRequest{JobId: f.id}); err != nil {
		f.t.Fatal(err)
	}
	if state := lastState(f.t, f.client(), f.id); state != jobpb.JobState_DRAINED {
		f.t.Errorf("the job is %v", state)
	}
	f.seen.exact(f.t)
	await(f.t, func() bool {
		_, err := os.Stat(f.folder)
		return errors.Is(err, fs.ErrNotExist)
	})
	if _, err := f.resume(); err == nil || !strings.Contains(err.Error(), "it is DRAINED") {
		f.t.Errorf("a job that was drained is resumed: %v", err)
	}
}

// flip flips a bit in the middle of a file. It may be linked to from another snapshot, and is then another's no more.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		b = slices.Clone(b)
		b[len(b)/2] ^= 4
		err = os.Remove(path)
	}
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestResume: a job that cannot go on from what was kept of it fails, and says by name what is wrong; when that is mended, it can be
// resumed, and every count is exact. Asked before, it fails again, or is refused, and loses nothing.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name string
		harm func(t *testing.T, f *failed)
		says []string // its errors
		// refused is what keeps it from being resumed before it is mended; "" when it is tried, and fails.
		refused string
	}{
		{"damaged snapshots", func(t *testing.T, f *failed) {
			for _, path := range f.manifests() {
				flip(t, path)
			}
		}, []string{"manifest.json: it does not read back as it was written: it is damaged"}, ""},
		{"snapshots of an older format", func(t *testing.T, f *failed) {
			for _, path := range f.manifests() {
				if err := os.WriteFile(path, []byte("01234567\n{\"version\":1,"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"it has format 1, this version of Trestle reads"}, ""},
		{"all snapshots removed", func(t *testing.T, f *failed) {
			for _, path := range f.manifests() {
				if err := os.RemoveAll(filepath.Dir(path)); err != nil {
					t.Fatal(err)
				}
			}
		}, []string{"it was taken, and is not there"}, ""},
		{"a damaged number of the last snapshot", func(t *testing.T, f *failed) {
			flip(t, filepath.Join(f.folder, "last"))
		}, []string{"/last, which says which snapshot is the last, is damaged"}, ""},
		{"a bit of job.json", func(t *testing.T, f *failed) {
			flip(t, filepath.Join(f.folder, "job.json"))
		}, []string{"/job.json is damaged: it does not read back as it was written"}, "/job.json is damaged"},
		{"half of job.json", func(t *testing.T, f *failed) {
			if err := os.Truncate(filepath.Join(f.folder, "job.json"), 300); err != nil {
				t.Fatal(err)
			}
		}, []string{"/job.json is damaged: it does not read back as it was written"}, "/job.json is damaged"},
		{"no job.json", func(t *testing.T, f *failed) {
			if err := os.Remove(filepath.Join(f.folder, "job.json")); err != nil {
				t.Fatal(err)
			}
		}, []string{"/job.json is not there"}, "/job.json is not there"},
		{"another job's folder", func(t *testing.T, f *failed) {
			path := filepath.Join(f.folder, "job.json")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, body, err := sealed.Decode("trestle job ", b)
			if err != nil {
				t.Fatal(err)
			}
			body = bytes.ReplaceAll(body, []byte(f.id), []byte("somebody"))
			if err := os.WriteFile(path, sealed.Encode("trestle job ", 2, body), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{`/job.json is of another job, "somebody"`}, `is of another job, "somebody"`},
		{"no folder", func(t *testing.T, f *failed) {
			if err := os.RemoveAll(f.folder); err != nil {
				t.Fatal(err)
			}
		}, []string{"which is not there", "what it had done is lost"}, "which is not there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := interrupted(t)
			backup := filepath.Join(t.TempDir(), "backup")
			if err := os.CopyFS(backup, os.DirFS(f.folder)); err != nil {
				t.Fatal(err)
			}
			c.harm(t, f)
			f.start()
			f.fails(c.says...)
			kept := leaves(t, f.folder)
			said, err := f.resume()
			if c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) || c.refused == "" && err != nil {
				t.Errorf("resumed before it is mended: %q, %v", said, err)
			}
			f.fails(c.says...)
			stop(t, f.server)
			f.start() // another server finds it as it is, and sweeps nothing
			f.fails(c.says...)
			if now := leaves(t, f.folder); !slices.Equal(kept, now) {
				t.Errorf("of %q there are left %q", kept, now)
			}
			if err := os.RemoveAll(f.folder); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(f.folder, os.DirFS(backup)); err != nil {
				t.Fatal(err)
			}
			f.goesOn()
			stop(t, f.server)
		})
	}
}

// TestResumeAfterUserCode: a job whose user code has failed too often goes on when it is resumed, also by a server that is killed
// before it could; nobody who waits for the job's end is told of the one before.
func TestResumeAfterUserCode(t *testing.T) {
	f := interrupted(t)
	f.cfg.Trial.Restarts.Limit = 2
	stumbled.left.Store(1000)
	f.start()
	f.fails("stumbled")
	said := false
	for _, r := range history(t, f.server.Server) {
		m := r.GetMessageResponse()
		said = said || m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_WARNING && strings.Contains(m.GetMessageText(), "trestle jobs "+f.id+" --resume")
	}
	if !said {
		t.Error("it does not say how to resume it")
	}
	if _, err := f.resume(); err != nil {
		t.Error(err)
	}
	f.fails("stumbled")
	if _, err := f.resume(); err != nil {
		t.Error(err)
	}
	stop(t, f.server) // it is left to the next server, or has failed before
	f.start()
	f.fails("stumbled")
	stumbled.left.Store(0)
	f.goesOn()
	if _, states := messages(t, f.server.Server); states[len(states)-1] != jobpb.JobState_DRAINED {
		t.Errorf("the states are %v", states)
	}
	stop(t, f.server)
}

// leaves are all files below a folder, by name and size.
func leaves(t *testing.T, folder string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == folder || err != nil || d.IsDir() {
			return nil //nolint:nilerr // of a folder that is not there there is nothing
		}
		all = append(all, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
