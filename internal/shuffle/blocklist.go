package shuffle

import (
	"fmt"
	"math"
	"sync"
)

// blockList keeps blocks that are written once and read many times, each by its number: in memory while the budget has
// room, on disk from the first to the last of those that were there when it had none.
//
// One goroutine fills it; once it is sealed, many may read. It may be closed at any time.
type blockList struct {
	store   *Store
	account account
	size    int // of a block

	cur     []byte // the block that is being filled, made with newBlock
	charged int64  // for cur

	mu     sync.Mutex
	onDisk []place       // where the first blocks are
	inMem  [][]byte      // the others
	count  int           // of all; it stays when the list is closed
	files  []*sharedFile // in which blocks are
	closed bool
}

// blockCost is what a block takes in memory besides its bytes, with what the slices may have in reserve.
const blockCost = 64

func (s *Store) newBlockList(size int) *blockList {
	// There may be very many lists, so that none has a floor but the block that it fills.
	return &blockList{store: s, account: account{budget: s.budget}, size: size}
}

// grow makes room for n bytes in the block that is being filled, which is a new one if the old one would get too large.
// The caller then appends them to cur.
func (l *blockList) grow(n int) error {
	if len(l.cur) > blockHeader && len(payload(l.cur))+n > l.size {
		if err := l.flush(); err != nil {
			return err
		}
	}
	if l.cur == nil {
		l.cur = newBlock(0)
	}
	if cap(l.cur)-len(l.cur) >= n {
		return nil
	}
	if n > math.MaxInt32-len(l.cur) {
		return fmt.Errorf("keep a record of %d bytes: at most %d are supported", n, math.MaxInt32)
	}
	want := max(len(l.cur)+n, min(2*cap(l.cur), blockHeader+l.size))
	if !l.account.try(int64(want) - l.charged) {
		// No more memory: what there is goes to disk, this block too unless it is too small to be worth it.
		if len(payload(l.cur)) >= l.size/8 {
			if err := l.flush(); err != nil {
				return err
			}
			l.cur = newBlock(0)
			want = len(l.cur) + n
		}
		if err := l.spill(); err != nil {
			return err
		}
		l.account.force(int64(want) - l.charged)
	}
	l.charged = int64(want)
	grown := make([]byte, len(l.cur), want)
	copy(grown, l.cur)
	l.cur = grown
	return nil
}

// charge takes n bytes of the budget; if it has none, what is in memory goes to disk first.
func (l *blockList) charge(n int64) error {
	if l.account.try(n) {
		return nil
	}
	if err := l.spill(); err != nil {
		return err
	}
	l.account.force(n)
	return nil
}

// flush ends the block that is being filled, if it has anything.
func (l *blockList) flush() error {
	if len(l.cur) <= blockHeader {
		return nil
	}
	if err := l.charge(blockCost); err != nil {
		return err
	}
	if cap(l.cur) > len(l.cur)+len(l.cur)/8 {
		l.cur = append(make([]byte, 0, len(l.cur)), l.cur...)
		l.account.release(l.charged - int64(len(l.cur)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.inMem = append(l.inMem, l.cur)
	l.count++
	l.cur, l.charged = nil, 0
	return nil
}

// seal ends the filling. A list that ends when there is no memory left keeps none.
func (l *blockList) seal() error {
	if err := l.flush(); err != nil {
		return err
	}
	if l.store.budget.Used() > l.store.budget.Limit() {
		return l.spill()
	}
	return nil
}

// spill moves the blocks that are in memory to disk.
func (l *blockList) spill() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	for i, b := range l.inMem {
		at, err := l.store.shared.append(b, &l.files)
		if err != nil {
			return err
		}
		l.account.release(int64(cap(b)))
		l.onDisk = append(l.onDisk, at)
		l.inMem[i] = nil
	}
	l.inMem = l.inMem[:0]
	return nil
}

func (l *blockList) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// read returns block i's payload, which must not be changed and is valid until r is used again.
func (l *blockList) read(r *blockReader, i int) ([]byte, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	if i >= len(l.onDisk) {
		b := l.inMem[i-len(l.onDisk)]
		l.mu.Unlock()
		return payload(b), nil
	}
	at := l.onDisk[i]
	l.mu.Unlock()
	data, _, err := r.read(&at.file.spillFile, at.off)
	return data, err
}

func (l *blockList) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.inMem = nil // a read under way keeps its block
	l.account.close()
	return l.store.shared.release(l.files)
}

// A page is a place in a block list: 0 is the start, any other the block's number plus one, and the offset in it.
func pageAt(block, off int) int64 { return int64(block+1)<<32 | int64(off) }

// place is the opposite of pageAt. The page comes from outside; whether the offset is one where a record starts is for
// the caller to see.
func (l *blockList) place(page int64) (block, off int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, 0, ErrClosed
	}
	if page == 0 {
		return 0, 0, nil
	}
	block, off = int(page>>32)-1, int(page&math.MaxUint32)
	if page < 0 || block < 0 || block >= l.count {
		return 0, 0, fmt.Errorf("page %d: expected one that an earlier read returned", page)
	}
	return block, off, nil
}
