package worker

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"

	"trestle/internal/artifact"
	"trestle/internal/job/submission"
	"trestle/internal/kit/here"
	"trestle/internal/store/blob"
)

// A host is told what it lacks, one line for each thing that was tried: what, from where, and what to do.
func TestTryHost(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // which has no container engine
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	jobpb.RegisterArtifactRetrievalServiceServer(server, artifact.NewRetrieval(nil, slog.New(slog.DiscardHandler)))
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	store := t.TempDir()
	bucket, err := blob.Open(t.Context(), store, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mark, err := blob.Mark(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	host := here.Host()
	const program, disk, artifacts, engine = 0, 1, 2, 3
	for _, test := range []struct {
		name, scratch string
		artifacts     submission.Artifacts
		of            int
		failed        bool
		says          []string
	}{
		{"program", "", submission.Artifacts{}, program, false, []string{"worker: trestle test runs here (", " cores), as /"}},
		{"folder", "", submission.Artifacts{}, disk, false, []string{"free in /", "on host " + host, "where jobs spill"}},
		{"folder that cannot be made", filepath.Join(file, "x"), submission.Artifacts{}, disk, true, []string{"tried on host " + host + " to make a folder in " + file, "not a directory", "io.tmp.dirs"}},
		{"server", "", submission.Artifacts{Server: listener.Addr().String()}, artifacts, false, []string{listener.Addr().String(), "tried from host " + host + " to connect, and ask it for some: it works"}},
		{"another server", "", submission.Artifacts{Server: other.Listener.Addr().String()}, artifacts, true, []string{other.Listener.Addr().String(), "somebody takes connections there, who is no job server", "--advertise"}},
		{"no server", "", submission.Artifacts{Server: gone.Addr().String()}, artifacts, true, []string{gone.Addr().String(), "tried from host " + host, "refused", "--advertise", "--staging"}},
		{"store", "", submission.Artifacts{Bucket: "file://" + store}, artifacts, false, []string{"staging store file://" + store, "from host " + host, "it works"}},
		{"another store", "", submission.Artifacts{Bucket: "file://" + t.TempDir()}, artifacts, true, []string{"from host " + host, "another store than the job server's"}},
		{"no container engine", "", submission.Artifacts{}, engine, true, []string{"host " + host + " has none", "docker, podman and nerdctl", "PROCESS"}},
	} {
		if test.scratch == "" {
			test.scratch = filepath.Join(t.TempDir(), "made")
		}
		if test.artifacts == (submission.Artifacts{}) {
			test.artifacts.Server = listener.Addr().String()
		}
		asked, err := json.Marshal(submission.Probe{Trestle: "test", Artifacts: test.artifacts, Mark: mark})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := TryHost(t.Context(), "test", test.scratch, bytes.NewReader(asked), &out); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		var found []submission.Finding
		if err := json.Unmarshal(out.Bytes(), &found); err != nil || len(found) != 4 {
			t.Errorf("%s: %d findings, error %v", test.name, len(found), err)
			continue
		}
		f := found[test.of]
		if f.Failed != test.failed {
			t.Errorf("%s: %+v", test.name, f)
		}
		if (f.Need != "") != (test.of == engine) {
			t.Errorf("%s: it is needed for %q", test.name, f.Need)
		}
		for _, part := range test.says {
			if !strings.Contains(f.Text, part) {
				t.Errorf("%s: it does not say %q: %s", test.name, part, f.Text)
			}
		}
		if left, err := filepath.Glob(filepath.Join(test.scratch, "*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left: %v, %v", test.name, left, err)
		}
	}
	if err := TryHost(t.Context(), "other", t.TempDir(), strings.NewReader(`{"trestle":"test"}`), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "of trestle test, and this is other") {
		t.Errorf("a probe of another version: %v", err)
	}
}
