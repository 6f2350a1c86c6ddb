package artifact

import (
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/internal/store/blob"
	"trestle/test/line"
)

// A staging store that goes down, hangs, or becomes read-only after the server has started fails the staging, and the
// client reads which store, from which host, and why. When the store is well again, so is staging, and nothing half-written
// is in it.
func TestStagingToAStoreThatFails(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	backend := s3mem.New()
	if err := backend.CreateBucket("b"); err != nil {
		t.Fatal(err)
	}
	working := gofakes3.New(backend).Server()
	var readOnly atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if readOnly.Load() && r.Method != http.MethodGet && r.Method != http.MethodHead {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>read only, says the owner</Message></Error>`)
			return
		}
		working.ServeHTTP(w, r)
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	l := line.New(t, u.Host)
	location := "s3://b/staging?endpoint=http://" + l.Address()
	bucket, err := blob.Open(t.Context(), location, blob.Options{Patience: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	w := &world{t: t, store: NewStore(bucket, t.TempDir())}
	w.staging = NewStaging(w.store, slog.New(slog.DiscardHandler))
	w.serveStaging()
	content := random(12<<20, 1) // several parts of an upload
	client := &sdk{files: map[string][]byte{"/f": content}, chunk: 1 << 20}
	w.staging.Begin("token", deps{"env": {fileInfo("/f", "", "f")}})
	host, _ := os.Hostname()
	fails := func(want ...string) {
		t.Helper()
		begin := time.Now()
		err := client.offer(t.Context(), w.conn, "token")
		wantError(t, err, append(want, "stage artifacts", "in bucket "+location, "from host "+host)...)
		_, err = w.staging.Resolved(t.Context(), "token")
		wantError(t, err, append(want, "in bucket "+location, "from host "+host)...)
		// Go's client asks here, and shows the answer.
		wantError(t, w.putLegacy("token"), append(want, "in bucket "+location, "from host "+host)...)
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	}
	readOnly.Store(true)
	fails(`write "artifacts/`+sum(content), "permission denied", "AWS_ACCESS_KEY_ID", "read only, says the owner")
	readOnly.Store(false)
	l.Silent.Store(true)
	l.Break()
	fails("nothing has moved for 5s")
	l.Silent.Store(false)
	l.Break()
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	wantError(t, w.putLegacy("token"), "its predecessor stages nothing here")
	wantError(t, w.putLegacy("other"), "no job is being prepared")
	for object, err := range bucket.List(t.Context(), "") {
		if err != nil || object.Key != "artifacts/"+sum(content) || object.Size != int64(len(content)) {
			t.Errorf("the bucket holds %v, %v", object, err)
		}
	}
	if _, err := w.open(sum(content)); err != nil {
		t.Error(err)
	}
	l.Close()
	l.Break()
	w.staging.Begin("token", deps{"env": {fileInfo("/f", "", "f"), fileInfo("/g", strings.Repeat("ab", 32), "g")}})
	client.files["/g"] = nil
	fails()
}

// putLegacy begins to stage as Go's client does when staging has failed.
func (w *world) putLegacy(token string) error {
	stream, err := jobpb.NewLegacyArtifactStagingServiceClient(w.conn).PutArtifact(w.t.Context())
	if err != nil {
		return err
	}
	err = stream.Send(&jobpb.PutArtifactRequest{Content: &jobpb.PutArtifactRequest_Metadata{
		Metadata: &jobpb.PutArtifactMetadata{StagingSessionToken: token}}})
	if err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

// serveStaging serves the world's staging service alone.
func (w *world) serveStaging() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	jobpb.RegisterArtifactStagingServiceServer(server, w.staging)
	jobpb.RegisterLegacyArtifactStagingServiceServer(server, w.staging.Legacy())
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(listener) }()
	if w.conn, err = grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		w.conn.Close()
		server.Stop()
		if err := <-serving; err != nil {
			w.t.Error(err)
		}
	})
}

// A web server that stops in the middle of an artifact is given up, and nothing of the artifact is left.
func TestWebServerThatStops(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(random(100, 1))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer web.Close()
	w := newWorld(t)
	w.store.silence = 50 * time.Millisecond
	w.staging.Begin("token", deps{"env": {urlInfo(web.URL+"/a.jar", "", "a.jar")}})
	_, err := w.staging.Resolved(t.Context(), "token")
	wantError(t, err, "fetch "+web.URL+"/a.jar", "the web server has sent nothing for 50ms")
	w.holds()
}
