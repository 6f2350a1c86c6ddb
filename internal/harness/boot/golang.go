package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Go runs workers of the Go SDK: the pipeline's own binary, in worker mode.
type Go struct{}

const roleGoWorker = "beam:artifact:role:go_worker_binary:v1"

func (Go) install(context.Context, *job) error { return nil }

func (Go) command(_ context.Context, j *job) (*command, error) {
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
		env: env,
	}, nil
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
