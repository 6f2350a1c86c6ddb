package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"trestle/internal/store/blob"
)

func (w *world) put(content []byte) Digest {
	w.t.Helper()
	d, err := w.store.Put(w.t.Context(), bytes.NewReader(content), "")
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) open(sha256 string) ([]byte, error) {
	r, size, err := w.store.Open(w.t.Context(), sha256)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	if err == nil && int64(len(content)) != size {
		w.t.Errorf("Open said %d bytes, and gave %d", size, len(content))
	}
	return content, errors.Join(err, r.Close())
}

func TestPutAndOpen(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{0, 1, 3 << 20} {
		content := random(size, 1)
		d := w.put(content)
		if want := (Digest{SHA256: sum(content), Size: int64(size)}); d != want {
			t.Errorf("got %v, want %v", d, want)
		}
		got, err := w.open(d.SHA256)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("got %d bytes, %v; want %d", len(got), err, size)
		}
		if found, err := w.store.Stat(t.Context(), strings.ToUpper(d.SHA256)); err != nil || found != d {
			t.Errorf("Stat: %v, %v", found, err)
		}
	}
}

func TestPutSameContentOnce(t *testing.T) {
	w := newWorld(t)
	content := random(2<<20, 1)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := w.store.Put(t.Context(), bytes.NewReader(content), sum(content)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(w.bucket.writes); n != 1 {
		t.Errorf("written %d times", n)
	}
	w.holds(content)
}

func TestPutThatFailsLeavesNothing(t *testing.T) {
	content := random(1<<20, 1)
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no longer wanted"))
	broken := io.MultiReader(bytes.NewReader(content), iotest.ErrReader(errors.New("the line broke")))
	for _, c := range []struct {
		name string
		ctx  context.Context
		r    io.Reader
		want string
		fail error
		text []string
	}{
		{name: "wrong hash", r: bytes.NewReader(content), want: sum(nil),
			text: []string{"sha256 mismatch", "the 1048576 bytes", sum(content), sum(nil)}},
		{name: "not a hash", r: bytes.NewReader(content), want: "abc", text: []string{`"abc" is not a sha256`}},
		{name: "broken source", r: broken, text: []string{"the line broke"}},
		{name: "cancelled", ctx: cancelled, r: bytes.NewReader(content), text: []string{"no longer wanted"}},
		{name: "bucket fails", r: bytes.NewReader(content), fail: errors.New("bucket is full"), text: []string{"bucket is full"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.bucket.failing = c.fail
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			_, err := w.store.Put(c.ctx, c.r, c.want)
			wantError(t, err, append(c.text, "store artifact: ")...)
			w.holds()
		})
	}
}

func TestScratchThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bucket, err := blob.Open(t.Context(), "mem://", blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	_, err = NewStore(bucket, file).Put(t.Context(), strings.NewReader("x"), "")
	wantError(t, err, "scratch folder for artifacts", file, "not a directory")
}

func TestOpenWhatIsNotThere(t *testing.T) {
	w := newWorld(t)
	_, err := w.open(sum(nil))
	wantError(t, err, "open artifact "+sum(nil), "not found")
	if !blob.IsNotFound(err) {
		t.Error("it is not marked as not found")
	}
	for _, name := range []string{"", "../../etc/passwd", strings.Repeat("z", 64), sum(nil) + "00"} {
		_, err := w.open(name)
		wantError(t, err, fmt.Sprintf("%q is not a sha256", name))
	}
}

// Stored bytes that are no longer right are noticed by the reader, and replaced by the next Put.
func TestDamagedArtifact(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"changed":   func(b []byte) []byte { b[7]++; return b },
		"cut short": func(b []byte) []byte { return b[:100] },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			content := random(1000, 1)
			d := w.put(content)
			if err := os.WriteFile(files(t, w.dir)[0], damage(bytes.Clone(content)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := w.open(d.SHA256)
			wantError(t, err, "sha256 mismatch", "artifact "+d.SHA256)
			if !errors.Is(err, ErrMismatch) {
				t.Error("it is not marked as a mismatch")
			}
			if _, err := w.store.Stat(t.Context(), d.SHA256); !blob.IsNotFound(err) {
				t.Errorf("Stat: %v", err)
			}
			w.put(content)
			if got, err := w.open(d.SHA256); err != nil || !bytes.Equal(got, content) {
				t.Errorf("after another Put: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestPutTakesLittleMemory(t *testing.T) {
	w := newWorld(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const size = 64 << 20
	d, err := w.store.Put(t.Context(), io.LimitReader(zeros{}, size), "")
	if err != nil || d.Size != size {
		t.Fatal(d, err)
	}
	r, _, err := w.store.Open(t.Context(), d.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); err != nil || n != size {
		t.Fatal(n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated for an artifact of %d", grown, size)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// killedHelper is set in the process that TestKilledInTheMiddle kills; it has the world's two folders.
const killedHelper = "TRESTLE_TEST_PUT_UNTIL_KILLED"

func putUntilKilled() {
	dir, scratch, _ := strings.Cut(os.Getenv(killedHelper), "|")
	bucket, err := blob.Open(context.Background(), dir, blob.Options{})
	if err != nil {
		panic(err)
	}
	_, err = NewStore(bucket, scratch).Put(context.Background(), os.Stdin, "")
	panic(fmt.Sprint("the process should have been killed before this: ", err))
}

// A server that is killed in the middle of a transfer leaves nothing; and what one left that was killed in the instant in
// which a scratch file has a name, the next one sweeps, and nothing else.
func TestKilledInTheMiddle(t *testing.T) {
	w := newWorld(t)
	content := random(1000, 1)
	w.put(content)
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), killedHelper+"="+w.dir+"|"+w.scratch)
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	// This is more than a pipe holds: when it is written, some of it has been read, and so Put is at work.
	if _, err := input.Write(random(1<<20, 2)); err != nil {
		t.Fatal(err)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatal(err)
	}
	w.holds(content)

	leftover, bystander := filepath.Join(w.scratch, "incoming-1.artifact"), filepath.Join(w.scratch, "notes.txt")
	for _, path := range []string{leftover, bystander} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	NewStore(w.bucket, w.scratch)
	if left := files(t, w.scratch); len(left) != 1 || left[0] != bystander {
		t.Errorf("after the sweep: %v", left)
	}
}

// A Put that waits for another's write of the same content gives up with its own context, not with the other's.
func TestPutWaitsNoLongerThanItsContext(t *testing.T) {
	w := newWorld(t)
	release, err := w.store.claim(t.Context(), sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = w.store.Put(ctx, strings.NewReader(""), "")
	wantError(t, err, "deadline exceeded")
	release()
	w.put(nil)
	w.holds(nil)
}

// The same over a bucket that is no folder: an S3-compatible server.
func TestStoreInS3(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	backend := s3mem.New()
	if err := backend.CreateBucket("artifacts"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	defer server.Close()
	bucket, err := blob.Open(t.Context(), "s3://artifacts?region=us-east-1&use_path_style=true&endpoint="+server.URL, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	w := &world{t: t, store: NewStore(bucket, t.TempDir())}
	content := random(6<<20, 1)
	if _, err := w.store.Stat(t.Context(), sum(content)); !blob.IsNotFound(err) {
		t.Errorf("before: %v", err)
	}
	d := w.put(content)
	w.put(content)
	if got, err := w.open(d.SHA256); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := w.store.Put(t.Context(), strings.NewReader("x"), d.SHA256); !errors.Is(err, ErrMismatch) {
		t.Errorf("wrong hash: %v", err)
	}
	var keys []string
	for object, err := range bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, object.Key)
	}
	if len(keys) != 1 || keys[0] != "artifacts/"+d.SHA256 {
		t.Errorf("the bucket holds %v", keys)
	}
}
