package blob_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"trestle/internal/store/blob"
	"trestle/test/cluster"
	"trestle/test/cluster/storage"
)

// realHost is a host for a real store. `make unit` says where the programs are.
func realHost(t *testing.T, software string) *cluster.Host {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir(), Hosts: []string{"storage"}, Software: []string{software}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Tails())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.Host("storage")
}

func TestRealS3(t *testing.T) {
	program := os.Getenv("TRESTLE_TEST_S3")
	if program == "" {
		t.Skip("TRESTLE_TEST_S3 names no S3 server")
	}
	h := realHost(t, program)
	server, err := storage.StartS3(t.Context(), h, program, "bucket")
	if err != nil {
		t.Fatal(err)
	}
	key, secret, region := server.Credentials()
	t.Setenv("AWS_ENDPOINT_URL", server.Endpoint())
	t.Setenv("AWS_REGION", region)
	t.Setenv("AWS_ACCESS_KEY_ID", key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	location := server.URL("a/path")
	where := location + "?endpoint=" + server.Endpoint()
	testBucket(t, open(t, location), where)
	testProbes(t, location, where)

	t.Run("read-only", func(t *testing.T) {
		// The same bucket, by another server.
		address := fmt.Sprintf("%v:7071", h.IP)
		_, err := h.Start(cluster.Command{Name: "s3-read-only", Env: []string{"ROOT_ACCESS_KEY=" + key, "ROOT_SECRET_KEY=" + secret},
			Argv: []string{program, "--port", address, "--region", region, "--readonly", "posix", filepath.Join(h.Dir(), "s3")}})
		if err != nil {
			t.Fatal(err)
		}
		readOnly := location + "?endpoint=http://" + address
		var b blob.Bucket
		await(t, func() error {
			b, err = blob.Open(t.Context(), readOnly, blob.Options{})
			return err
		})
		defer b.Close()
		write(t, open(t, location), "there", "x")
		if got := string(read(t, b, "there")); got != "x" {
			t.Errorf("read %q", got)
		}
		err = b.Write(t.Context(), "k", strings.NewReader("x"))
		if !blob.IsDenied(err) {
			t.Errorf("a write said %v", err)
		}
		wantFinding(t, blob.ProbeWriter(t.Context(), readOnly), "staging store "+readOnly+": tried from host "+host(t)+" to write",
			": failed after ", "permission denied (give them in the environment, as AWS_ACCESS_KEY_ID")
	})
	t.Run("with the wrong key", func(t *testing.T) {
		t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
		_, err := blob.Open(t.Context(), location, blob.Options{})
		if !blob.IsDenied(err) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("got %v", err)
		}
	})
	testFaults(t, location, where, server.Process())
}

func TestRealGCS(t *testing.T) {
	program := os.Getenv("TRESTLE_TEST_GCS")
	if program == "" {
		t.Skip("TRESTLE_TEST_GCS names no server of Google Cloud Storage's API")
	}
	h := realHost(t, program)
	address := fmt.Sprintf("%v:7072", h.IP)
	folder := filepath.Join(h.Dir(), "gcs")
	if err := os.MkdirAll(h.Outside(filepath.Join(folder, "bucket")), 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := h.Start(cluster.Command{Name: "gcs", Argv: []string{program, "-scheme", "http", "-host", h.IP.String(), "-port", "7072",
		"-public-host", address, "-external-url", "http://" + address, "-filesystem-root", folder}})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("STORAGE_EMULATOR_HOST", address)
	const location = "gs://bucket/a/path"
	await(t, func() error {
		b, err := blob.Open(t.Context(), location, blob.Options{})
		if err == nil {
			err = b.Close()
		}
		return err
	})
	testBucket(t, open(t, location), location)
	testProbes(t, location, location)
	testFaults(t, location, location, server)
}

func TestRealHDFS(t *testing.T) {
	lib := os.Getenv("TRESTLE_TEST_HADOOP")
	if lib == "" {
		t.Skip("TRESTLE_TEST_HADOOP names no folder with Hadoop's jars")
	}
	h := realHost(t, lib)
	server, err := storage.StartHDFS(t.Context(), h, lib)
	if err != nil {
		t.Fatal(err)
	}
	location := "hdfs://" + h.IP.String() + ":8020/a/path"
	testBucket(t, open(t, location), location)
	testProbes(t, location, location)
	t.Run("as another user", func(t *testing.T) {
		write(t, open(t, location), "there", "x")
		t.Setenv("HADOOP_USER_NAME", "nobody-else")
		b := open(t, location)
		if got := string(read(t, b, "there")); got != "x" {
			t.Errorf("read %q", got)
		}
		if err := b.Write(t.Context(), "k", strings.NewReader("x")); !blob.IsDenied(err) {
			t.Errorf("a write said %v", err)
		}
		wantFinding(t, blob.ProbeWriter(t.Context(), location), "permission denied to user nobody-else (say the user in the environment, as HADOOP_USER_NAME)")
	})
	t.Run("read-only", func(t *testing.T) {
		mode := func(verb string) {
			if _, err := h.Run(t.Context(), hadoop(h, lib, "dfsadmin", "org.apache.hadoop.hdfs.tools.DFSAdmin", "-fs", location, "-safemode", verb)); err != nil {
				t.Fatal(err)
			}
		}
		mode("enter")
		defer mode("leave")
		wantFinding(t, blob.ProbeWriter(t.Context(), location), location, host(t), "failed after ", "safe mode")
	})
	testFaults(t, location, location, server.Process())
	t.Run("no such directory", func(t *testing.T) {
		wantFinding(t, blob.ProbeReader(t.Context(), location+"/none", ""), "there is no directory /a/path/none")
	})
}

// hadoop is a command of Hadoop's on its host.
func hadoop(h *cluster.Host, lib, name, class string, arguments ...string) cluster.Command {
	return cluster.Command{Name: name, Argv: append([]string{"java", "-XX:TieredStopAtLevel=1", "-cp",
		filepath.Join(h.Dir(), "hdfs") + ":" + filepath.Join(lib, "*"), class}, arguments...)}
}

func wantFinding(t *testing.T, f blob.Finding, want ...string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(f.String(), part) || strings.Contains(f.String(), "\n") {
			t.Errorf("found %q; want %q in it, in one line", f, part)
		}
	}
}

func testProbes(t *testing.T, location, where string) {
	t.Run("probes", func(t *testing.T) {
		wantFinding(t, blob.ProbeWriter(t.Context(), location), "staging store "+where+": tried from host "+host(t)+
			" to write, read back and delete a small object: it works, in ")
		b := open(t, location)
		key, err := blob.Mark(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		wantFinding(t, blob.ProbeReader(t.Context(), location, key), "to read what the job server wrote there: it works, in ")
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		f := blob.ProbeReader(t.Context(), location, key)
		wantFinding(t, f, "failed after ", "not found: it is another store than the job server's")
		if got := list(t, b, "probe/"); len(got) > 0 {
			t.Errorf("probes left %v", got)
		}
	})
}

// testFaults is what becomes of a bucket whose server hangs, and is killed, in the middle of a write or between.
func testFaults(t *testing.T, location, where string, server *cluster.Process) {
	const patience = 5 * time.Second // a JVM on a busy machine has stood still for seconds
	b, err := blob.Open(t.Context(), location, blob.Options{Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	write(t, b, "kept", "whole")
	says := func(t *testing.T, err error, want ...string) {
		t.Helper()
		for _, part := range append(want, where, "from host "+host(t)) {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("got %v; want %q in it", err, part)
			}
		}
	}
	// writeUntil writes 12 MiB of which the last come after the fault.
	writeUntil := func(t *testing.T, fault func() error) error {
		source := io.MultiReader(bytes.NewReader(make([]byte, 8<<20)), &then{do: fault}, bytes.NewReader(make([]byte, 4<<20)))
		return b.Write(t.Context(), "half", source)
	}
	t.Run("the server hangs", func(t *testing.T) {
		stop := func() error { return server.Signal(syscall.SIGSTOP) }
		resume := func() {
			if err := server.Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}
		begin := time.Now()
		err := writeUntil(t, stop)
		says(t, err, "nothing has moved for "+patience.String())
		_, err = b.Stat(t.Context(), "kept")
		says(t, err, `stat "kept"`, "nothing has moved for "+patience.String())
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		resume()
		if got := string(read(t, b, "kept")); got != "whole" {
			t.Errorf("afterwards %q", got)
		}
		if _, err := b.Stat(t.Context(), "half"); !blob.IsNotFound(err) {
			t.Errorf("of the half object there is: %v", err)
		}
	})
	t.Run("the server is killed", func(t *testing.T) {
		says(t, writeUntil(t, server.Kill))
		_, _, err := b.Open(t.Context(), "kept")
		says(t, err, `read "kept"`)
		_, err = blob.Open(t.Context(), location, blob.Options{Patience: patience})
		says(t, err, "open bucket")
		again, err := server.Restart()
		if err != nil {
			t.Fatal(err)
		}
		// The same bucket goes on with the new server.
		await(t, func() error {
			if !again.Running() {
				return fmt.Errorf("it ended: %w", again.Err())
			}
			_, err := b.Stat(t.Context(), "kept")
			return err
		})
		if _, err := b.Stat(t.Context(), "half"); !blob.IsNotFound(err) {
			t.Errorf("of the half object there is: %v", err)
		}
	})
}

// then is an empty reader that does something when it is read.
type then struct{ do func() error }

func (r *then) Read([]byte) (int, error) {
	if err := r.do(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// await tries until it works.
func await(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}
