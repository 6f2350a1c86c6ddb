package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"trestle/internal/engine"
	"trestle/internal/kit/sealed"
	"trestle/internal/plan"
)

const (
	// keptVersion is the format of what is kept of a job (docs/formats/snapshot.md).
	keptVersion = 2

	keptName  = "job.json"
	keptMagic = "trestle job "
)

// keptJob is what a server needs to know of a job of an earlier one.
type keptJob struct {
	Version     int             `json:"version,omitempty"` // of the first format, which has no sum
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Pipeline    []byte          `json:"pipeline"`
	Planned     plan.Options    `json:"planned"`
	Options     json.RawMessage `json:"options,omitempty"`
	Parallelism int             `json:"parallelism"`
	Attempts    int             `json:"attempts,omitempty"`
}

// keep writes what the next server needs to go on with a streaming job, and returns the folder of its snapshots; "" for
// jobs that do not outlive the server.
func (e *Engine) keep(j engine.Job) (folder string, err error) {
	if e.cfg.Snapshots == "" || !j.Plan.Streaming || len(j.Plan.TestStreams) > 0 {
		return "", nil
	}
	k := keptJob{
		ID: j.ID, Name: j.Name, Planned: j.Planned, Parallelism: j.Parallelism, Attempts: j.Attempts,
	}
	if k.Pipeline, err = proto.Marshal(j.Pipeline); err != nil {
		return "", fmt.Errorf("keep the job: %w", err)
	}
	if j.Options != nil {
		if k.Options, err = protojson.Marshal(j.Options); err != nil {
			return "", fmt.Errorf("keep the job: %w", err)
		}
	}
	b, err := json.Marshal(k)
	if err != nil {
		return "", fmt.Errorf("keep the job: %w", err)
	}
	folder = filepath.Join(e.cfg.Snapshots, j.ID)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("keep the job: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, keptName), sealed.Encode(keptMagic, keptVersion, b), 0o600); err != nil {
		return "", errors.Join(fmt.Errorf("keep the job: %w", err), os.RemoveAll(folder))
	}
	return folder, nil
}

// Attach goes on with a streaming job of an earlier server, or with one that has failed, from its last snapshot. The handle is its
// id.
func (e *Engine) Attach(_ context.Context, handle string, events engine.Events) (engine.Run, error) {
	folder := e.snapshotsOf(handle)
	r, err := e.goOn(handle, folder, events)
	if err != nil && !errors.Is(err, engine.ErrLost) {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, keptHint(folder, handle)), noteFailure(folder, err))
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Resumable implements engine.Resumer: it tells whether there is what Attach needs. Whether the snapshots are whole is for the job
// to find out.
func (e *Engine) Resumable(handle string) error {
	folder := e.snapshotsOf(handle)
	_, err := e.read(handle, folder)
	return err
}

// snapshotsOf is where a job's snapshots are. The handle comes from a file, and is to lead nowhere else.
func (e *Engine) snapshotsOf(handle string) string {
	return filepath.Join(e.cfg.Snapshots, filepath.Base(handle))
}

// read reads what was kept of a job.
func (e *Engine) read(handle, folder string) (*keptJob, error) {
	path := filepath.Join(folder, keptName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Lstat(folder); errors.Is(gone, fs.ErrNotExist) {
			return nil, fmt.Errorf("its snapshots would be in %s, which is not there: %w", folder, engine.ErrLost)
		}
		return nil, fmt.Errorf("%s is not there, which says what the job is that the snapshots beside it are of", path)
	}
	if err != nil {
		return nil, err
	}
	k := &keptJob{}
	version, body, err := sealed.Decode(keptMagic, b)
	if first := bytes.HasPrefix(b, []byte(`{"version":1,`)); first {
		version, body, err = 1, b, nil
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	case version != keptVersion && version != 1:
		return nil, fmt.Errorf("%s has format %d, this version of Trestle reads %d and 1", path, version, keptVersion)
	}
	if err := json.Unmarshal(body, k); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if k.ID != handle {
		return nil, fmt.Errorf("%s is of another job, %q", path, k.ID)
	}
	return k, nil
}

func (e *Engine) goOn(handle, folder string, events engine.Events) (*run, error) {
	k, err := e.read(handle, folder)
	if err != nil {
		return nil, err
	}
	j := engine.Job{
		ID: k.ID, Name: k.Name, Pipeline: &pipepb.Pipeline{}, Planned: k.Planned, Parallelism: k.Parallelism, Attempts: k.Attempts,
		Dependencies: map[string][]*pipepb.ArtifactInformation{}, Events: events,
	}
	if err := proto.Unmarshal(k.Pipeline, j.Pipeline); err != nil {
		return nil, fmt.Errorf("%s: the job's pipeline: %w", folder, err)
	}
	if k.Options != nil {
		j.Options = &structpb.Struct{}
		if err := protojson.Unmarshal(k.Options, j.Options); err != nil {
			return nil, fmt.Errorf("%s: the job's options: %w", folder, err)
		}
	}
	for id, env := range j.Pipeline.GetComponents().GetEnvironments() {
		j.Dependencies[id] = env.GetDependencies()
	}
	if j.Plan, err = plan.Build(j.Pipeline, j.Planned); err != nil {
		return nil, err
	}
	if j.Parallelism, err = e.parallelism(k.Parallelism); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(folder, refusedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // it says what is true no more
	}
	// Not the folder of an earlier run, which may still be swept. It is made when the job begins, as often as that takes.
	dir := filepath.Join(e.cfg.Dir, fmt.Sprintf("%s-%s", j.ID, rand.Text()))
	return e.start(j, k.Parallelism != 0, dir, folder), nil
}
