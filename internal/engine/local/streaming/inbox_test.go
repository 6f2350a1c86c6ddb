package streaming

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

func TestEventsComeBackAsTheyWere(t *testing.T) {
	for _, e := range []event{
		{kind: block, sender: 300, keyGroup: 127, records: []byte("records")},
		{kind: watermark, sender: 1, millis: -9223372036854775},
		{kind: watermark, sender: 0, millis: 9223372036854775},
		{kind: tick},
	} {
		got, err := decode(e.append([]byte("before"))[len("before"):])
		if err != nil || got.kind != e.kind || got.sender != e.sender || got.keyGroup != e.keyGroup || got.millis != e.millis ||
			!bytes.Equal(got.records, e.records) {
			t.Errorf("%+v came back as %+v, %v", e, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(event{kind: block, sender: 3, records: []byte("x")}.append(nil))
	f.Add([]byte{1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(e.append(nil))
		if err != nil || again.sender != e.sender || again.millis != e.millis || !bytes.Equal(again.records, e.records) {
			t.Errorf("%x is %+v, and then %+v, %v", b, e, again, err)
		}
	})
}

// What an attempt has put is there once it is settled, in order and before the watermark that was put behind it; what a
// failed attempt has put never is. An inbox is full until it has been half emptied, and everything in it is activity.
func TestInbox(t *testing.T) {
	ctx := context.Background()
	store := shuffle.NewStore(t.TempDir(), shuffle.NewBudget(1<<20))
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	var a activity
	in := newInbox(store, &a)
	big := make([]byte, inboxBytes/4)
	var buf []byte
	put := func(attempt stage.Attempt, e event) {
		t.Helper()
		var err error
		if buf, err = in.put(ctx, attempt, e, buf); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		put(1, event{kind: block, keyGroup: i, records: big})
	}
	put(2, event{kind: block, keyGroup: 99, records: big})
	if _, ok, err := in.get(ctx); ok || err != nil {
		t.Fatalf("there is an event before its attempt is settled: %v", err)
	}
	if in.full() != nil || a.count != 0 {
		t.Fatalf("what is not settled counts: %d", a.count)
	}
	if err := in.settle(2, false); err != nil {
		t.Fatal(err)
	}
	if err := in.settle(1, true); err != nil {
		t.Fatal(err)
	}
	put(0, event{kind: watermark, millis: 7})
	if in.full() == nil || a.count != 6 {
		t.Fatalf("five quarters of an inbox do not fill it; it counts %d events", a.count)
	}
	full := in.full()
	for i := range 6 {
		e, ok, err := in.get(ctx)
		if !ok || err != nil {
			t.Fatalf("event %d is not there: %v", i, err)
		}
		if i < 5 && (e.kind != block || e.keyGroup != i) || i == 5 && (e.kind != watermark || e.millis != 7) {
			t.Fatalf("event %d is of kind %d, key group %d", i, e.kind, e.keyGroup)
		}
	}
	select {
	case <-full:
	default:
		t.Error("an empty inbox is full")
	}
	a.add(-6)
	if err := a.wait(ctx); err != nil {
		t.Error(err)
	}
}

func TestActivityIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a activity
		a.add(2)
		over := make(chan error)
		go func() { over <- a.wait(t.Context()) }()
		a.add(-1)
		synctest.Wait()
		select {
		case <-over:
			t.Fatal("something is left to do, and was not waited for")
		default:
		}
		a.add(-1)
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// A held clock moves by what it is told, and knows how far ahead of the world's it is; it goes on with the world when it is
// released, and never goes back.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock(time.Now, true)
		began := c.time()
		time.Sleep(time.Second)
		if got := c.time(); !got.Equal(began) {
			t.Errorf("a held clock went on by %v", got.Sub(began))
		}
		if _, ok := c.until(began.Add(time.Minute)); ok {
			t.Error("something comes by itself while the clock is held")
		}
		c.advance(10 * time.Second)
		if got := c.time().Sub(began); got != 10*time.Second {
			t.Errorf("it is %v later, want 10s", got)
		}
		if got := c.ahead(); got != 9*time.Second {
			t.Errorf("it is %v ahead, want 9s", got)
		}
		c.release()
		time.Sleep(time.Second)
		if got := c.time().Sub(began); got != 11*time.Second {
			t.Errorf("it is %v later, want 11s", got)
		}
		if d, ok := c.until(began.Add(15 * time.Second)); !ok || d != 4*time.Second {
			t.Errorf("15s is %v away", d)
		}
		c.advance(time.Duration(1<<63 - 1))
		far := c.time()
		for range 10 {
			c.advance(time.Duration(rand.Int64()))
			if got := c.time(); got.Before(far) {
				t.Fatalf("it went back from %v to %v", far, got)
			}
		}
	})
}
