package worker

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"trestle/internal/harness"
)

// An environment whose harnesses do not start is tried by the engine again for some seconds, and then no more: unless one has
// started meanwhile, or somebody kills them.
func TestStartsThatFail(t *testing.T) {
	zero := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return zero.Add(time.Duration(seconds) * time.Second) }
	refused := errors.New("no such image")
	killed := &harness.Exit{Signal: syscall.SIGKILL}
	ended := &harness.Exit{Code: 1}
	type start struct {
		began, ended int // in seconds
		err          error
	}
	for name, c := range map[string]struct {
		starts []start
		final  bool // the last one; those before are not
	}{
		"the first":               {[]start{{0, 60, refused}}, false},
		"the second, soon":        {[]start{{0, 1, refused}, {2, 3, refused}}, false},
		"the second, slow":        {[]start{{0, 8, refused}, {9, 17, refused}}, true},
		"for long":                {[]start{{0, 0, ended}, {1, 1, ended}, {3, 3, ended}, {7, 7, ended}, {15, 15, ended}}, true},
		"side by side":            {[]start{{0, 16, refused}, {1, 17, refused}, {16, 17, refused}}, false},
		"with a good one between": {[]start{{0, 8, refused}, {9, 10, nil}, {11, 30, refused}}, false},
		"killed":                  {[]start{{0, 8, killed}, {9, 17, killed}, {18, 30, killed}}, false},
		"not a start":             {[]start{{0, 8, harness.ErrClosed}, {9, 17, harness.ErrClosed}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var s starts
			for i, one := range c.starts {
				err := one.err
				if err != nil && !errors.Is(err, harness.ErrClosed) {
					err = fmt.Errorf("bundle: %w", &harness.StartError{Environment: "env", Began: at(one.began), Err: err})
				}
				got := s.came("env", err, at(one.ended))
				if !errors.Is(got, one.err) {
					t.Fatalf("start %d: %v", i, got)
				}
				last := i == len(c.starts)-1
				if isFinal := got != nil && (&taskConn{}).kind(got) == final; isFinal != (last && c.final) {
					t.Errorf("start %d: final %v: %v", i, isFinal, got)
				} else if isFinal && !strings.Contains(got.Error(), "on this host that failed, in 1") {
					t.Errorf("start %d: %v", i, got)
				}
				if other := s.came("other", nil, at(one.ended)); other != nil {
					t.Errorf("another environment: %v", other)
				}
			}
		})
	}
}
