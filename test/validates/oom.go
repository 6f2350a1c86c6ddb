package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"trestle/test/process"
)

// oomTest has a DoFn that takes more memory every five seconds until its worker dies of it, and then wants one heap profile more
// below its temp_location than before. Its client can look into Google Cloud Storage only.
const oomTest = "primitives.TestOomParDo"

// oomMemory is what the worker may have, in KiB. Its first 256 MiB go well, so that a profile of a second later shows them; to log
// them, as the DoFn does, takes more than is left.
const oomMemory = 768 << 10

// gcsBucket is a server of Google Cloud Storage's API with one bucket.
type gcsBucket struct {
	address, folder string
	stop            func() error
}

const gcsBucketName = "bucket"

// startGCS starts the server on a free port, with its objects and its log below dir, and waits until it answers.
func startGCS(ctx context.Context, program, dir string) (*gcsBucket, error) {
	g := &gcsBucket{folder: filepath.Join(dir, "gcs")}
	if err := os.MkdirAll(filepath.Join(g.folder, gcsBucketName), 0o755); err != nil {
		return nil, err
	}
	// The program takes a port and does not tell one: this one was free just now.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g.address = free.Addr().String()
	if err := free.Close(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(g.address)
	if err != nil {
		return nil, err
	}
	run := process.Run{Log: filepath.Join(dir, "gcs.log"), Argv: []string{program, "-scheme", "http", "-host", "127.0.0.1", "-port", port,
		"-public-host", g.address, "-external-url", "http://" + g.address, "-filesystem-root", g.folder}}
	serving, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run.Do(serving) }()
	g.stop = func() error {
		end()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", program, err)
		}
		return nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(process.Patience); ; {
		if g.answers(ctx) {
			return g, nil
		}
		select {
		case <-tick.C:
		case err := <-ended:
			end()
			return nil, fmt.Errorf("%s ended before it listened at %s: %w", program, g.address, err)
		case <-late:
			return nil, errors.Join(fmt.Errorf("%s does not answer at %s", program, g.address), g.stop())
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), g.stop())
		}
	}
}

func (g *gcsBucket) answers(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.address+"/storage/v1/b/"+gcsBucketName, nil)
	if err != nil {
		return false
	}
	client := http.Client{Timeout: time.Second}
	response, err := client.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	client.CloseIdleConnections()
	return response.StatusCode == http.StatusOK
}

// env makes clients of Google Cloud Storage turn to the server.
func (g *gcsBucket) env() string { return "STORAGE_EMULATOR_HOST=" + g.address }

// harness are the test's arguments: its workers are processes with a bound on their memory, and end when they are refused more. The
// binary has its symbols: the DoFn is registered nowhere and is found by them.
func (g *gcsBucket) harness(trestle, binary string) ([]string, error) {
	emulator, address, _ := strings.Cut(g.env(), "=")
	config, err := json.Marshal(map[string]any{
		"command": fmt.Sprintf(`sh -c 'ulimit -d %d && exec "$0" boot go "$@"' '%s'`, oomMemory, trestle),
		"env":     map[string]string{emulator: address},
	})
	if err != nil {
		return nil, err
	}
	return []string{"--environment_type=" + inProcess, "--environment_config=" + string(config), "--worker_binary=" + binary,
		"--temp_location=gs://" + gcsBucketName + "/tmp"}, nil
}

// profiles is an error when no worker's heap profile is there that is one: gzipped, as pprof writes them.
func (g *gcsBucket) profiles() error {
	files, err := filepath.Glob(filepath.Join(g.folder, gcsBucketName, "tmp", "heapProfiles", "profile-*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.HasPrefix(string(content), "\x1f\x8b") {
			return nil
		}
	}
	return fmt.Errorf("none of the objects that the bucket has is a heap profile: %q", files)
}
