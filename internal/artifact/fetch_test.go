package artifact

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
)

func (w *world) client() jobpb.ArtifactRetrievalServiceClient {
	return jobpb.NewArtifactRetrievalServiceClient(w.conn)
}

func (w *world) fetch(infos ...*pipepb.ArtifactInformation) (string, []File, error) {
	dir := filepath.Join(w.t.TempDir(), "harness")
	files, err := Fetch(w.t.Context(), w.client(), infos, dir, slog.New(slog.DiscardHandler))
	return dir, files, err
}

// From the SDK's files to the harness's folder, the whole way.
func TestFromStagingToTheHarness(t *testing.T) {
	w := newWorld(t)
	jar, large, binary, embedded := random(1000, 1), random(5<<20+1, 2), random(77, 3), random(50, 4)
	client := &sdk{files: map[string][]byte{"/jar": jar, "/large": large, "/bin": binary, "/empty": nil}, chunk: 1 << 20}
	pypi := &pipepb.ArtifactInformation{TypeUrn: typePyPI, TypePayload: marshal(&pipepb.PyPIPayload{ArtifactId: "numpy", Version: "1.2"})}
	w.staging.Begin("token", deps{"env": {
		fileInfo("/jar", "", "lib/a/one.jar"), fileInfo("/large", "", "large"), pypi,
		fileInfo("/bin", "", ""), embeddedInfo(embedded, "embedded"), fileInfo("/empty", "", "lib/empty"),
	}})
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	resolved, err := w.staging.Resolved(t.Context(), "token")
	if err != nil {
		t.Fatal(err)
	}
	dir, got, err := w.fetch(resolved["env"]...)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, content []byte) File {
		return File{Name: name, Path: filepath.Join(dir, name), SHA256: sum(content), Size: int64(len(content))}
	}
	want := []File{file("lib/a/one.jar", jar), file("large", large), {Package: "numpy==1.2"}, file("artifact-3", binary),
		file("embedded", embedded), file("lib/empty", nil)}
	for i := range want {
		want[i].Info = resolved["env"][i]
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	for name, content := range map[string][]byte{"lib/a/one.jar": jar, "large": large, "artifact-3": binary, "embedded": embedded, "lib/empty": nil} {
		onDisk, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(onDisk, content) {
			t.Errorf("%s: %d bytes, %v", name, len(onDisk), err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "artifact-3"))
	if err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("the worker binary cannot be executed: %v, %v", info.Mode(), err)
	}
	if n := len(files(t, dir)); n != 5 {
		t.Errorf("%d files in the folder", n)
	}
}

func TestFetchNothing(t *testing.T) {
	w := newWorld(t)
	if _, files, err := w.fetch(); err != nil || files != nil {
		t.Error(files, err)
	}
}

// Harnesses may ask for embedded and URL artifacts that no staging has seen.
func TestRetrievalOfURLs(t *testing.T) {
	content := random(3000, 1)
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.Write(content) }))
	defer web.Close()
	w := newWorld(t)
	_, got, err := w.fetch(urlInfo(web.URL+"/x/a.jar?y=z", sum(content), ""), urlInfo(web.URL, "", "named"))
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Name != "artifact-0-a.jar" || got[1].Name != "named" || got[1].SHA256 != sum(content) {
		t.Errorf("got %+v", got)
	}
	_, _, err = w.fetch(urlInfo(web.URL, sum(nil), "named"))
	wantError(t, err, "fetch artifact", "sha256 mismatch", "(InvalidArgument)")
}

func TestRetrievalRefuses(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		info *pipepb.ArtifactInformation
		code codes.Code
		want []string
	}{
		{fileInfo("/etc/passwd", "", "n"), codes.InvalidArgument, []string{"artifact /etc/passwd as \"n\"", "never a path"}},
		{fileInfo("x", sum(nil), "n"), codes.NotFound, []string{"artifact x as \"n\"", sum(nil), "not found"}},
		{fileInfo("x", "../../../etc/passwd", "n"), codes.InvalidArgument, []string{"is not a sha256"}},
		{urlInfo("file:///etc/passwd", "", "n"), codes.InvalidArgument, []string{"is not one that the server fetches"}},
		{&pipepb.ArtifactInformation{TypeUrn: typeMaven, TypePayload: marshal(&pipepb.MavenPayload{Artifact: "g:a:1"})},
			codes.InvalidArgument, []string{"artifact g:a:1 (type", "which the harness has to install by itself"}},
		{&pipepb.ArtifactInformation{TypeUrn: "new"}, codes.InvalidArgument, []string{"(type new, role )", "not known here"}},
		{nil, codes.InvalidArgument, []string{"not known here"}},
	} {
		stream, err := w.client().GetArtifact(t.Context(), &jobpb.GetArtifactRequest{Artifact: c.info})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantError(t, err, append(c.want, "get artifact")...)
		if status.Code(err) != c.code {
			t.Errorf("code %v of %v, want %v", status.Code(err), err, c.code)
		}
	}
	_, err := w.client().ResolveArtifacts(t.Context(), &jobpb.ResolveArtifactsRequest{Artifacts: []*pipepb.ArtifactInformation{
		{TypeUrn: "new"}, fileInfo("/f", "", "../x"), fileInfo("/ok", "", "ok")}})
	wantError(t, err, "(type new, role )", `"../x" leaves`)
}

// lying is a server that answers with names or bytes that it should not.
type lying struct {
	jobpb.ArtifactRetrievalServiceClient
	replacements []*pipepb.ArtifactInformation
}

func (l lying) ResolveArtifacts(context.Context, *jobpb.ResolveArtifactsRequest, ...grpc.CallOption) (*jobpb.ResolveArtifactsResponse, error) {
	return &jobpb.ResolveArtifactsResponse{Replacements: l.replacements}, nil
}

func TestFetchThatFailsLeavesNoPartOfAFile(t *testing.T) {
	w := newWorld(t)
	good, damaged := random(1000, 1), random(3<<20, 2)
	w.put(good)
	w.put(damaged)
	for _, file := range files(t, w.dir) {
		if filepath.Base(file) == sum(damaged) {
			if err := os.WriteFile(file, bytes.Repeat([]byte("x"), len(damaged)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		infos []*pipepb.ArtifactInformation
		want  []string
	}{
		"damaged in the store": {[]*pipepb.ArtifactInformation{stagedInfo(damaged, "sub/file")},
			[]string{"fetch artifact", "after 3145728 bytes", "sha256 mismatch", sum(damaged)}},
		"absent": {[]*pipepb.ArtifactInformation{stagedInfo(random(1, 9), "sub/file")}, []string{"not found (NotFound)"}},
		"embedded bytes under a file's place": {[]*pipepb.ArtifactInformation{embeddedInfo(good, "n"), embeddedInfo(good, "n/m")},
			[]string{"a file and a folder at once"}},
		"leaves the folder": {[]*pipepb.ArtifactInformation{stagedInfo(good, "fine"), stagedInfo(good, "../out"), stagedInfo(good, "/abs")},
			[]string{`staged name "../out" leaves`, `staged name "/abs" is an absolute path`}},
	} {
		dir := filepath.Join(t.TempDir(), "harness")
		_, err := Fetch(t.Context(), lying{w.client(), c.infos}, c.infos, dir, slog.New(slog.DiscardHandler))
		wantError(t, err, c.want...)
		if _, err := os.Stat(dir); err == nil {
			if left := files(t, dir); len(left) > 0 {
				t.Errorf("%s: left %v", name, left)
			}
		}
	}
}

// A folder that is a symbolic link to elsewhere is not followed out of the harness's folder.
func TestFetchDoesNotFollowLinksOut(t *testing.T) {
	w := newWorld(t)
	content := random(10, 1)
	w.put(content)
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, err := Fetch(t.Context(), w.client(), []*pipepb.ArtifactInformation{stagedInfo(content, "link/file")}, dir, slog.New(slog.DiscardHandler))
	wantError(t, err, "escapes")
	if left := files(t, outside); len(left) > 0 {
		t.Errorf("written outside: %v", left)
	}
}

func TestFetchFromADeadServer(t *testing.T) {
	w := newWorld(t)
	w.put(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Fetch(ctx, w.client(), []*pipepb.ArtifactInformation{stagedInfo(nil, "n")}, t.TempDir(), slog.New(slog.DiscardHandler))
	wantError(t, err, "fetch artifacts: resolve: context canceled (Canceled)")
	if status.Code(err) != codes.Canceled {
		t.Errorf("code %v", status.Code(err))
	}
	var rpc rpcError
	if !errors.As(err, &rpc) {
		t.Errorf("%T", err)
	}
}
