package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"trestle/internal/store/blob"
)

// testBucket is what every bucket must do, whatever holds its bytes. The bucket is empty; where is in its errors.
func testBucket(t *testing.T, b blob.Bucket, where string) {
	ctx := t.Context()
	t.Run("an object comes back as it was written", func(t *testing.T) {
		// Larger than a part of an S3 upload (5 MiB), so that it travels in several.
		large := make([]byte, 11<<20)
		chacha := rand.NewChaCha8([32]byte{1})
		chacha.Read(large)
		for key, content := range map[string][]byte{
			"empty": {}, "small": []byte("abc"), "deep/er/large": large, "odd name +%20&?#ü": []byte("x"),
		} {
			if err := b.Write(ctx, key, iotest.HalfReader(bytes.NewReader(content))); err != nil {
				t.Fatal(err)
			}
			if size, err := b.Stat(ctx, key); err != nil || size != int64(len(content)) {
				t.Errorf("Stat(%q) = %d, %v; want %d", key, size, err, len(content))
			}
			if got := read(t, b, key); !bytes.Equal(got, content) {
				t.Errorf("%q came back with %d bytes that are not the %d written", key, len(got), len(content))
			}
			if err := b.Delete(ctx, key); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a write replaces", func(t *testing.T) {
		write(t, b, "k", "first, and longer")
		write(t, b, "k", "second")
		if got := string(read(t, b, "k")); got != "second" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("what is not there is not found", func(t *testing.T) {
		_, statErr := b.Stat(ctx, "absent")
		_, _, openErr := b.Open(ctx, "absent")
		for operation, err := range map[string]error{"stat": statErr, "read": openErr} {
			want := fmt.Sprintf("%s %q in bucket %s from host %s: not found", operation, "absent", where, host(t))
			if !blob.IsNotFound(err) || err.Error() != want {
				t.Errorf("got %v\nwant %s", err, want)
			}
		}
		if err := b.Delete(ctx, "absent"); err != nil {
			t.Errorf("deleting nothing: %v", err)
		}
	})
	t.Run("a write that fails changes nothing", func(t *testing.T) {
		write(t, b, "kept", "before")
		broken := errors.New("the source broke")
		for _, key := range []string{"kept", "never"} {
			source := io.MultiReader(strings.NewReader(strings.Repeat("x", 6<<20)), iotest.ErrReader(broken))
			if err := b.Write(ctx, key, source); !errors.Is(err, broken) || !strings.Contains(err.Error(), where) {
				t.Errorf("got %v, want one about the source and %s", err, where)
			}
		}
		cancelled, cancel := context.WithCancel(ctx)
		cancel()
		if err := b.Write(cancelled, "never", strings.NewReader("x")); err == nil {
			t.Error("a write under a cancelled context succeeded")
		}
		if got := string(read(t, b, "kept")); got != "before" {
			t.Errorf("kept is now %.20q", got)
		}
		if _, err := b.Stat(ctx, "never"); !blob.IsNotFound(err) {
			t.Errorf("never: %v", err)
		}
	})
	t.Run("listing by prefix", func(t *testing.T) {
		for _, key := range []string{"list/b", "list/a/2", "list/a/1", "list/ab", "lis"} {
			write(t, b, key, key)
		}
		for prefix, want := range map[string][]blob.Object{
			"list/":  {{Key: "list/a/1", Size: 8}, {Key: "list/a/2", Size: 8}, {Key: "list/ab", Size: 7}, {Key: "list/b", Size: 6}},
			"list/a": {{Key: "list/a/1", Size: 8}, {Key: "list/a/2", Size: 8}, {Key: "list/ab", Size: 7}},
			"zzz":    nil,
		} {
			if diff := cmp.Diff(want, list(t, b, prefix)); diff != "" {
				t.Errorf("List(%q) (-want +got):\n%s", prefix, diff)
			}
		}
		for range b.List(ctx, "list/") {
			break // a walk may be left
		}
	})
	t.Run("concurrent writers of one key", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if err := b.Write(ctx, "race", strings.NewReader(strings.Repeat(fmt.Sprint(i), 1000))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got := string(read(t, b, "race"))
		if len(got) != 1000 || got != strings.Repeat(got[:1], 1000) {
			t.Errorf("the object is a mixture: %.40q…", got)
		}
	})
	t.Run("keys that no bucket takes", func(t *testing.T) {
		for _, key := range []string{"", "/abs", "a//b", "a/", "../up", "a/../../b", "./a", "a\x00b", "x.tmp", "x.attrs"} {
			_, statErr := b.Stat(ctx, key)
			_, _, openErr := b.Open(ctx, key)
			for operation, err := range map[string]error{
				"stat": statErr, "read": openErr, "delete": b.Delete(ctx, key), "write": b.Write(ctx, key, strings.NewReader("")),
			} {
				if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s %q in bucket %s from host %s: invalid key", operation, key, where, host(t))) {
					t.Errorf("got %v", err)
				}
			}
		}
	})
}

func host(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func write(t *testing.T, b blob.Bucket, key, content string) {
	t.Helper()
	if err := b.Write(t.Context(), key, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, b blob.Bucket, key string) []byte {
	t.Helper()
	r, size, err := b.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || size != int64(len(got)) {
		t.Errorf("%q: read %d bytes of %d: %v", key, len(got), size, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return got
}

func list(t *testing.T, b blob.Bucket, prefix string) []blob.Object {
	t.Helper()
	var objects []blob.Object
	for object, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, object)
	}
	return objects
}
