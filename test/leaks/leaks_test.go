package leaks

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestFind: a goroutine that ends later than goleak waits is no leak, one that stays is.
func TestFind(t *testing.T) {
	others := goleak.IgnoreCurrent()
	stay := make(chan struct{})
	go func() { <-stay }()
	if find(0, others) == nil {
		t.Error("a goroutine that stays is not found")
	}
	time.AfterFunc(time.Second, func() { close(stay) })
	None(t, others)
}
