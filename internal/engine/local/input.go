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
	senders     int // those that have not ended
	outstanding int // they, and blocks that count
	attempts    map[stage.Attempt]sent
	bytes, done int64 // of the queue: what came, and what has been processed
}

// sent is what an open attempt has put into a queue.
type sent struct {
	blocks int
	bytes  int64
}

// newInput makes an input of so many senders. It takes over the queue.
func newInput(senders int, queue *shuffle.Spool, counted bool) *input {
	in := &input{
		queue:       queue,
		counted:     counted,
		ended:       make(chan struct{}),
		senders:     senders,
		outstanding: senders,
		attempts:    map[stage.Attempt]sent{},
	}
	if senders == 0 {
		in.end()
	}
	return in
}

// put queues a block of an attempt; attempt 0 is settled.
func (in *input) put(ctx context.Context, attempt stage.Attempt, block []byte) error {
	in.mu.Lock()
	in.bytes += int64(len(block))
	if in.counted {
		in.outstanding++
	}
	if attempt != 0 {
		was := in.attempts[attempt]
		in.attempts[attempt] = sent{was.blocks + 1, was.bytes + int64(len(block))}
	}
	in.mu.Unlock()
	return in.queue.Put(ctx, attempt, block)
}

// Settle keeps or drops what an attempt has put into the queue.
func (in *input) Settle(_ context.Context, attempt stage.Attempt, keep bool) error {
	in.mu.Lock()
	was := in.attempts[attempt]
	delete(in.attempts, attempt)
	if !keep {
		in.bytes -= was.bytes
	}
	in.mu.Unlock()
	err := in.queue.Settle(attempt, keep)
	if !keep && in.counted {
		in.release(was.blocks)
	}
	return err
}

// processed says that a block from the queue has been processed.
func (in *input) processed(bytes int) {
	in.mu.Lock()
	in.done += int64(bytes)
	in.mu.Unlock()
	if in.counted {
		in.release(1)
	}
}

// sizes are the bytes that came through the queue so far, and those that have been processed.
func (in *input) sizes() (bytes, done int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.bytes, in.done
}

// senderEnded says that one sender will send no more.
func (in *input) senderEnded() {
	in.mu.Lock()
	in.senders--
	in.mu.Unlock()
	in.release(1)
}

// complete tells whether all senders have ended.
func (in *input) complete() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.senders == 0
}

// hold keeps the input from ending until release(1); false when it has ended.
func (in *input) hold() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.outstanding == 0 {
		return false
	}
	in.outstanding++
	return true
}

// release takes back so many of what is outstanding; nothing outstanding is the end.
func (in *input) release(n int) {
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
