package local

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
	"time"

	"trestle/internal/engine/local/streaming"
	"trestle/internal/harness"
)

// Restarts are bounded within a time, and each waits longer; what would only fail again is not tried again.
func TestRestartsAreBounded(t *testing.T) {
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	gone := fmt.Errorf("stage: %w", &harness.Exit{Worker: "w"})
	now := time.Unix(1000, 0)
	try := func(r *restarts, err error, snapshot uint64, wantPause time.Duration, want bool) {
		t.Helper()
		pause, ok := r.another(now, err, snapshot)
		if ok != want || pause != wantPause {
			t.Errorf("after %v: %v, %t; should be %v, %t", err, pause, ok, wantPause, want)
		}
	}
	r := newRestarts(Restarts{Limit: 4})
	try(&r, full, 1, 1*time.Second, true)
	try(&r, full, 1, 2*time.Second, true)
	try(&r, gone, 1, 4*time.Second, true)
	try(&r, gone, 1, 8*time.Second, true)
	try(&r, gone, 2, 0, false)
	now = now.Add(r.Window + time.Second) // all are forgotten
	try(&r, gone, 2, 1*time.Second, true)

	// A worker that cannot be had was had by a job that has taken a snapshot; one without never had any.
	unstarted := fmt.Errorf("stage: %w", &harness.StartError{Environment: "e", Err: errors.New("no such image")})
	r = newRestarts(Restarts{})
	try(&r, unstarted, 0, 1*time.Second, true)
	try(&r, unstarted, 0, 0, false)
	r = newRestarts(Restarts{})
	try(&r, unstarted, 3, 1*time.Second, true)
	try(&r, unstarted, 3, 2*time.Second, true)
	denied := fmt.Errorf("snapshot: %w", &fs.PathError{Op: "open", Path: "manifest", Err: syscall.EACCES})
	r = newRestarts(Restarts{})
	try(&r, denied, 3, 1*time.Second, true)
	try(&r, denied, 3, 2*time.Second, true)

	r = newRestarts(Restarts{})
	own := errors.New("the runner's own")
	try(&r, own, 1, 1*time.Second, true)
	try(&r, own, 1, 0, false)
	r = newRestarts(Restarts{})
	try(&r, own, 1, 1*time.Second, true)
	try(&r, own, 2, 2*time.Second, true) // it had got further
	try(&r, fmt.Errorf("%w: damaged", streaming.ErrRestore), 3, 0, false)

	r = newRestarts(Restarts{Limit: -1})
	try(&r, full, 1, 0, false)
	r = newRestarts(Restarts{Limit: 100, Pause: time.Second})
	for range 50 {
		if pause, ok := r.another(now, full, 1); !ok || pause > longestPause || pause <= 0 {
			t.Fatalf("restart %d waits %v, %t", len(r.at), pause, ok)
		}
	}
}
