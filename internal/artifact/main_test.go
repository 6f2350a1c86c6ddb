package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	_ "gocloud.dev/blob/memblob"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"trestle/internal/store/blob"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) {
	if os.Getenv(killedHelper) != "" {
		putUntilKilled()
		return
	}
	leaks.Main(m)
}

// world is a store in folders of its own, with both services on a gRPC server in process.
type world struct {
	t         *testing.T
	store     *Store
	bucket    *watched
	dir       string
	scratch   string
	staging   *Staging
	retrieval *Retrieval
	conn      *grpc.ClientConn
}

// watched counts a bucket's writes and fails where a test says so.
type watched struct {
	blob.Bucket
	writes  chan string
	failing error
}

func (w *watched) Write(ctx context.Context, key string, r io.Reader) error {
	if w.failing != nil {
		return w.failing
	}
	w.writes <- key
	return w.Bucket.Write(ctx, key, r)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), scratch: filepath.Join(t.TempDir(), "scratch")}
	bucket, err := blob.Open(t.Context(), w.dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bucket.Close(); err != nil {
			t.Error(err)
		}
	})
	w.bucket = &watched{Bucket: bucket, writes: make(chan string, 1000)}
	w.store = NewStore(w.bucket, w.scratch)
	log := slog.New(slog.DiscardHandler)
	w.staging, w.retrieval = NewStaging(w.store, log), NewRetrieval(w.store, log)

	listener := bufconn.Listen(1 << 20)
	// Fixed windows, so that what gRPC itself buffers does not drown what is measured.
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32), grpc.InitialWindowSize(1<<20), grpc.InitialConnWindowSize(1<<20))
	jobpb.RegisterArtifactStagingServiceServer(server, w.staging)
	jobpb.RegisterArtifactRetrievalServiceServer(server, w.retrieval)
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(listener) }()
	w.conn, err = grpc.NewClient("passthrough:bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.conn.Close()
		server.Stop()
		// A test may be over before the server has begun to serve.
		if err := <-serving; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return w
}

// holds checks that the store holds exactly these contents, and that nothing else lies about.
func (w *world) holds(contents ...[]byte) {
	w.t.Helper()
	want := map[string]bool{}
	for _, content := range contents {
		want[sum(content)] = true
	}
	for _, file := range files(w.t, w.dir) {
		key := filepath.Base(file)
		if !want[key] {
			w.t.Errorf("the bucket holds %s, which nobody staged", file)
		}
		delete(want, key)
	}
	for key := range want {
		w.t.Errorf("the bucket does not hold %s", key)
	}
	if left := files(w.t, w.scratch); len(left) > 0 {
		w.t.Errorf("left in scratch: %v", left)
	}
}

// files lists all files below a folder.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

func random(size int, seed byte) []byte {
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(content)
	return content
}

func marshal(m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw
}

// fileInfo is a file on the SDK's side, staged as name unless that is empty.
func fileInfo(path, sha256, name string) *pipepb.ArtifactInformation {
	return as(name, &pipepb.ArtifactInformation{
		TypeUrn:     typeFile,
		TypePayload: marshal(&pipepb.ArtifactFilePayload{Path: path, Sha256: sha256}),
	})
}

func urlInfo(url, sha256, name string) *pipepb.ArtifactInformation {
	return as(name, &pipepb.ArtifactInformation{
		TypeUrn:     typeURL,
		TypePayload: marshal(&pipepb.ArtifactUrlPayload{Url: url, Sha256: sha256}),
	})
}

func embeddedInfo(data []byte, name string) *pipepb.ArtifactInformation {
	return as(name, &pipepb.ArtifactInformation{
		TypeUrn:     typeEmbedded,
		TypePayload: marshal(&pipepb.EmbeddedFilePayload{Data: data}),
	})
}

func as(name string, info *pipepb.ArtifactInformation) *pipepb.ArtifactInformation {
	info.RoleUrn = "beam:artifact:role:go_worker_binary:v1"
	if name != "" {
		info.RoleUrn = roleStagingTo
		info.RolePayload = marshal(&pipepb.ArtifactStagingToRolePayload{StagedName: name})
	}
	return info
}

// stagedInfo is what harnesses get for content.
func stagedInfo(content []byte, name string) *pipepb.ArtifactInformation {
	return fileInfo(sum(content), sum(content), name)
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q\nwant %q in it", err, part)
		}
	}
}
