package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"

	"trestle/internal/engine/local"
	"trestle/internal/server"
	"trestle/test/gopipeline"
)

// TestSnapshotsOfEndedJobs: the snapshots of a job go when it ends, unless it fails; where the server is killed before they
// are gone, the next one removes them, and none of a job that may go on.
func TestSnapshotsOfEndedJobs(t *testing.T) {
	tornOff(t)
	for _, c := range []struct {
		name string
		end  func(t *testing.T, client jobpb.JobServiceClient, id string)
		want jobpb.JobState_Enum
		stay bool // until the job is forgotten
	}{
		{"cancelled", func(t *testing.T, client jobpb.JobServiceClient, id string) {
			if _, err := client.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id}); err != nil {
				t.Fatal(err)
			}
		}, jobpb.JobState_CANCELLED, false},
		{"drained", func(t *testing.T, client jobpb.JobServiceClient, id string) {
			if _, err := client.Drain(t.Context(), &jobpb.DrainJobRequest{JobId: id}); err != nil {
				t.Fatal(err)
			}
		}, jobpb.JobState_DRAINED, false},
		{"failed", func(t *testing.T, _ jobpb.JobServiceClient, _ string) {
			stumbled.left.Store(100)
		}, jobpb.JobState_FAILED, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			stumbled.left.Store(0)
			seen := newWatch(t)
			cfg := server.Config{
				Data: t.TempDir(), Parallelism: 1, SnapshotEvery: 50 * time.Millisecond,
				Trial: server.Trial{Attempts: 1, Restarts: local.Restarts{Limit: -1}},
			}
			begin := func() *gopipeline.Server {
				s, err := gopipeline.Start(t.Context(), config(t, cfg))
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			folders := filepath.Join(cfg.Data, "snapshots")
			there := func(name string) bool {
				_, err := os.Stat(filepath.Join(folders, name))
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				return err == nil
			}

			first := begin()
			id := submitPipeline(t, jobs(t, first.Server), portable(t, seen.counts(stumble)))
			await(t, func() bool {
				manifests, err := filepath.Glob(filepath.Join(folders, id, "[0-9]*", "manifest.json"))
				return err != nil || len(manifests) > 0
			})
			stop(t, first)
			kept := filepath.Join(t.TempDir(), id)
			if err := os.CopyFS(kept, os.DirFS(filepath.Join(folders, id))); err != nil {
				t.Fatal(err)
			}
			// Of one job nothing is there any more, and the log of another cannot be read: who knows whether it is over.
			for _, folder := range []string{"snapshots/nobody", "snapshots/unreadable", "jobs/unreadable/journal"} {
				if err := os.MkdirAll(filepath.Join(cfg.Data, folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}

			before := seen.state.Load()
			second := begin()
			if there("nobody") || !there("unreadable") {
				t.Errorf("the folder of no job is there: %v, that of a job whose log cannot be read: %v", there("nobody"), there("unreadable"))
			}
			await(t, func() bool { return seen.state.Load() > before+100 }) // the job that was running has its snapshots
			c.end(t, jobs(t, second.Server), id)
			if state := lastState(t, jobs(t, second.Server), id); state != c.want {
				t.Errorf("the job is %v", state)
			}
			await(t, func() bool { return there(id) == c.stay })
			stop(t, second)

			// As if it had been killed when the job had ended, and its snapshots were still there.
			if err := os.RemoveAll(filepath.Join(folders, id)); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(folders, id), os.DirFS(kept)); err != nil {
				t.Fatal(err)
			}
			third := begin()
			if there(id) != c.stay || !there("unreadable") {
				t.Errorf("the folder of the job that is over is there: %v, that of a job whose log cannot be read: %v", there(id), there("unreadable"))
			}
			if state := lastState(t, jobs(t, third.Server), id); state != c.want {
				t.Errorf("after another start, the job is %v", state)
			}
			stop(t, third)
			if err := os.RemoveAll(filepath.Join(cfg.Data, "jobs", id)); err != nil {
				t.Fatal(err)
			}
			fourth := begin()
			if there(id) {
				t.Error("of a job that is forgotten the folder is there")
			}
			stop(t, fourth)
		})
	}
}
