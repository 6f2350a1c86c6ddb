package shuffle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// Spool is a queue of blocks between the tasks of two stages: many writers, many readers, each block to one reader,
// first in first out. Past the budget the queue's end is on disk; writers never wait. It is safe for concurrent use.
type Spool struct {
	store *Store

	mu      sync.Mutex
	account account
	err     error // a failed read or write, for blocks are lost, or a Seal too early: final
	sealed  bool
	closed  bool
	waiting int
	changed chan struct{} // closed and replaced when a waiting reader should look again

	queue queue
	open  []*aside // attempts that are not settled
	files segments // what is on disk, of the queue and of open attempts
}

// queue is a sequence of blocks, in this order.
type queue struct {
	head [][]byte // in memory
	disk []place  // on disk: spilled blocks that hold several of the queue's blocks, with their lengths
	tail []byte   // the next to go to disk, as there; nil if nothing is on disk or to go there

	count int // of all blocks
}

// aside is what an open attempt has put.
type aside struct {
	attempt Attempt
	queue   queue
}

// queuedCost is what a block in the queue, in memory or on disk, takes besides its bytes.
const queuedCost = 48

// NewSpool returns an empty spool.
func (s *Store) NewSpool() *Spool {
	q := &Spool{store: s, account: s.account(), changed: make(chan struct{}), files: segments{store: s}}
	s.add(q)
	return q
}

// Put adds a block, which it copies. It does not wait for readers. Those of attempt 0 readers get from now on, those of
// another once it was kept: see [Spool.Settle].
func (q *Spool) Put(ctx context.Context, a Attempt, block []byte) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case q.err != nil:
		return q.err
	case q.sealed:
		return ErrSealed
	}
	to := &q.queue
	if a != 0 {
		to = q.aside(a)
	}
	if err := q.put(to, block); err != nil {
		return q.fail(err)
	}
	if a == 0 {
		q.wake()
	}
	return nil
}

// aside returns an open attempt's queue.
func (q *Spool) aside(a Attempt) *queue {
	for _, o := range q.open {
		if o.attempt == a {
			return &o.queue
		}
	}
	o := &aside{attempt: a}
	q.open = append(q.open, o)
	return &o.queue
}

// Settle ends an attempt. Its blocks come from now on, in the order of Put and behind those that readers could get
// before, or are gone, memory and disk space with them. An attempt of which nothing came is fine, and nothing of the
// attempt may be put afterwards. A failed write is final.
func (q *Spool) Settle(a Attempt, keep bool) error {
	if a == 0 && !keep {
		return fmt.Errorf("settle a spool's attempt: %w", errSettleZero)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return ErrClosed
	case q.err != nil:
		return q.err
	}
	i := slices.IndexFunc(q.open, func(o *aside) bool { return o.attempt == a })
	if i < 0 {
		return nil
	}
	o := q.open[i]
	q.open = slices.Delete(q.open, i, i+1)
	if !keep {
		if err := q.drop(&o.queue); err != nil {
			return q.fail(err)
		}
		return nil
	}
	if err := q.take(&o.queue); err != nil {
		return q.fail(errors.Join(err, q.drop(&o.queue)))
	}
	q.wake()
	return nil
}

// fail makes an error final. Readers should not wait for what will never come.
func (q *Spool) fail(err error) error {
	q.err = err
	q.wake()
	return err
}

// put appends a block to one of the spool's queues.
func (q *Spool) put(to *queue, block []byte) error {
	if len(to.disk) == 0 && to.tail == nil && q.account.try(int64(len(block))+queuedCost) {
		to.head = append(to.head, append(make([]byte, 0, len(block)), block...))
		to.count++
		return nil
	}
	size := len(block) + binary.MaxVarintLen64
	if err := q.makeTail(to, size); err != nil {
		return err
	}
	to.tail = append(binary.AppendUvarint(to.tail, uint64(len(block))), block...)
	to.count++
	return nil
}

// makeTail sees that the tail has room for size bytes.
func (q *Spool) makeTail(to *queue, size int) error {
	if to.tail != nil && len(to.tail)+size > cap(to.tail) {
		if err := q.writeTail(to); err != nil {
			return err
		}
	}
	if to.tail == nil {
		to.tail = newBlock(max(size, q.store.tune.block))
		q.account.force(int64(cap(to.tail)))
	}
	return nil
}

// writeTail moves the tail to disk.
func (q *Spool) writeTail(to *queue) error {
	var used []*sharedFile
	at, err := q.files.append(to.tail, &used)
	if err != nil {
		return errors.Join(err, q.files.release(used))
	}
	q.account.release(int64(cap(to.tail)))
	to.tail = nil
	q.account.force(queuedCost)
	to.disk = append(to.disk, at)
	return nil
}

// take moves all blocks of an attempt's queue to the end of the readers' queue.
func (q *Spool) take(from *queue) error {
	to := &q.queue
	if len(to.disk) == 0 && to.tail == nil {
		to.head = append(to.head, from.head...)
		to.disk, to.tail = from.disk, from.tail
		to.count += from.count
		*from = queue{}
		return nil
	}
	// What is in memory comes behind what is on disk, and so goes there too.
	for len(from.head) > 0 {
		block := from.head[0]
		if err := q.put(to, block); err != nil {
			return err
		}
		q.account.release(int64(len(block)) + queuedCost)
		from.head[0], from.head = nil, from.head[1:]
		from.count--
	}
	if len(from.disk) > 0 && to.tail != nil {
		if err := q.writeTail(to); err != nil {
			return err
		}
	}
	to.disk, from.disk = append(to.disk, from.disk...), nil
	switch {
	case from.tail == nil:
	case to.tail == nil:
		to.tail, from.tail = from.tail, nil
	default:
		if err := q.makeTail(to, len(payload(from.tail))); err != nil {
			return err
		}
		to.tail = append(to.tail, payload(from.tail)...)
		q.account.release(int64(cap(from.tail)))
	}
	to.count += from.count
	*from = queue{}
	return nil
}

// drop gives back what a queue holds.
func (q *Spool) drop(u *queue) error {
	for _, block := range u.head {
		q.account.release(int64(len(block)) + queuedCost)
	}
	q.account.release(int64(cap(u.tail)) + int64(len(u.disk))*queuedCost)
	errs := make([]error, 0, len(u.disk))
	for _, at := range u.disk {
		errs = append(errs, q.files.release([]*sharedFile{at.file}))
	}
	*u = queue{}
	return errors.Join(errs...)
}

// Seal says that no more will be put. Readers get what is there, then io.EOF. All attempts must be settled: if one is
// open, readers get an error, for what it has put would be lost. It is idempotent.
func (q *Spool) Seal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.open) > 0 && q.err == nil && !q.closed {
		q.err = fmt.Errorf("seal a spool: attempt %d is not settled (%d are open); each must be kept or dropped first",
			q.open[0].attempt, len(q.open))
	}
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
	case q.queue.count == 0 && q.sealed:
		return nil, nil, io.EOF
	case q.queue.count == 0:
		q.waiting++
		return nil, q.changed, nil
	}
	u := &q.queue
	if len(u.head) == 0 {
		if err := q.refill(u); err != nil {
			return nil, nil, q.fail(err)
		}
	}
	block, u.head[0] = u.head[0], nil
	u.head = u.head[1:]
	u.count--
	q.account.release(int64(len(block)) + queuedCost)
	return block, nil, nil
}

// refill moves the first blocks that are not in the head there: from disk, or if there are none from the tail.
func (q *Spool) refill(u *queue) error {
	if len(u.disk) == 0 {
		tail := u.tail
		u.tail = nil
		q.account.release(int64(cap(tail)))
		return q.fillHead(u, payload(tail))
	}
	at := u.disk[0]
	var r blockReader // its buffers become the blocks
	data, _, err := r.read(&at.file.spillFile, at.off)
	if err != nil {
		return err
	}
	u.disk = u.disk[1:]
	q.account.release(queuedCost)
	if err := q.files.release([]*sharedFile{at.file}); err != nil {
		return err
	}
	return q.fillHead(u, data)
}

// fillHead appends the length-prefixed blocks of data, which it takes over, to the head.
func (q *Spool) fillHead(u *queue, data []byte) error {
	for o := 0; o < len(data); {
		block, end := cutPrefixed(data, o)
		if end < 0 {
			return fmt.Errorf("read a spool: expected a length-prefixed block at byte %d of %d", o, len(data))
		}
		q.account.force(int64(len(block)) + queuedCost)
		u.head = append(u.head, block[:len(block):len(block)])
		o = end
	}
	if len(u.head) == 0 {
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

// Len is the number of blocks that readers can get.
func (q *Spool) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queue.count
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
	errs := []error{q.drop(&q.queue)}
	for _, o := range q.open {
		errs = append(errs, q.drop(&o.queue))
	}
	q.open = nil
	q.account.close()
	return errors.Join(errs...)
}
