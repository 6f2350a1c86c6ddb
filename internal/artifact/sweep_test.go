package artifact_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"trestle/internal/artifact"
	"trestle/internal/store/blob"
)

// sweptStore is a store over a bucket in which an earlier process has put some artifacts.
func sweptStore(t *testing.T, artifacts ...string) (*artifact.Store, blob.Bucket) {
	t.Helper()
	bucket, err := blob.Open(t.Context(), t.TempDir(), blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bucket.Close(); err != nil {
			t.Error(err)
		}
	})
	earlier := artifact.NewStore(bucket, filepath.Join(t.TempDir(), "earlier"))
	for _, a := range artifacts {
		if _, err := earlier.Put(t.Context(), strings.NewReader(a), ""); err != nil {
			t.Fatal(err)
		}
	}
	return artifact.NewStore(bucket, filepath.Join(t.TempDir(), "scratch")), bucket
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// TestSweep removes what no job was given and nobody has used since, and nothing else of the bucket.
func TestSweep(t *testing.T) {
	start := time.Now()
	s, bucket := sweptStore(t, "given to a job", "found since", "put again since", "of no job")
	for _, key := range []string{"artifacts/readme", "other/" + digestOf("of no job")} {
		if err := bucket.Write(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Stat(t.Context(), digestOf("found since")); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"put again since", "put since"} {
		if _, err := s.Put(t.Context(), strings.NewReader(a), ""); err != nil {
			t.Fatal(err)
		}
	}
	keep := map[string]bool{digestOf("given to a job"): true}
	swept, err := s.Sweep(t.Context(), keep, start)
	if want := (artifact.Swept{Artifacts: 1, Bytes: 9}); err != nil || swept != want {
		t.Errorf("swept %+v, %v; want %+v", swept, err, want)
	}
	if _, err := s.Stat(t.Context(), digestOf("of no job")); !blob.IsNotFound(err) {
		t.Errorf("of no job: %v", err)
	}
	// What was used is in use no more; but for what was just looked for.
	s.Unused(time.Now())
	swept, err = s.Sweep(t.Context(), keep, time.Now())
	if want := (artifact.Swept{Artifacts: 3, Bytes: 11 + 15 + 9}); err != nil || swept != want {
		t.Errorf("swept %+v, %v; want %+v", swept, err, want)
	}
	var left []string
	for object, err := range bucket.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, object.Key)
	}
	if want := fmt.Sprint([]string{"artifacts/" + digestOf("given to a job"), "artifacts/readme", "other/" + digestOf("of no job")}); fmt.Sprint(left) != want {
		t.Errorf("left: %v; want %v", left, want)
	}
}

// TestSweepBesideStaging: an artifact that was found, or put, is there from then on, whatever a sweep does meanwhile.
func TestSweepBesideStaging(t *testing.T) {
	start := time.Now()
	var all []string
	for i := range 200 {
		all = append(all, fmt.Sprint("artifact ", i))
	}
	s, _ := sweptStore(t, all...)
	var found, sent, swept int
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		got, err := s.Sweep(t.Context(), nil, start)
		if err != nil {
			t.Error(err)
		}
		swept = got.Artifacts
	})
	for i := len(all) - 1; i >= 0; i-- { // the sweep comes from the other end
		digest := digestOf(all[i])
		_, err := s.Stat(t.Context(), digest)
		switch {
		case err == nil:
			found++
		case blob.IsNotFound(err):
			sent++
			if _, err := s.Put(t.Context(), strings.NewReader(all[i]), digest); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatal(err)
		}
		r, _, err := s.Open(t.Context(), digest)
		if err != nil {
			t.Fatalf("an artifact was removed that had been found: %v", err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != all[i] {
			t.Errorf("read %q, %v", b, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	sweeping.Wait()
	t.Logf("%d were found, %d sent again; %d were swept", found, sent, swept)
	if swept != sent {
		t.Errorf("%d were swept, and %d sent again", swept, sent)
	}
	for _, a := range all {
		if _, err := s.Stat(t.Context(), digestOf(a)); err != nil {
			t.Error(err)
		}
	}
}
