//go:build linux

package container

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"trestle/test/containers"
)

// registry is an image registry of one image, as the distribution protocol (API v2) has it. Engines speak plain HTTP to
// one on the loopback.
type registry struct {
	image string        // its name, with the registry's address
	once  sync.Once     // closes hold
	hold  chan struct{} // the layer is sent when it is closed
	asked chan struct{} // gets one when the layer is asked for
	pulls atomic.Int32  // how often the manifest was asked for
	blobs map[string][]byte
}

func (r *registry) release() { r.once.Do(func() { close(r.hold) }) }

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// newRegistry serves an image of the worker under a name of its own.
func newRegistry(t *testing.T, name string) *registry {
	t.Helper()
	program, err := containers.Worker(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	layer, err := containers.Layer(program, name+fmt.Sprint(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(layer); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	config := encode(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/worker"}, "Labels": map[string]string{"name": t.Name()}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	part := func(kind string, b []byte) map[string]any {
		return map[string]any{"mediaType": "application/vnd.docker." + kind, "size": len(b), "digest": digest(b)}
	}
	const manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	manifest := encode(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": part("container.image.v1+json", config),
		"layers": []any{part("image.rootfs.diff.tar.gzip", packed.Bytes())},
	})
	r := &registry{hold: make(chan struct{}), asked: make(chan struct{}, 100), blobs: map[string][]byte{digest(config): config, digest(packed.Bytes()): packed.Bytes()}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch _, blob, _ := strings.Cut(req.URL.Path, "/blobs/"); {
		case req.URL.Path == "/v2/":
		case strings.Contains(req.URL.Path, "/manifests/"):
			r.pulls.Add(1)
			w.Header().Set("Content-Type", manifestType)
			w.Header().Set("Docker-Content-Digest", digest(manifest))
			_, _ = w.Write(manifest)
		case r.blobs[blob] != nil:
			if blob == digest(packed.Bytes()) {
				r.asked <- struct{}{}
				select {
				case <-r.hold:
				case <-req.Context().Done():
					return
				}
			}
			_, _ = w.Write(r.blobs[blob])
		default:
			http.NotFound(w, req)
		}
	}))
	t.Cleanup(func() {
		r.release() // an engine may go on with a pull that nobody waits for any more
		server.Close()
	})
	r.image = strings.TrimPrefix(server.URL, "http://") + "/" + name + ":1"
	return r
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
