package credit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// Senders wait for what is under way, and what is larger than the credit goes alone.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(10)
		take := func(charge int64) *bool {
			taken := new(bool)
			go func() {
				if err := c.Take(t.Context(), charge); err != nil {
					t.Error(err)
				}
				*taken = true
			}()
			synctest.Wait()
			return taken
		}
		if !*take(6) || !*take(4) {
			t.Fatal("what is covered waits")
		}
		large := take(11)
		c.Give(4)
		synctest.Wait()
		if *large {
			t.Fatal("more than the credit is under way with others")
		}
		c.Give(6)
		synctest.Wait()
		if !*large {
			t.Fatal("what is larger than the credit waits though nothing is under way")
		}
		idle := make(chan error, 1)
		go func() { idle <- c.Idle(t.Context()) }()
		synctest.Wait()
		select {
		case <-idle:
			t.Fatal("idle with bytes under way")
		default:
		}
		c.Give(1 << 40) // more than is under way
		if err := <-idle; err != nil {
			t.Fatal(err)
		}
	})
}

// A sender whose context ends says why, and has taken nothing.
func TestTakeCancelled(t *testing.T) {
	c := New(10)
	if err := c.Take(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := c.Take(ctx, 1); !errors.Is(err, why) {
		t.Errorf("Take: %v", err)
	}
	if err := c.Idle(ctx); !errors.Is(err, why) {
		t.Errorf("Idle: %v", err)
	}
	c.Give(10)
	if err := c.Idle(t.Context()); err != nil {
		t.Error(err)
	}
}
