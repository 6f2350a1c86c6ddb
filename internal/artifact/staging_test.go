package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
)

type deps = map[string][]*pipepb.ArtifactInformation

func (w *world) wantResolved(token string, want deps) {
	w.t.Helper()
	got, err := w.staging.Resolved(w.t.Context(), token)
	if err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		w.t.Errorf("resolved (-want +got):\n%s", diff)
	}
}

// Two environments, a shared jar, an empty file, one larger than a gRPC message by default, and a role other than
// staging_to, with each SDK's client.
func TestStagingWithEachSDK(t *testing.T) {
	shared, empty, large, binary := random(3000, 1), []byte{}, random(9<<20, 2), random(200_000, 3)
	files := map[string][]byte{"/sdk/shared.jar": shared, "/sdk/empty": empty, "/sdk/large.jar": large, "/sdk/worker": binary}
	for _, client := range sdks(files) {
		t.Run(client.name, func(t *testing.T) {
			w := newWorld(t)
			w.staging.Begin("token", deps{
				"java": {fileInfo("/sdk/shared.jar", sum(shared), "shared.jar"), fileInfo("/sdk/large.jar", sum(large), "lib/large.jar")},
				"go":   {fileInfo("/sdk/worker", "", ""), fileInfo("/sdk/empty", "", "empty"), fileInfo("/sdk/shared.jar", sum(shared), "other.jar")},
				"none": nil,
			})
			if err := client.offer(t.Context(), w.conn, "token"); err != nil {
				t.Fatal(err)
			}
			w.wantResolved("token", deps{
				"java": {stagedInfo(shared, "shared.jar"), stagedInfo(large, "lib/large.jar")},
				"go":   {stagedInfo(binary, ""), stagedInfo(empty, "empty"), stagedInfo(shared, "other.jar")},
				"none": nil,
			})
			w.holds(shared, empty, large, binary)
			slices.Sort(client.sent)
			if diff := cmp.Diff([]string{"/sdk/empty", "/sdk/large.jar", "/sdk/shared.jar", "/sdk/worker"}, client.sent); diff != "" {
				t.Errorf("asked the client for (-want +got):\n%s", diff)
			}
		})
	}
}

// A stream on which nothing is asked still brings headers, and ends: TypeScript's client would hang without them.
func TestStagingOfNothing(t *testing.T) {
	for _, client := range sdks(nil) {
		w := newWorld(t)
		w.staging.Begin("token", deps{"env": nil})
		if err := client.offer(t.Context(), w.conn, "token"); err != nil {
			t.Errorf("%s: %v", client.name, err)
		}
		w.wantResolved("token", deps{"env": nil})
	}
}

// Without sha256s in the payloads, what two environments share is still sent once.
func TestSharedArtifactWithoutHashIsSentOnce(t *testing.T) {
	w := newWorld(t)
	content := random(1000, 1)
	client := &sdk{name: "python", files: map[string][]byte{"/f": content}, chunk: 100}
	w.staging.Begin("token", deps{"a": {fileInfo("/f", "", "x")}, "b": {fileInfo("/f", "", "y"), fileInfo("/f", "", "z")}})
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	w.wantResolved("token", deps{"a": {stagedInfo(content, "x")}, "b": {stagedInfo(content, "y"), stagedInfo(content, "z")}})
	if len(client.sent) != 1 {
		t.Errorf("sent %v", client.sent)
	}
}

// What the store has under the promised hash is not asked for again.
func TestKnownArtifactIsNotSent(t *testing.T) {
	w := newWorld(t)
	content := random(1000, 1)
	w.put(content)
	client := &sdk{name: "java"}
	w.staging.Begin("token", deps{"env": {fileInfo("/f", sum(content), "x")}})
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	w.wantResolved("token", deps{"env": {stagedInfo(content, "x")}})
}

// A client may replace artifacts when it resolves them; what it gives is what is staged.
func TestClientResolves(t *testing.T) {
	w := newWorld(t)
	content := random(1000, 1)
	deferred := &pipepb.ArtifactInformation{TypeUrn: typeDeferred, TypePayload: marshal(&pipepb.DeferredArtifactPayload{Key: "k"})}
	client := &sdk{name: "java", files: map[string][]byte{"/f": content}, chunk: 100,
		resolve: func(infos []*pipepb.ArtifactInformation) []*pipepb.ArtifactInformation {
			if len(infos) != 1 || infos[0].GetTypeUrn() != typeDeferred {
				t.Errorf("asked to resolve %v", infos)
			}
			return []*pipepb.ArtifactInformation{fileInfo("/f", "", "a"), fileInfo("/f", "", "b")}
		}}
	w.staging.Begin("token", deps{"env": {deferred}})
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	w.wantResolved("token", deps{"env": {stagedInfo(content, "a"), stagedInfo(content, "b")}})
}

// Embedded artifacts, URLs and packages need no client; the order is kept; a large embedded artifact never reaches a
// client that takes 4 MB.
func TestTypesOtherThanFile(t *testing.T) {
	fetched, embedded, file := random(5000, 1), random(6<<20, 2), random(10, 3)
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a.jar" {
			http.NotFound(rw, r)
			return
		}
		rw.Write(fetched)
	}))
	defer web.Close()
	pypi := &pipepb.ArtifactInformation{TypeUrn: typePyPI, TypePayload: marshal(&pipepb.PyPIPayload{ArtifactId: "numpy", Version: "1"})}
	maven := &pipepb.ArtifactInformation{TypeUrn: typeMaven, TypePayload: marshal(&pipepb.MavenPayload{Artifact: "g:a:1"})}
	free := []*pipepb.ArtifactInformation{urlInfo(web.URL+"/a.jar", sum(fetched), "a.jar"), pypi, embeddedInfo(embedded, "e"), maven}
	freeStaged := []*pipepb.ArtifactInformation{stagedInfo(fetched, "a.jar"), pypi, stagedInfo(embedded, "e"), maven}

	t.Run("staged", func(t *testing.T) {
		w := newWorld(t)
		client := &sdk{name: "python", files: map[string][]byte{"/f": file}, chunk: 100}
		w.staging.Begin("token", deps{"env": append(slices.Clone(free), fileInfo("/f", "", "f"))})
		if err := client.offer(t.Context(), w.conn, "token"); err != nil {
			t.Fatal(err)
		}
		w.wantResolved("token", deps{"env": append(slices.Clone(freeStaged), stagedInfo(file, "f"))})
		w.holds(fetched, embedded, file)
	})
	t.Run("never staged", func(t *testing.T) {
		w := newWorld(t)
		w.staging.Begin("token", deps{"env": free})
		w.wantResolved("token", deps{"env": freeStaged})
	})
	t.Run("never staged, with files", func(t *testing.T) {
		w := newWorld(t)
		w.staging.Begin("token", deps{"env": append(slices.Clone(free), fileInfo("/f", "", "f")), "two": {fileInfo("/g", "", "")}})
		_, err := w.staging.Resolved(t.Context(), "token")
		wantError(t, err, "2 artifacts were never staged", "the artifact staging endpoint",
			`environment "env": artifact /f (type beam:artifact:type:file:v1`, `environment "two": artifact /g`)
	})
	t.Run("broken URLs", func(t *testing.T) {
		for url, want := range map[string]string{
			web.URL + "/b.jar":       "the web server answered 404",
			"file:///etc/passwd":     `the scheme of "file:///etc/passwd" is not one that the server fetches`,
			"gs://b/x":               "stage it as a file",
			"http://[::1":            "cannot be read",
			"http://u:pw@[::1]:1/x":  "u:xxxxx@",
			"http://127.0.0.1:1/x.j": "refused",
		} {
			w := newWorld(t)
			w.staging.Begin("token", deps{"env": {urlInfo(url, "", "n")}})
			_, err := w.staging.Resolved(t.Context(), "token")
			wantError(t, err, `environment "env": artifact `, want)
			w.holds()
		}
	})
	t.Run("URL with a wrong hash", func(t *testing.T) {
		w := newWorld(t)
		w.staging.Begin("token", deps{"env": {urlInfo(web.URL+"/a.jar", sum(nil), "n")}})
		_, err := w.staging.Resolved(t.Context(), "token")
		wantError(t, err, "sha256 mismatch", web.URL+"/a.jar")
		w.holds()
	})
}

// What cannot be staged is told to the client and, later, to Run, all of it, before a byte is transferred.
func TestRefusedDependencies(t *testing.T) {
	named := func(name string) *pipepb.ArtifactInformation {
		info := fileInfo("/f", "", "x")
		info.RolePayload = marshal(&pipepb.ArtifactStagingToRolePayload{StagedName: name})
		return info
	}
	unknown := &pipepb.ArtifactInformation{TypeUrn: "custom:type", RoleUrn: "custom:role"}
	garbled := &pipepb.ArtifactInformation{TypeUrn: typeFile, TypePayload: []byte{0xff}}
	deferred := &pipepb.ArtifactInformation{TypeUrn: typeDeferred, TypePayload: marshal(&pipepb.DeferredArtifactPayload{Key: "later"})}
	wanted := deps{
		"one": {named("../up"), named("/etc/passwd"), named(""), named("a\x00b")},
		"two": {named("a/../../b"), named("."), unknown, garbled, deferred, fileInfo("/f", "xyz", "bad-hash")},
	}
	want := []string{
		`environment "one": artifact /f as "../up" (type beam:artifact:type:file:v1, role beam:artifact:role:staging_to:v1): ` +
			`staged name "../up" leaves the harness's folder`,
		`staged name "/etc/passwd" is an absolute path`,
		`staged name "" is empty`,
		`staged name "a\x00b" has a NUL byte`,
		`environment "two": artifact /f as "a/../../b"`,
		`staged name "." is the harness's folder itself`,
		"type payload: proto:",
		`"xyz" is not a sha256`,
	}
	wantError(t, Check(wanted), want...)
	if err := Check(deps{"env": {unknown, deferred, fileInfo("/f", "", "fine")}}); err != nil {
		t.Errorf("what the SDK may yet resolve is refused: %v", err)
	}
	want = append(want, "(type custom:type, role custom:role): not resolved: this type is not known here",
		"later (type "+typeDeferred+", role ): not resolved")

	w := newWorld(t)
	w.staging.Begin("token", wanted)
	client := &sdk{name: "go", files: map[string][]byte{"/f": nil}}
	err := client.offer(t.Context(), w.conn, "token")
	wantError(t, err, want...)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("code %v", status.Code(err))
	}
	if len(client.sent) > 0 {
		t.Errorf("sent %v", client.sent)
	}
	_, err = w.staging.Resolved(t.Context(), "token")
	wantError(t, err, append(want, `staging token "token"`, "staging failed")...)
	w.holds()
}

func TestNamesThatClash(t *testing.T) {
	files := map[string][]byte{"/1": []byte("one"), "/2": []byte("two"), "/also1": []byte("one")}
	for _, c := range []struct {
		name  string
		infos []*pipepb.ArtifactInformation
		want  []string
	}{
		{"same name", []*pipepb.ArtifactInformation{fileInfo("/1", "", "lib/a"), fileInfo("/2", "", "lib//./a")},
			[]string{`environment "env"`, `staged name "lib/a" stands for two different files`, sum([]byte("one")), sum([]byte("two"))}},
		{"file then folder", []*pipepb.ArtifactInformation{fileInfo("/1", "", "a"), fileInfo("/2", "", "a/b/c")},
			[]string{`staged names "a" and "a/b/c"`}},
		{"folder then file", []*pipepb.ArtifactInformation{fileInfo("/1", "", "a/b/c"), fileInfo("/2", "", "a")},
			[]string{`staged names "a" and "a/b/c"`}},
	} {
		w := newWorld(t)
		w.staging.Begin("token", deps{"env": c.infos})
		err := (&sdk{name: "go", files: files, chunk: 2}).offer(t.Context(), w.conn, "token")
		wantError(t, err, c.want...)
	}
	// The same file twice under one name is one file; one name in two environments is two.
	w := newWorld(t)
	w.staging.Begin("token", deps{
		"a": {fileInfo("/1", "", "n"), fileInfo("/also1", "", "n"), fileInfo("/2", "", "m")}, "b": {fileInfo("/2", "", "n")}})
	if err := (&sdk{name: "go", files: files, chunk: 2}).offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	w.wantResolved("token", deps{"a": {stagedInfo(files["/1"], "n"), stagedInfo(files["/2"], "m")}, "b": {stagedInfo(files["/2"], "n")}})
}

// An artifact that is not what its sha256 promised is refused, and the client may try again on another stream.
func TestWrongHashThenRetry(t *testing.T) {
	w := newWorld(t)
	promised := random(1000, 1)
	client := &sdk{name: "go", files: map[string][]byte{"/f": random(999, 2)}, chunk: 100}
	w.staging.Begin("token", deps{"env": {fileInfo("/f", sum(promised), "f")}})
	err := client.offer(t.Context(), w.conn, "token")
	wantError(t, err, `environment "env": artifact /f (type beam:artifact:type:file:v1`, "sha256 mismatch: the 999 bytes that arrived",
		sum(client.files["/f"]), sum(promised)+" was promised")
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("code %v", status.Code(err))
	}
	_, err = w.staging.Resolved(t.Context(), "token")
	wantError(t, err, "sha256 mismatch")
	w.holds()

	client.files["/f"] = promised
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	w.wantResolved("token", deps{"env": {stagedInfo(promised, "f")}})
	// Once staged, another stream has nothing to do.
	if err := client.offer(t.Context(), w.conn, "token"); err != nil || len(client.sent) != 2 {
		t.Errorf("staging again: %v, sent %v", err, client.sent)
	}
}

// However many artifacts are wrong, what the client is told of them arrives: some clients take no more than 8 KiB of trailers.
func TestManyRefusedArtifacts(t *testing.T) {
	w := newWorld(t)
	many := make([]*pipepb.ArtifactInformation, 1000)
	for i := range many {
		many[i] = fileInfo(fmt.Sprintf("/jars/%d.jar", i), "", fmt.Sprintf("../%d.jar", i))
	}
	w.staging.Begin("token", deps{"env": many})
	err := (&sdk{name: "java"}).offer(t.Context(), w.conn, "token")
	wantError(t, err, "/jars/0.jar", "leaves the harness's folder", "more lines; the server's log has all of them")
	if n := len(status.Convert(err).Message()); n > 8<<10 {
		t.Errorf("the message has %d bytes", n)
	}
}

func TestUnknownToken(t *testing.T) {
	w := newWorld(t)
	err := (&sdk{}).offer(t.Context(), w.conn, "nobody's")
	wantError(t, err, `no job is being prepared under staging token "nobody's"`)
	_, err = w.staging.Resolved(t.Context(), "nobody's")
	wantError(t, err, `no job is being prepared under staging token "nobody's"`)
	w.staging.Begin("token", deps{"env": nil})
	w.staging.Forget("token")
	if err := (&sdk{}).offer(t.Context(), w.conn, "token"); err == nil {
		t.Error("a forgotten token was taken")
	}
}

// half opens a stream, answers the resolution, sends half an artifact, and stops there.
func (w *world) half(ctx context.Context, token string) jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceClient {
	w.t.Helper()
	stream, err := jobpb.NewArtifactStagingServiceClient(w.conn).ReverseArtifactRetrievalService(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	send := func(m *jobpb.ArtifactResponseWrapper) {
		w.t.Helper()
		if err := stream.Send(m); err != nil {
			w.t.Fatal(err)
		}
	}
	send(&jobpb.ArtifactResponseWrapper{StagingToken: token})
	request, err := stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	send(&jobpb.ArtifactResponseWrapper{Response: resolved(request.GetResolveArtifact().GetArtifacts())})
	if _, err := stream.Recv(); err != nil {
		w.t.Fatal(err)
	}
	send(&jobpb.ArtifactResponseWrapper{Response: chunk(random(1000, 1))})
	return stream
}

func TestClientLeavesInTheMiddle(t *testing.T) {
	for name, leave := range map[string]func(jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceClient, func()) string{
		"vanishes": func(_ jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceClient, cancel func()) string {
			cancel()
			return "the client went away"
		},
		"closes": func(s jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceClient, _ func()) string {
			if err := s.CloseSend(); err != nil {
				t.Error(err)
			}
			return "after 1000 bytes: the client closed the stream"
		},
		"answers something else": func(s jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceClient, _ func()) string {
			if err := s.Send(&jobpb.ArtifactResponseWrapper{Response: resolved(nil)}); err != nil {
				t.Error(err)
			}
			return "but answered with a *jobmanagement_v1.ArtifactResponseWrapper_ResolveArtifactResponse"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.staging.Begin("token", deps{"env": {fileInfo("/sdk/f.jar", "", "f")}})
			want := leave(w.half(ctx, "token"), cancel)
			_, err := w.staging.Resolved(t.Context(), "token")
			wantError(t, err, "staging failed", `environment "env": artifact /sdk/f.jar as "f"`, want)
			w.holds()
		})
	}
}

// A job that is cancelled while it stages does not keep the stream.
func TestForgetEndsTheStream(t *testing.T) {
	w := newWorld(t)
	w.staging.Begin("token", deps{"env": {fileInfo("/f", "", "f")}})
	stream := w.half(t.Context(), "token")
	w.staging.Forget("token")
	_, err := stream.Recv()
	wantError(t, err, `the job of staging token "token" is gone: it was cancelled`)
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the code is %v", status.Code(err))
	}
	w.holds()
}

// A client that begins again, while the server still waits on its first stream, is served.
func TestSecondStreamTakesOver(t *testing.T) {
	w := newWorld(t)
	content := random(5000, 1)
	w.staging.Begin("token", deps{"env": {fileInfo("/f", "", "f")}})
	first := w.half(t.Context(), "token")
	if err := (&sdk{files: map[string][]byte{"/f": content}, chunk: 100}).offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	_, err := first.Recv()
	wantError(t, err, "the client began again on another stream")
	w.wantResolved("token", deps{"env": {stagedInfo(content, "f")}})
	w.holds(content)
}

// Resolved waits for staging under way, as long as its caller does.
func TestResolvedWaits(t *testing.T) {
	w := newWorld(t)
	w.staging.Begin("token", deps{"env": {fileInfo("/sdk/f", "", "f")}})
	stream := w.half(t.Context(), "token")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := w.staging.Resolved(ctx, "token")
	wantError(t, err, "staging is still under way", `asked to send artifact /sdk/f (type`, "deadline exceeded")

	done := make(chan error)
	go func() {
		_, err := w.staging.Resolved(t.Context(), "token")
		done <- err
	}()
	if err := stream.Send(&jobpb.ArtifactResponseWrapper{IsLast: true, Response: chunk([]byte("the rest"))}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.holds(append(random(1000, 1), "the rest"...))
}

// Staging in which nothing moves is given up by Resolved, with a message that says where it stands.
func TestStagingStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAttempt(t.Context())
		defer a.cancel(nil)
		a.asks("send artifact x")
		done := make(chan error)
		go func() { done <- a.wait(t.Context()) }()
		time.Sleep(patience - time.Second) // the bubble's clock: nothing waits
		a.moves(7)
		time.Sleep(patience - time.Second)
		select {
		case err := <-done:
			t.Fatalf("given up %v after it moved: %v", patience-time.Second, err)
		default:
		}
		wantError(t, <-done, "staging stands still: the client was asked to send artifact x and has sent 7 bytes of it, the last 5m0s ago")
	})
}

// Many artifacts make several resolve requests, each of which fits into what any client takes.
func TestManyArtifacts(t *testing.T) {
	w := newWorld(t)
	w.put(nil)
	var infos []*pipepb.ArtifactInformation
	for i := range 4000 {
		name := fmt.Sprintf("%s/%d.jar", strings.Repeat("long", 100), i)
		infos = append(infos, fileInfo(name, sum(nil), name))
	}
	requests := 0
	client := &sdk{name: "python", resolve: func(infos []*pipepb.ArtifactInformation) []*pipepb.ArtifactInformation {
		requests++
		return infos
	}}
	w.staging.Begin("token", deps{"env": infos})
	if err := client.offer(t.Context(), w.conn, "token"); err != nil {
		t.Fatal(err)
	}
	if requests < 2 {
		t.Errorf("%d requests", requests)
	}
	got, err := w.staging.Resolved(t.Context(), "token")
	if err != nil || len(got["env"]) != len(infos) {
		t.Errorf("%d of %d artifacts, %v", len(got["env"]), len(infos), err)
	}
	for i, info := range got["env"] {
		if !bytes.Equal(info.GetRolePayload(), infos[i].GetRolePayload()) {
			t.Fatalf("number %d is %s, want %s", i, describe(info), describe(infos[i]))
		}
	}
}

// A large artifact passes through in chunks: what is live at any time does not grow with its size.
func TestStagingTakesLittleMemory(t *testing.T) {
	w := newWorld(t)
	w.staging.Begin("token", deps{"env": {fileInfo("/f", "", "f")}})
	stream := w.half(t.Context(), "token")
	live := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // pools give up their buffers at the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	data := bytes.Repeat([]byte("x"), 2<<20)
	before := live()
	for i := range 48 {
		if err := stream.Send(&jobpb.ArtifactResponseWrapper{Response: chunk(data)}); err != nil {
			t.Fatal(err)
		}
		if i%16 == 15 {
			if now := live(); now > before+24<<20 {
				t.Errorf("after %d MB, %d MB are live", (i+1)*2, (now-before)>>20)
			}
		}
	}
	if err := stream.Send(&jobpb.ArtifactResponseWrapper{IsLast: true, Response: chunk(nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
}
