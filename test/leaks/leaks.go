// Package leaks finds goroutines that tests have left. goleak gives those that are about to end half a second, which a
// goroutine may wait for its turn on a machine that others keep busy; here they have longer, and only what stays is a leak.
package leaks

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines have to end.
const patience = 30 * time.Second

// Find is goleak's, with more patience.
func Find(options ...goleak.Option) error { return find(patience, options...) }

func find(patience time.Duration, options ...goleak.Option) error {
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find(options...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// None fails a test that has left goroutines.
func None(t testing.TB, options ...goleak.Option) {
	t.Helper()
	if err := Find(options...); err != nil {
		t.Error(err)
	}
}

// Main is a package's TestMain: it fails when tests that were successful have left goroutines. What is to be ended after
// all tests is ended last. It does not return.
func Main(m goleak.TestingM, end ...func() error) {
	code := m.Run()
	if code == 0 {
		if err := Find(); err != nil {
			fmt.Fprintln(os.Stderr, "the tests have left goroutines:", err)
			code = 1
		}
	}
	for _, f := range end {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
