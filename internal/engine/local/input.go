package local

import (
	"context"
	"sync"

	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// input is an input of a stage. It has ended when all of its senders have; and if its tasks can split their work, when in
// addition no block is waiting or being processed, because that may bring new ones.
type input struct {
	// queue holds the blocks of a side input, or of a main input of elements: the stage's tasks share it, and an idle one
	// takes the next block. Nil for other inputs.
	queue *shuffle.Spool
	// counted says that blocks count as outstanding until they have been processed.
	counted bool
	ended   chan struct{}

	mu          sync.Mutex
	outstanding int                   // senders, and blocks that count
	attempts    map[stage.Attempt]int // how many blocks an open attempt has sent
}

// newInput makes an input of so many senders. It takes over the queue.
func newInput(senders int, queue *shuffle.Spool, counted bool) *input {
	in := &input{
		queue:       queue,
		counted:     counted,
		ended:       make(chan struct{}),
		outstanding: senders,
		attempts:    map[stage.Attempt]int{},
	}
	if senders == 0 {
		in.end()
	}
	return in
}

// put queues a block of an attempt; attempt 0 is settled.
func (in *input) put(ctx context.Context, attempt stage.Attempt, block []byte) error {
	if in.counted {
		in.mu.Lock()
		in.outstanding++
		if attempt != 0 {
			in.attempts[attempt]++
		}
		in.mu.Unlock()
	}
	return in.queue.Put(ctx, attempt, block)
}

// Settle keeps or drops what an attempt has put into the queue.
func (in *input) Settle(_ context.Context, attempt stage.Attempt, keep bool) error {
	in.mu.Lock()
	sent := in.attempts[attempt]
	delete(in.attempts, attempt)
	in.mu.Unlock()
	err := in.queue.Settle(attempt, keep)
	if !keep {
		in.done(sent)
	}
	return err
}

// processed says that a block from the queue has been processed.
func (in *input) processed() {
	if in.counted {
		in.done(1)
	}
}

// senderEnded says that one sender will send no more.
func (in *input) senderEnded() { in.done(1) }

func (in *input) done(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n == 0 {
		return
	}
	if in.outstanding -= n; in.outstanding == 0 {
		in.end()
	}
}

func (in *input) end() {
	if in.queue != nil {
		in.queue.Seal()
	}
	close(in.ended)
}

func (in *input) wait(ctx context.Context) error {
	select {
	case <-in.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (in *input) close() error {
	if in.queue == nil {
		return nil
	}
	return in.queue.Close()
}
