package streaming

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

// inboxBytes is when an inbox is full: enough for a bundle or two to be ready while one is being processed, little enough
// that what waits there is a matter of some tens of milliseconds.
const inboxBytes = 4 << 20

// kind is of an event in an inbox.
type kind byte

const (
	block     kind = iota // records
	watermark             // of a sender
	tick                  // processing time has come to a point
	drain                 // sources are to give up what they have not read
	barrier               // of a snapshot, whose number is in millis, from a sender; from nobody for tasks without any
	readable              // windows of side inputs have become readable, as of a version that is in millis
	committed             // a snapshot, whose number is in millis, is safe
)

// event is what happens to a task.
type event struct {
	kind kind
	// sender is the slot of the receiving task that the event is for.
	sender int
	// keyGroup is of a block for a keyed input.
	keyGroup int
	// millis is a watermark, the number of a snapshot, or a version of side inputs.
	millis int64
	// records are shared with the inbox's memory.
	records []byte
}

// append encodes the event. It never leaves the process but for spill files, which no other process reads.
func (e event) append(dst []byte) []byte {
	dst = append(dst, byte(e.kind))
	dst = binary.AppendUvarint(dst, uint64(e.sender))
	dst = binary.AppendUvarint(dst, uint64(e.keyGroup))
	dst = binary.AppendVarint(dst, e.millis)
	return append(dst, e.records...)
}

func decode(b []byte) (e event, err error) {
	if len(b) == 0 {
		return e, fmt.Errorf("an event of no bytes")
	}
	e.kind = kind(b[0])
	b = b[1:]
	sender, n := binary.Uvarint(b)
	keyGroup, m := binary.Uvarint(b[max(n, 0):])
	if n <= 0 || m <= 0 {
		return e, fmt.Errorf("an event's header is cut short")
	}
	millis, k := binary.Varint(b[n+m:])
	if k <= 0 {
		return e, fmt.Errorf("an event's header is cut short")
	}
	e.sender, e.keyGroup, e.millis, e.records = int(sender), int(keyGroup), millis, b[n+m+k:]
	return e, nil
}

// inbox is a task's queue of events: many senders, one receiver, first in first out. Past its budget it is on disk.
type inbox struct {
	spool    *shuffle.Spool
	activity *activity
	// came has a place for one word that something has come.
	came chan struct{}

	mu    sync.Mutex
	bytes int                   // of events that the receiver can get
	sent  map[stage.Attempt]sum // what open attempts have put
	room  chan struct{}         // closed when a full inbox is not full any more; nil unless it is full
}

type sum struct{ events, bytes int }

func newInbox(store *shuffle.Store, a *activity) *inbox {
	return &inbox{spool: store.NewSpool(), activity: a, came: make(chan struct{}, 1), sent: map[stage.Attempt]sum{}}
}

// put adds an event; of an attempt that is not 0, the receiver gets it once that is settled. buf is room for its encoding.
func (in *inbox) put(ctx context.Context, attempt stage.Attempt, e event, buf []byte) ([]byte, error) {
	buf = e.append(buf[:0])
	if attempt != 0 {
		in.mu.Lock()
		was := in.sent[attempt]
		in.sent[attempt] = sum{was.events + 1, was.bytes + len(buf)}
		in.mu.Unlock()
		return buf, in.spool.Put(ctx, attempt, buf)
	}
	// It counts before the receiver can have it.
	in.count(1, len(buf))
	if err := in.spool.Put(ctx, 0, buf); err != nil {
		return buf, err
	}
	in.wake()
	return buf, nil
}

// settle keeps or drops what an attempt has put.
func (in *inbox) settle(attempt stage.Attempt, keep bool) error {
	in.mu.Lock()
	was := in.sent[attempt]
	delete(in.sent, attempt)
	in.mu.Unlock()
	if keep {
		in.count(was.events, was.bytes)
	}
	if err := in.spool.Settle(attempt, keep); err != nil {
		return err
	}
	in.wake()
	return nil
}

func (in *inbox) count(events, bytes int) {
	in.activity.add(events)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bytes += bytes
	if in.bytes > inboxBytes && in.room == nil {
		in.room = make(chan struct{})
	}
}

func (in *inbox) wake() {
	select {
	case in.came <- struct{}{}:
	default: // the receiver will look anyway
	}
}

// get takes the first event off; ok is false when there is none. Its activity stays counted, and is the receiver's to take
// off. Only the receiver calls it.
func (in *inbox) get(ctx context.Context) (e event, ok bool, err error) {
	if in.spool.Len() == 0 {
		return e, false, nil
	}
	b, err := in.spool.Get(ctx)
	if err != nil {
		return e, false, err
	}
	in.mu.Lock()
	in.bytes -= len(b)
	if in.room != nil && in.bytes <= inboxBytes/2 {
		close(in.room)
		in.room = nil
	}
	in.mu.Unlock()
	e, err = decode(b)
	return e, true, err
}

// full is what to wait for before more is sent; nil when the inbox is not full.
func (in *inbox) full() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.room
}
