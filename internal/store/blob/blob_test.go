package blob_test

import (
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	_ "gocloud.dev/blob/memblob"

	"trestle/internal/store/blob"
	"trestle/test/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func open(t *testing.T, location string) blob.Bucket {
	t.Helper()
	b, err := blob.Open(t.Context(), location, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	testBucket(t, open(t, dir), "file://"+strings.ReplaceAll(dir, " ", "%20"))
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") || strings.HasSuffix(path, ".attrs") {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) > 0 {
		t.Errorf("files that are no objects were left: %v, %v", files, err)
	}
}

func TestFolderByURL(t *testing.T) {
	dir := t.TempDir()
	write(t, open(t, "file://"+dir), "key", "by URL")
	if got := string(read(t, open(t, dir), "key")); got != "by URL" {
		t.Errorf("got %q", got)
	}
	write(t, open(t, dir+"/sub"), "key", "in sub")
	if got := string(read(t, open(t, "file://"+dir+"/sub"), "key")); got != "in sub" {
		t.Errorf("got %q", got)
	}
}

func TestMemory(t *testing.T) { testBucket(t, open(t, "mem://"), "mem:") }

func TestS3(t *testing.T) {
	location := fakeS3(t, "bucket")
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	testBucket(t, open(t, location), "s3://bucket?endpoint="+u.Query().Get("endpoint"))

	below := strings.Replace(location, "?", "/be/low/?", 1)
	testBucket(t, open(t, below), "s3://bucket/be/low?endpoint="+u.Query().Get("endpoint"))
	write(t, open(t, below), "key", "prefixed")
	if got := string(read(t, open(t, location), "be/low/key")); got != "prefixed" {
		t.Errorf("got %q", got)
	}
}

// fakeS3 starts an S3-compatible server and returns the URL of a bucket on it.
func fakeS3(t *testing.T, bucket string) string {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	return "s3://" + bucket + "?region=us-east-1&use_path_style=true&endpoint=" + server.URL
}

// What a person gets to read when a bucket cannot be opened.
func TestOpenErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string][]string{
		"":                        {"open bucket: the location is empty"},
		"nfs://host/x":            {"open bucket nfs://host/x: this build has no driver for nfs://; it has file, gs, hdfs, mem, s3"},
		"file://srv/data":         {"open bucket file://srv/data: a file URL has no host", "write file:///srv/data"},
		"s3://bucket?bogus=1":     {`open bucket s3://bucket?bogus=1: unknown query parameter "bogus"`},
		file:                      {"open bucket file://" + file, "is not a directory"},
		fakeS3(t, "other") + "&x": {"open bucket s3://other"},
		strings.Replace(fakeS3(t, "there"), "there", "absent", 1): {"open bucket s3://absent", "there is no such bucket"},
		"s3://user:secret@b?bogus=1":                              {"open bucket s3://b: credentials do not belong in the URL (user information)", "AWS_ACCESS_KEY_ID"},
		"s3://b/p?x_access_key=secret":                            {"open bucket s3://b/p: credentials do not belong in the URL (parameter x_access_key)"},
		"s3://b?prefix=a/b":                                       {"open bucket s3://b?prefix=a/b: write the prefix as the path: s3://b/a/b"},
		"hdfs:///path":                                            {"open bucket hdfs:///path: it names no NameNode"},
		"hdfs://h/p?x=1":                                          {`unknown query parameter "x"`},
		"gs://b/p?x=1":                                            {`unknown query parameter "x"`},
		"file:///shared#1":                                        {"write # as %23"},
	} {
		b, err := blob.Open(t.Context(), location, blob.Options{})
		if err == nil {
			t.Errorf("%s: opened %v", location, b)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %q, want %q in it", location, err, part)
			}
		}
		if strings.Contains(err.Error(), "=secret") || strings.Contains(err.Error(), ":secret") {
			t.Errorf("the password is in %q", err)
		}
	}
}

// A worker may be allowed to read objects and not to list them.
func TestReaderThatMayNotList(t *testing.T) {
	location := fakeS3(t, "bucket")
	write(t, open(t, location), "there", "x")
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(u.Query().Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	working := httputil.NewSingleHostReverseProxy(target)
	var denyAll atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if denyAll.Load() || r.URL.Query().Has("list-type") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		working.ServeHTTP(w, r)
	}))
	defer server.Close()
	location = "s3://bucket?endpoint=" + server.URL
	if _, err := blob.Open(t.Context(), location, blob.Options{}); !blob.IsDenied(err) {
		t.Errorf("for writing: %v", err)
	}
	b, err := blob.Open(t.Context(), location, blob.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got := string(read(t, b, "there")); got != "x" {
		t.Errorf("got %q", got)
	}
	if f := blob.ProbeReader(t.Context(), location, "there"); f.Err == nil || blob.IsDenied(f.Err) {
		t.Errorf("an object with other bytes: %v", f) // it is no probe's
	}
	if f := blob.ProbeReader(t.Context(), location, ""); f.Err != nil {
		t.Error(f)
	}
	denyAll.Store(true)
	if f := blob.ProbeReader(t.Context(), location, ""); !blob.IsDenied(f.Err) {
		t.Error(f)
	}
}

func TestDeadEndpoint(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	_, err = blob.Open(t.Context(), "s3://b?region=x&endpoint=http://"+address, blob.Options{})
	if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}

// A writer that was killed leaves a temporary file, which goes when the folder is opened next and the file is old; a
// younger one may have a living writer in another process. Neither is an object.
func TestFolderSweepsTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	write(t, b, "sub/object", "x")
	dead, alive := filepath.Join(dir, "sub", "a.1f.tmp"), filepath.Join(dir, "sub", "b.2f.tmp")
	for _, path := range []string{dead, alive} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(dead, old, old); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir)
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead writer's file is still there: %v", err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("the living writer's file is gone: %v", err)
	}
	if got := list(t, b, ""); len(got) != 1 || got[0].Key != "sub/object" {
		t.Errorf("listed %v", got)
	}
}

// While an object is being replaced, a reader sees the old one, whole.
func TestFolderReadersSeeWholeObjects(t *testing.T) {
	b := open(t, t.TempDir())
	write(t, b, "k", "old")
	r, w := io.Pipe()
	done := make(chan error)
	go func() { done <- b.Write(t.Context(), "k", r) }()
	if _, err := io.WriteString(w, "ne"); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, b, "k")); got != "old" {
		t.Errorf("in the middle of the write: %q", got)
	}
	if _, err := io.WriteString(w, "w"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, b, "k")); got != "new" {
		t.Errorf("afterwards: %q", got)
	}
}
