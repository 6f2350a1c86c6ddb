package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"trestle/internal/server"
	"trestle/test/gopipeline"
)

// TestRetention: what has been kept long enough goes, with the artifacts that no job needs any more; a job that runs keeps
// its own, however long it runs; and what was removed is staged again for the next.
func TestRetention(t *testing.T) {
	data := t.TempDir()
	const keep = time.Second
	s := start(t, server.Config{Data: data, Keep: keep})
	client := jobs(t, s)
	boot, err := gopipeline.Process(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	stored := func() int {
		files, err := filepath.Glob(filepath.Join(data, "artifacts", "artifacts", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	eventually := func(what string, ok func(listed, stored int) bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; {
			list, err := client.GetJobs(t.Context(), &jobpb.GetJobsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if ok(len(list.GetJobInfo()), stored()) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("not %s: %d jobs, %d artifacts", what, len(list.GetJobInfo()), stored())
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	// Not by Beam's client, which asks for a job's metrics when it has ended: by then it may be gone. So it may be here before
	// its messages are asked for.
	run := func(p *beam.Pipeline) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		result, err := (&gopipeline.Server{Server: s}).Run(ctx, "retention", p, boot)
		if status.Code(err) == codes.NotFound || err == nil && result.State == jobpb.JobState_DONE {
			return nil
		}
		return fmt.Errorf("the job ended as %v: %w", result, err)
	}
	p, scope := beam.NewPipelineWithRoot()
	beam.ParDo(scope, identity, beam.CreateList(scope, numbers(10)))
	if err := run(p); err != nil {
		t.Fatal(err)
	}
	eventually("gone", func(listed, stored int) bool { return listed == 0 && stored == 0 })

	signal := filepath.Join(t.TempDir(), "go")
	p, scope = beam.NewPipelineWithRoot()
	beam.ParDo(scope, waitForFile, beam.Create(scope, signal))
	ended := make(chan error, 1)
	go func() { ended <- run(p) }()
	id := running(t, client)
	began := time.Now()
	eventually("old", func(listed, _ int) bool { return time.Since(began) > keep+time.Second })
	if n := stored(); n != 1 {
		t.Errorf("a running job's artifacts: %d are left", n)
	}
	if st, err := client.GetState(t.Context(), &jobpb.GetJobStateRequest{JobId: id}); err != nil || st.GetState() != jobpb.JobState_RUNNING {
		t.Errorf("the job that runs is %v, %v", st.GetState(), err)
	}
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	eventually("gone", func(listed, stored int) bool { return listed == 0 && stored == 0 })
	left, err := os.ReadDir(filepath.Join(data, "jobs"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
