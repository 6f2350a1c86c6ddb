package shuffle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cespare/xxhash/v2"
)

// ErrClosed is what methods of a structure return once it, or its store, was closed.
var ErrClosed = errors.New("shuffle: closed")

// Store makes a job's groupers, spools, pages and tables: what they spill goes to files below one folder. It is safe for
// concurrent use.
type Store struct {
	dir     string
	budget  *Budget
	files   FileSystem
	hash    func(key []byte) uint64
	tune    tuning
	shared  segments
	spilled atomic.Int64

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
}

// tuning holds the sizes that decide between speed and memory. Tests shrink them.
type tuning struct {
	// floor is what a grouper or a spool may hold when the budget is used up: enough for a spill to be worth a write.
	floor int64
	// block is the size at which a spilled block is written. A block holds whole records, so a large one may exceed it.
	block int
	// tableBlock is the same for tables, of which each lookup reads at least one block.
	tableBlock int
	// chunk is the size of a grouper's largest chunks; a partition starts with firstChunk, so that small inputs stay
	// small. At most 64 KiB: an index entry has 16 bits for the offset in a chunk.
	chunk, firstChunk int
	// attemptLog is how much of an attempt a grouper keeps together before it sorts it into partitions: enough that each
	// of them then has a few KiB.
	attemptLog int64
	// partitions is a grouper's number of partitions, at most.
	partitions int
	// runBytes and runRecords end a partition's run: they bound the index that sorting it takes (32 bytes a record).
	runBytes   int64
	runRecords int
	// worthRun is the size from which a partition that has spilled before is preferred when one must spill.
	worthRun int64
	// merge bounds the block buffers of a merge; more runs than fit are merged in several passes.
	merge int64
	// segment is the size of files that give their space back one by one: a spool's, and those that block lists share.
	segment int64
}

// The sizes are those measured in the hot path's report: 128 partitions and chunks of 64 KiB sort in cache; blocks of
// 128 KiB make disk and checksum cheap; runs of 32 MiB keep the index in bounds when one key has all records.
var defaultTuning = tuning{
	floor:      2 << 20,
	block:      128 << 10,
	tableBlock: 32 << 10,
	chunk:      64 << 10,
	firstChunk: 4 << 10,
	attemptLog: 1 << 20,
	partitions: 128,
	runBytes:   32 << 20,
	runRecords: 1 << 20,
	worthRun:   512 << 10,
	merge:      4 << 20,
	segment:    64 << 20,
}

// NewStore returns a store whose files are created below dir, which is made when first needed. They are unlinked as soon
// as they are open, so dir stays empty and may be removed once the store is closed.
func NewStore(dir string, b *Budget) *Store { return NewStoreOn(Disk(), dir, b) }

// NewStoreOn is NewStore with files of another make: of a disk that fails, in tests. That they vanish is up to them.
func NewStoreOn(files FileSystem, dir string, b *Budget) *Store {
	s := &Store{
		dir: dir, budget: b, files: files, hash: xxhash.Sum64, tune: defaultTuning,
		open: map[io.Closer]struct{}{},
	}
	s.shared.store = s
	return s
}

// Spilled is the number of bytes written to disk so far, by all that was ever made from the store.
func (s *Store) Spilled() int64 { return s.spilled.Load() }

// Close closes all that is still open. Whoever waits in or calls one of them then gets [ErrClosed]. It is idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = nil
	s.mu.Unlock()
	var errs []error
	for c := range open {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// add registers a structure; in a closed store it is closed at once.
func (s *Store) add(c io.Closer) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		// Nothing is held yet, so there is nothing that could fail.
		_ = c.Close()
	}
}

func (s *Store) remove(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *Store) account() account { return account{budget: s.budget, floor: s.tune.floor} }

// File is what spilling needs of a file. Its methods may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
}

// FileSystem makes files that nobody else can see and that vanish when they are closed, or when the process ends in any
// way. It is safe for concurrent use.
type FileSystem interface {
	// Create makes an empty file in a folder, and the folder if it is not there.
	Create(dir string) (File, error)
}

// Disk is the operating system's files, which stores use unless they are told otherwise.
func Disk() FileSystem { return osFiles{} }

type osFiles struct{}

func (osFiles) Create(dir string) (File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "spill-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// writeError says what a person needs to know when a write of n bytes failed.
func (s *Store) writeError(n int, err error) error {
	err = fmt.Errorf("spill %d bytes to %s, after %d bytes of this job: %w", n, s.dir, s.Spilled(), err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w (free space there, choose another data folder, or allow more memory)", err)
	}
	return err
}
