package neighbours

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/urn"
	"trestle/internal/plan/plantest"
)

// TestProcesses: programs that are no harnesses, and do what programs do, end their own job only, and are gone after it.
func TestProcesses(t *testing.T) {
	n := settle(t)
	for _, c := range []struct {
		name, script string
		says         string // in the error; a job without one is cancelled
	}{
		{"ends at once", "exit 0", "exit"},
		{"ends with garbage", "head -c 20000000 /dev/urandom; head -c 20000000 /dev/urandom >&2; exit 3", "exit code 3"},
		{"kills itself", "kill -9 $$", "killed"},
		{"leaves a child", "sleep 1000 & exit 4", "exit code 4"},
		{"does not listen", "trap '' TERM; while true; do sleep 0.1; done", ""},
		{"writes without end", "yes yes", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			script := filepath.Join(dir, "run")
			if err := os.WriteFile(script, []byte("#!/bin/sh\n: "+dir+"\n"+c.script+"\n"), 0o700); err != nil { //nolint:gosec // it is to be executed
				t.Fatal(err)
			}
			made, err := plantest.Parse(grouping)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := proto.Marshal(&pipepb.ProcessPayload{Command: script})
			if err != nil {
				t.Fatal(err)
			}
			for _, env := range made.GetComponents().GetEnvironments() {
				env.Urn, env.Payload = urn.EnvProcess, payload
			}
			id, err := n.submit(t.Context(), "process", made)
			if err != nil {
				t.Fatal(err)
			}
			if c.says != "" {
				n.failed(t, id, c.says)
			} else {
				n.runs(t, id)
				if _, err := n.jobs.Cancel(t.Context(), &jobpb.CancelJobRequest{JobId: id}); err != nil {
					t.Error(err)
				}
				if o := n.end(t, id); o.state != jobpb.JobState_CANCELLED {
					t.Errorf("the job ended as %v: %s", o.state, o.errors)
				}
			}
			left, err := processesOf(script)
			if err != nil || len(left) > 0 {
				t.Errorf("left after the job: %q, %v", left, err)
			}
			n.quiet(t)
		})
	}
}

// processesOf are the processes in whose command line, or in whose parent's while that lives, a text is.
func processesOf(text string) (found []string, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		env, _ := os.ReadFile(file)
		if strings.Contains(string(line)+string(env), text) {
			found = append(found, string(line))
		}
	}
	return found, err
}
