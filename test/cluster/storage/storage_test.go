package storage

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trestle/test/cluster"
)

// The stores, proved by themselves: what this process puts there, and another host's client reads. `make unit` says where
// their programs are.
func TestStores(t *testing.T) {
	gateway, hadoop := os.Getenv("TRESTLE_TEST_S3"), os.Getenv("TRESTLE_TEST_HADOOP")
	if gateway == "" || hadoop == "" {
		t.Skip("TRESTLE_TEST_S3 and TRESTLE_TEST_HADOOP name no programs")
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir(), Hosts: []string{"storage", "reader"}, Software: []string{gateway, hadoop}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(c.Tails())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	s3, err := StartS3(t.Context(), c.Host("storage"), gateway, "bucket")
	if err != nil {
		t.Fatal(err)
	}
	hdfs, err := StartHDFS(t.Context(), c.Host("storage"), hadoop)
	if err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(t.TempDir(), "file")
	content := strings.Repeat("words and words\n", 1<<16)
	if err := os.WriteFile(local, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []Store{s3, hdfs} {
		t.Run(s.URL(""), func(t *testing.T) {
			for _, path := range []string{"in/deep/file", "in/file2"} {
				if err := s.Put(t.Context(), local, path); err != nil {
					t.Fatal(err)
				}
			}
			to := t.TempDir()
			if err := Fetch(t.Context(), s, "in", to); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"file", "file2"} {
				if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != content {
					t.Errorf("%s comes back with %d bytes, error %v", name, len(got), err)
				}
			}
			if r, err := s.Get(context.WithoutCancel(t.Context()), "in/none"); err == nil {
				text, _ := io.ReadAll(r)
				t.Errorf("what is not there is read: %q", text)
			}
		})
	}
	reader := c.Host("reader")
	if err := os.WriteFile(reader.Outside(filepath.Join(reader.Dir(), "core-site.xml")), []byte("<configuration/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := reader.Run(t.Context(), cluster.Command{Name: "fsshell", Argv: []string{"java", "-cp", reader.Dir() + ":" + filepath.Join(hadoop, "*"),
		"org.apache.hadoop.fs.FsShell", "-cat", hdfs.URL("in/file2")}})
	if err != nil || out != content {
		t.Errorf("another host reads %d bytes, error %v", len(out), err)
	}
	if out, err := reader.Run(t.Context(), cluster.Command{Name: "curl", Argv: []string{"curl", "-sS", s3.Endpoint()}}); err != nil ||
		!strings.Contains(out, "AccessDenied") && !strings.Contains(out, "ListAllMyBuckets") {
		t.Errorf("to another host without a key the S3 server says %q, error %v", out, err)
	}
}
