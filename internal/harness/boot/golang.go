package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"trestle/internal/store/blob"
)

// Go runs workers of the Go SDK: the pipeline's own binary, in worker mode.
type Go struct {
	// profile is the file in which the worker keeps its last heap profile; empty stands for the SDK's, heapProfile.
	profile string
}

// heapProfile is where the Go SDK's workers write a profile of their heap every few seconds, if there is a temp_location
// (util/diagnostics in Beam's Go SDK). All of a host write the same file.
const heapProfile = "/tmp/hProf"

// fileClock is by how much the times of files may lag behind the clock: the kernel notes its last tick.
const fileClock = 50 * time.Millisecond

const roleGoWorker = "beam:artifact:role:go_worker_binary:v1"

func (Go) install(context.Context, *job) error { return nil }

func (g Go) command(_ context.Context, j *job) (*command, error) {
	binary, err := workerBinary(j.files)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(binary.Path)
	if err != nil {
		return nil, fmt.Errorf("the worker binary: %w", err)
	}
	if err := os.Chmod(binary.Path, info.Mode()|0o100); err != nil {
		return nil, fmt.Errorf("make the worker binary executable: %w", err)
	}
	env := j.environment()
	if status := j.info.GetStatusEndpoint().GetUrl(); status != "" {
		env = append(env, "STATUS_ENDPOINT="+status)
	}
	return &command{
		path: binary.Path,
		args: []string{
			"--worker=true",
			"--id=" + j.ID,
			"--logging_endpoint=" + j.Logging,
			"--control_endpoint=" + j.Control,
			"--semi_persist_dir=" + j.Dir,
		},
		env:  env,
		died: func(ctx context.Context, began time.Time) error { return g.keepProfile(ctx, j, began) },
	}, nil
}

// keepProfile puts the heap profile of a worker that has died below the pipeline's temp_location, as Beam's boot program of the Go
// SDK does: of one that ran out of memory it tells what took it.
func (g Go) keepProfile(ctx context.Context, j *job, began time.Time) (err error) {
	location := option(j.info.GetPipelineOptions(), "temp_location", "tempLocation").GetStringValue()
	if location == "" {
		return nil
	}
	path := cmp.Or(g.profile, heapProfile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().Before(began.Add(-fileClock)) {
		return nil // it has written none
	}
	if err != nil {
		return fmt.Errorf("heap profile: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("heap profile: %w", err)
	}
	defer file.Close() // it was only read
	bucket, err := blob.Open(ctx, location, blob.Options{})
	if err != nil {
		return fmt.Errorf("heap profile: temp_location: %w", err)
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	key := fmt.Sprintf("heapProfiles/profile-%s-%d", strings.Map(fileNameRune, j.ID), time.Now().Unix())
	if err := bucket.Write(ctx, key, file); err != nil {
		return fmt.Errorf("heap profile: %w", err)
	}
	j.Log.Info("kept the heap profile of the worker that died", "location", location, "name", key)
	return nil
}

// workerBinary finds the binary: by its role, or by the name that old SDKs gave it, or because there is nothing else.
func workerBinary(files []file) (file, error) {
	for _, f := range files {
		if f.Role == roleGoWorker && f.Path != "" {
			return f, nil
		}
	}
	var names []string
	for _, f := range files {
		if f.Name == "worker" {
			return f, nil
		}
		names = append(names, f.Name)
	}
	switch {
	case len(files) == 1 && files[0].Path != "":
		return files[0], nil
	case len(files) == 0:
		return file{}, errors.New("the pipeline staged no artifact, so there is no Go worker binary to run: submit it with a runner that stages one (universal), or name one with --worker_binary")
	default:
		return file{}, fmt.Errorf("none of the staged artifacts is a Go worker binary: %s", strings.Join(names, ", "))
	}
}
