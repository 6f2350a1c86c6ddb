package shuffle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Spool is a queue of blocks between the tasks of two stages: many writers, many readers, each block to one reader,
// first in first out. Past the budget the queue's tail is on disk; writers never wait. It is safe for concurrent use.
type Spool struct {
	store *Store

	mu      sync.Mutex
	account account
	err     error // a failed read or write: final, for blocks are lost
	sealed  bool
	closed  bool
	count   int
	waiting int
	changed chan struct{} // closed and replaced when a waiting reader should look again

	// The queue, in this order.
	head  [][]byte   // in memory
	files []*segment // on disk: blocks that hold several of the queue's blocks, with their lengths
	tail  []byte     // the next to go to disk; nil if nothing is there
}

// segment is a file of the queue, removed when it has been read.
type segment struct {
	file *spillFile
	next int64 // where reading goes on
}

// queuedCost is what a block in the queue takes besides its bytes.
const queuedCost = 48

// NewSpool returns an empty spool.
func (s *Store) NewSpool() *Spool {
	q := &Spool{store: s, account: s.account(), changed: make(chan struct{})}
	s.add(q)
	return q
}

// Put adds a block, which it copies. It does not wait for readers.
func (q *Spool) Put(ctx context.Context, block []byte) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case q.sealed:
		return ErrSealed
	case q.err != nil:
		return q.err
	}
	if q.err = q.put(block); q.err != nil {
		q.wake() // readers should not wait for what will never come
		return q.err
	}
	q.count++
	q.wake()
	return nil
}

func (q *Spool) put(block []byte) error {
	if len(q.files) == 0 && q.tail == nil && q.account.try(int64(len(block))+queuedCost) {
		q.head = append(q.head, append(make([]byte, 0, len(block)), block...))
		return nil
	}
	size := len(block) + binary.MaxVarintLen64
	if q.tail != nil && len(q.tail)+size > cap(q.tail) {
		if err := q.writeTail(); err != nil {
			return err
		}
	}
	if q.tail == nil {
		q.tail = newBlock(max(size, q.store.tune.block))
		q.account.force(int64(cap(q.tail)))
	}
	q.tail = append(binary.AppendUvarint(q.tail, uint64(len(block))), block...)
	return nil
}

// writeTail moves the tail to the last file.
func (q *Spool) writeTail() error {
	if n := len(q.files); n == 0 || q.files[n-1].file.end() >= q.store.tune.segment {
		q.files = append(q.files, &segment{file: &spillFile{store: q.store}})
	}
	if _, err := q.files[len(q.files)-1].file.append(q.tail); err != nil {
		return err
	}
	q.account.release(int64(cap(q.tail)))
	q.tail = nil
	return nil
}

// Seal says that no more will be put. Readers get what is there, then io.EOF. It is idempotent.
func (q *Spool) Seal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sealed = true
	q.wake()
}

// Get returns the queue's first block, which is the caller's to keep; if there is none, it waits for one. It returns
// io.EOF when the spool is sealed and empty, [ErrClosed] when it is closed, and the context's error when that ends first.
func (q *Spool) Get(ctx context.Context) ([]byte, error) {
	for {
		block, wait, err := q.get()
		if wait == nil {
			return block, err
		}
		select {
		case <-wait:
			q.stopWaiting()
		case <-ctx.Done():
			q.stopWaiting()
			return nil, context.Cause(ctx)
		}
	}
}

// get returns a block, an error, or what to wait for.
func (q *Spool) get() (block []byte, wait <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return nil, nil, ErrClosed
	case q.err != nil:
		return nil, nil, q.err
	case q.count == 0 && q.sealed:
		return nil, nil, io.EOF
	case q.count == 0:
		q.waiting++
		return nil, q.changed, nil
	}
	if len(q.head) == 0 {
		if q.err = q.refill(); q.err != nil {
			q.wake()
			return nil, nil, q.err
		}
	}
	block, q.head[0] = q.head[0], nil
	q.head = q.head[1:]
	q.count--
	q.account.release(int64(len(block)) + queuedCost)
	return block, nil, nil
}

// refill moves the first blocks that are not in the head there: from the first file, or if there is none from the tail.
func (q *Spool) refill() error {
	if len(q.files) == 0 {
		tail := q.tail
		q.tail = nil
		q.account.release(int64(cap(tail)))
		return q.queue(payload(tail))
	}
	seg := q.files[0]
	var r blockReader // its buffers become the blocks
	data, next, err := r.read(seg.file, seg.next)
	if err != nil {
		return err
	}
	if seg.next = next; next == seg.file.end() {
		q.files[0] = nil
		q.files = q.files[1:]
		if err := seg.file.close(); err != nil {
			return err
		}
	}
	return q.queue(data)
}

// queue appends the length-prefixed blocks of data, which it takes over, to the head.
func (q *Spool) queue(data []byte) error {
	for o := 0; o < len(data); {
		block, end := cutPrefixed(data, o)
		if end < 0 {
			return fmt.Errorf("read a spool: expected a length-prefixed block at byte %d of %d", o, len(data))
		}
		q.account.force(int64(len(block)) + queuedCost)
		q.head = append(q.head, block[:len(block):len(block)])
		o = end
	}
	if len(q.head) == 0 {
		return errors.New("read a spool: expected blocks, found none")
	}
	return nil
}

// wake lets waiting readers look again.
func (q *Spool) wake() {
	if q.waiting > 0 {
		close(q.changed)
		q.changed = make(chan struct{})
	}
}

func (q *Spool) stopWaiting() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting--
}

// Len is the number of blocks in the spool.
func (q *Spool) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

// Close releases everything, the disk's space included, and wakes all that wait in Get. It may be called at any time and
// is idempotent.
func (q *Spool) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	q.wake()
	q.store.remove(q)
	var errs []error
	for _, seg := range q.files {
		errs = append(errs, seg.file.close())
	}
	q.head, q.files, q.tail = nil, nil, nil
	q.account.close()
	return errors.Join(errs...)
}
