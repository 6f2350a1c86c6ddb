package artifact

import (
	"bytes"
	"log/slog"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
)

// The SDKs' own staging clients against ours, where they are installed: TRESTLE_TEST_PYTHON is a Python that has
// apache_beam, TRESTLE_TEST_TYPESCRIPT a folder whose node_modules have apache-beam.
func TestRealClients(t *testing.T) {
	clients := map[string]func(t *testing.T) *exec.Cmd{
		"python": func(t *testing.T) *exec.Cmd {
			python := os.Getenv("TRESTLE_TEST_PYTHON")
			if python == "" {
				t.Skip("TRESTLE_TEST_PYTHON names no Python with apache_beam")
			}
			return exec.CommandContext(t.Context(), python, "testdata/offer.py")
		},
		"typescript": func(t *testing.T) *exec.Cmd {
			dir := os.Getenv("TRESTLE_TEST_TYPESCRIPT")
			if dir == "" {
				t.Skip("TRESTLE_TEST_TYPESCRIPT names no folder with the apache-beam package")
			}
			script, err := filepath.Abs("testdata/offer.js")
			if err != nil {
				t.Fatal(err)
			}
			command := exec.CommandContext(t.Context(), "node", script)
			command.Dir = dir
			return command
		},
	}
	for name, client := range clients {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			endpoint := w.listen()
			offer := func(token string) (string, error) {
				command := client(t)
				command.Args = append(command.Args, endpoint, token)
				output, err := command.CombinedOutput()
				return string(output), err
			}
			small, large := random(1000, 1), random(9<<20, 2)
			dir := t.TempDir()
			write := func(name string, content []byte) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			smallPath, largePath, emptyPath := write("small", small), write("large", large), write("empty", nil)
			w.staging.Begin("full", deps{
				"a": {fileInfo(smallPath, sum(small), "s"), fileInfo(largePath, "", "l"), embeddedInfo(random(5<<20, 3), "e")},
				"b": {fileInfo(largePath, "", "l"), fileInfo(emptyPath, "", "")},
			})
			if output, err := offer("full"); err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			w.wantResolved("full", deps{
				"a": {stagedInfo(small, "s"), stagedInfo(large, "l"), stagedInfo(random(5<<20, 3), "e")},
				"b": {stagedInfo(large, "l"), stagedInfo(nil, "")},
			})
			w.staging.Begin("nothing", deps{"a": nil})
			if output, err := offer("nothing"); err != nil {
				t.Errorf("with nothing to stage: %v\n%s", err, output)
			}
			w.staging.Begin("wrong", deps{"a": {fileInfo(smallPath, sum([]byte("other")), "s")}})
			output, err := offer("wrong")
			if err == nil || !bytes.Contains([]byte(output), []byte("sha256 mismatch: the 1000 bytes that arrived")) {
				t.Errorf("with a wrong hash: %v\n%s", err, output)
			}
		})
	}
}

// listen serves the world's services on a port of this machine as well.
func (w *world) listen() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	jobpb.RegisterArtifactStagingServiceServer(server, w.staging)
	jobpb.RegisterArtifactRetrievalServiceServer(server, NewRetrieval(w.store, slog.New(slog.DiscardHandler)))
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(listener) }()
	w.t.Cleanup(func() {
		server.Stop()
		if err := <-serving; err != nil {
			w.t.Error(err)
		}
	})
	return listener.Addr().String()
}
