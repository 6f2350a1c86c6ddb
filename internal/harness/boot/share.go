package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"

	"trestle/internal/artifact"
)

const (
	// lockPoll is how often a worker looks whether another is done with fetching and installing.
	lockPoll = 50 * time.Millisecond
	// heartbeat is how often boot says that it still waits for another worker or an installer: the server takes a
	// process that writes nothing for long for stuck.
	heartbeat = 20 * time.Second
)

// file is an artifact of the worker's environment, as one worker notes it for the others.
type file struct {
	// Name is the staged name, Path where the file is. Both are empty for a package.
	Name, Path string `json:",omitempty"`
	// Package names a package to install: pypi's "name==version", maven's "group:artifact:version".
	Package string `json:",omitempty"`
	// Role is the role's URN.
	Role string
}

// share fetches the artifacts and installs them, unless another worker has done it. A failure leaves no mark, so that
// the next worker tries again.
func (j *job) share(ctx context.Context, sdk SDK) (err error) {
	lock := flock.New(filepath.Join(j.Dir, "lock"))
	defer func() { err = errors.Join(err, lock.Close()) }() // which unlocks
	if err := j.lock(ctx, lock); err != nil {
		return fmt.Errorf("lock the workers' folder %s: %w", j.Dir, err)
	}
	mark := filepath.Join(j.Dir, "ready.json")
	text, err := os.ReadFile(mark)
	if err == nil {
		if err := json.Unmarshal(text, &j.files); err != nil {
			return fmt.Errorf("read %s: %w", mark, err)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := j.fetch(ctx); err != nil {
		return err
	}
	if err := sdk.install(ctx, j); err != nil {
		return err
	}
	if text, err = json.Marshal(j.files); err != nil {
		return fmt.Errorf("note that the artifacts are there: %w", err)
	}
	if err := renameio.WriteFile(mark, text, 0o600); err != nil {
		return fmt.Errorf("note that the artifacts are there: %w", err)
	}
	return nil
}

func (j *job) lock(ctx context.Context, lock *flock.Flock) error {
	locked, err := lock.TryLock()
	if locked || err != nil {
		return err
	}
	const what = "wait for another worker of the job, which fetches and installs what both need"
	j.Log.Info(what)
	defer j.beat(what)()
	_, err = lock.TryLockContext(ctx, lockPoll)
	return err
}

func (j *job) fetch(ctx context.Context) error {
	deps := j.info.GetDependencies()
	if len(deps) == 0 {
		return nil
	}
	j.Log.Info("fetch artifacts", "count", len(deps), "from", j.Artifact)
	conn, err := dial(j.Artifact)
	if err != nil {
		return fmt.Errorf("fetch artifacts from %s: %w", j.Artifact, err)
	}
	defer conn.Close()
	fetched, err := artifact.Fetch(ctx, jobpb.NewArtifactRetrievalServiceClient(conn), deps, j.staged(), j.Log)
	if err != nil {
		return fmt.Errorf("fetch artifacts from %s: %w", j.Artifact, err)
	}
	for _, f := range fetched {
		j.files = append(j.files, file{Name: f.Name, Path: f.Path, Package: f.Package, Role: f.Info.GetRoleUrn()})
	}
	return nil
}

// beat logs now and then that something still goes on, until stop.
func (j *job) beat(what string) (stop func()) {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				j.Log.Info(what, "since", time.Since(began).Round(time.Second))
			}
		}
	}()
	return func() {
		cancel()
		<-gone
	}
}
