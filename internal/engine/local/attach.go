package local

import (
	"context"
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
	"trestle/internal/plan"
)

const (
	// keptVersion is the format of what is kept of a job (docs/formats/snapshot.md).
	keptVersion = 1

	keptName = "job.json"
)

// kept is what a server needs to know of a job of an earlier one.
type kept struct {
	Version     int             `json:"version"`
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
	k := kept{
		Version: keptVersion, ID: j.ID, Name: j.Name, Planned: j.Planned, Parallelism: j.Parallelism, Attempts: j.Attempts,
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
	if err := os.WriteFile(filepath.Join(folder, keptName), b, 0o600); err != nil {
		return "", errors.Join(fmt.Errorf("keep the job: %w", err), os.RemoveAll(folder))
	}
	return folder, nil
}

// Attach goes on with a streaming job of an earlier server, from its last snapshot. The handle is its id.
func (e *Engine) Attach(_ context.Context, handle string, events engine.Events) (engine.Run, error) {
	// The handle comes from a file, and is to lead nowhere else.
	folder := filepath.Join(e.cfg.Snapshots, filepath.Base(handle))
	r, err := e.goOn(handle, folder, events)
	if err != nil && !errors.Is(err, engine.ErrLost) {
		return nil, errors.Join(err, refuse(folder, err))
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (e *Engine) goOn(handle, folder string, events engine.Events) (*run, error) {
	b, err := os.ReadFile(filepath.Join(folder, keptName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, engine.ErrLost
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(folder, keptName), err)
	}
	if err := os.Remove(filepath.Join(folder, refusedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // of a server that was killed before it could say so
	}
	if k.Version != keptVersion || k.ID != handle {
		return nil, fmt.Errorf("%s is of job %q, in format %d; this version of Trestle reads %d", filepath.Join(folder, keptName), k.ID, k.Version, keptVersion)
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
	if err := os.MkdirAll(e.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	// Not the earlier server's folder, which is swept.
	dir, err := os.MkdirTemp(e.cfg.Dir, j.ID+"-")
	if err != nil {
		return nil, err
	}
	return e.start(j, k.Parallelism != 0, dir, folder), nil
}
