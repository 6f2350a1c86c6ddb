package shuffle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// TestSpoolFIFO compares the spool with a slice, over any order of puts and gets.
func TestSpoolFIFO(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		s := newTestStore(t, rapid.SampledFrom([]int64{0, 5 << 10, 1 << 30}).Draw(rt, "budget"), tiny)
		q := s.NewSpool()
		var want [][]byte
		put := 0
		get := func() {
			got, err := q.Get(ctx)
			if err != nil {
				rt.Fatal(err)
			}
			if !bytes.Equal(got, want[0]) {
				rt.Fatalf("got a block of %d bytes that is not the first, of %d", len(got), len(want[0]))
			}
			copy(got, bytes.Repeat([]byte{0xee}, len(got))) // it is the caller's, no other may show it
			want = want[1:]
		}
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(rt, "blocks") {
					put++
					b := bytes.Repeat([]byte{byte(put)}, rapid.SampledFrom([]int{0, 1, 50, 300, 5000}).Draw(rt, "length"))
					want = append(want, bytes.Clone(b))
					if err := q.Put(ctx, 0, b); err != nil {
						rt.Fatal(err)
					}
					clear(b)
				}
			},
			"get": func(rt *rapid.T) {
				for range min(len(want), rapid.IntRange(1, 30).Draw(rt, "blocks")) {
					get()
				}
			},
			"": func(rt *rapid.T) {
				if q.Len() != len(want) {
					rt.Fatalf("length is %d, expected %d", q.Len(), len(want))
				}
			},
		})
		q.Seal()
		for len(want) > 0 {
			get()
		}
		if _, err := q.Get(ctx); err != io.EOF {
			rt.Fatalf("at the end: got %v, expected io.EOF", err)
		}
		if used := s.budget.Used(); used != 0 {
			rt.Fatalf("empty, it holds %d bytes", used)
		}
		if err := q.Put(ctx, 0, nil); !errors.Is(err, ErrSealed) {
			rt.Fatalf("put after Seal: %v", err)
		}
	})
}

// TestSpoolConcurrent: each block gets to one reader, and a writer's blocks get to a reader in order.
func TestSpoolConcurrent(t *testing.T) {
	const writers, readers, blocks = 4, 3, 2000
	s := newTestStore(t, 1<<10, tiny)
	q := s.NewSpool()
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range blocks {
				b := binary.BigEndian.AppendUint32(nil, uint32(w))
				b = binary.BigEndian.AppendUint32(b, uint32(i))
				if err := q.Put(t.Context(), 0, append(b, make([]byte, i%90)...)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var mu sync.Mutex
	seen := map[[2]uint32]bool{}
	for range readers {
		reading.Go(func() {
			last := map[uint32]int{}
			for {
				b, err := q.Get(t.Context())
				if err == io.EOF {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				w, i := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
				if before, ok := last[w]; ok && before >= int(i) {
					t.Errorf("writer %d: block %d after %d", w, i, before)
				}
				last[w] = int(i)
				mu.Lock()
				if seen[[2]uint32{w, i}] {
					t.Errorf("writer %d: block %d comes twice", w, i)
				}
				seen[[2]uint32{w, i}] = true
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	q.Seal()
	reading.Wait()
	if len(seen) != writers*blocks {
		t.Errorf("%d blocks were read of %d", len(seen), writers*blocks)
	}
	if s.Spilled() == 0 {
		t.Error("nothing was spilled")
	}
}

// TestSpoolWakes: who waits in Get is woken by a block, by Seal, by Close and by the end of its context.
func TestSpoolWakes(t *testing.T) {
	gone := errors.New("the job was cancelled")
	for name, c := range map[string]struct {
		do   func(q *Spool, cancel func(error))
		want error
	}{
		"put":    {func(q *Spool, _ func(error)) { _ = q.Put(context.Background(), 0, []byte("block")) }, nil},
		"seal":   {func(q *Spool, _ func(error)) { q.Seal() }, io.EOF},
		"close":  {func(q *Spool, _ func(error)) { _ = q.Close() }, ErrClosed},
		"cancel": {func(_ *Spool, cancel func(error)) { cancel(gone) }, gone},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, 1<<20, tiny)
			synctest.Test(t, func(t *testing.T) {
				q := s.NewSpool()
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				done := make(chan error, 1)
				go func() {
					_, err := q.Get(ctx)
					done <- err
				}()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("an empty spool's Get returned %v", err)
				default:
				}
				c.do(q, cancel)
				synctest.Wait()
				if err := <-done; !errors.Is(err, c.want) {
					t.Errorf("got %v, expected %v", err, c.want)
				}
			})
		})
	}
}
