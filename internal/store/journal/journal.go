// Package journal is an append-only file of records, with one writer and any number of readers that follow it.
//
// The file is a header and then one frame after another (docs/formats/journal.md). A reader reads the file, each from the
// start and at its own pace: it costs the writer nothing, and holds one record and a small buffer in memory. What a
// killed process left half written at the end is cut when the journal is opened again; damage anywhere else is an error.
package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

const (
	// Version is the format's; it is in the file's header.
	Version = 1
	// MaxRecord bounds a record, in bytes.
	MaxRecord = 64 << 20

	magic       = "trestlej"
	headerSize  = len(magic) + 4
	frameHeader = 12
)

var (
	// ErrCorrupt is what errors wrap when a file is not the journal that was written. They name file and offset.
	ErrCorrupt = errors.New("corrupt journal")
	// ErrClosed is returned by Append after Close.
	ErrClosed = errors.New("journal is closed")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Durability says what Append waits for.
type Durability bool

const (
	// Buffered records survive the death of the process, but perhaps not that of the machine.
	Buffered Durability = false
	// Synced records, and all before them, survive both once Append has returned.
	Synced Durability = true
)

// File is what a journal needs of its file; *os.File is one. Tests put failing ones in its place.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

// Options are the zero value's by default.
type Options struct {
	// Log hears of a torn tail that was cut. Nil is silence.
	Log *slog.Logger
	// Wrap, when set, is what the journal's file is passed through: where tests inject faults.
	Wrap func(*os.File) File
}

// Journal is the writing side. Its methods may be called concurrently.
type Journal struct {
	path string

	syncing sync.Mutex // held while the disk is waited for; taken before write
	named   bool       // the file's name is durable; under syncing

	write sync.Mutex // held over a whole Append, so that records do not mix
	file  File
	buf   []byte
	fatal error // the file's end is not known any more; under write
	dirty bool  // something was written that was not synced; under write

	mu      sync.Mutex
	end     int64         // readers go no further
	changed chan struct{} // closed, and replaced, when end moves; closed for good by Close
	closed  bool
}

// Create makes a new journal; it is an error (fs.ErrExist) when there is a file at path. The file is durable, and its
// name in its folder, with the first record that is.
func Create(path string, o Options) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	j := newJournal(path, f, o)
	if err := j.writeHeader(); err != nil {
		return nil, errors.Join(fmt.Errorf("create journal %s: %w", path, err), j.file.Close(), os.Remove(path))
	}
	j.end = int64(headerSize)
	return j, nil
}

// Open opens a journal to append to, and calls visit with each of its records in order; the slice is visit's only until
// it returns. A torn tail is cut off. Only one Journal may have a file open at a time.
func Open(path string, o Options, visit func(record []byte) error) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := newJournal(path, f, o)
	if err := j.recover(f, o.Log, visit); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.file.Close())
	}
	return j, nil
}

func newJournal(path string, f *os.File, o Options) *Journal {
	j := &Journal{path: path, file: f, changed: make(chan struct{})}
	if o.Wrap != nil {
		j.file = o.Wrap(f)
	}
	return j
}

func header() []byte { return binary.LittleEndian.AppendUint32([]byte(magic), Version) }

func (j *Journal) writeHeader() error {
	j.dirty = true
	_, err := j.file.WriteAt(header(), 0)
	return err
}

func (j *Journal) recover(f *os.File, log *slog.Logger, visit func([]byte) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size < int64(headerSize) {
		// Killed between the file's creation and its header, or the header is not on the disk: no record was written.
		start := make([]byte, size)
		if _, err := j.file.ReadAt(start, 0); err != nil {
			return err
		}
		if !bytes.HasPrefix(header(), start) && !bytes.Equal(start, make([]byte, size)) {
			return fmt.Errorf("%w: %s at offset 0: the file is no journal", ErrCorrupt, j.path)
		}
		return j.begin(log, size)
	}
	r := newScanner(j.path, j.file, size)
	for {
		record, err := r.next()
		switch {
		case errors.Is(err, errTorn) && r.offset == 0:
			return j.begin(log, size)
		case errors.Is(err, errTorn):
			j.end = r.offset
			return j.cut(log, size, r.offset)
		case errors.Is(err, io.EOF):
			j.end = r.offset
			return nil
		case err != nil:
			return err
		}
		if err := visit(record); err != nil {
			return fmt.Errorf("%s: record at offset %d: %w", j.path, r.start, err)
		}
	}
}

// begin writes a file anew to whose header its maker did not come.
func (j *Journal) begin(log *slog.Logger, size int64) error {
	if err := j.cut(log, size, 0); err != nil {
		return err
	}
	if err := j.writeHeader(); err != nil {
		return err
	}
	j.end = int64(headerSize)
	return nil
}

func (j *Journal) cut(log *slog.Logger, size, to int64) error {
	if log != nil {
		log.Warn("a journal's end was torn, as when a process is killed while it writes; it is cut off",
			"file", j.path, "offset", to, "bytes", size-to)
	}
	if err := j.file.Truncate(to); err != nil {
		return fmt.Errorf("cut the torn end of %s: %w", j.path, err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("cut the torn end of %s: %w", j.path, err)
	}
	return nil
}

// Append writes a record after all others, where readers see it at once. A record that could not be written whole leaves
// nothing behind, and the next one may fare better; but when the end of the file is not known to be whole any more, or
// the disk refuses a sync, the journal takes no further records and Append keeps returning that error.
func (j *Journal) Append(record []byte, d Durability) error {
	if len(record) > MaxRecord {
		return fmt.Errorf("append to %s: a record of %d bytes, and %d are the most", j.path, len(record), MaxRecord)
	}
	if d == Synced {
		j.syncing.Lock()
		defer j.syncing.Unlock()
	}
	j.write.Lock()
	defer j.write.Unlock()
	if j.fatal != nil {
		return j.fatal
	}
	j.mu.Lock()
	end, closed := j.end, j.closed
	j.mu.Unlock()
	if closed {
		return fmt.Errorf("append to %s: %w", j.path, ErrClosed)
	}
	j.buf = appendFrame(j.buf[:0], record)
	j.dirty = true
	next := end + int64(len(j.buf))
	if _, err := j.file.WriteAt(j.buf, end); err != nil {
		err = fmt.Errorf("append to %s: %w", j.path, err)
		if cut := j.file.Truncate(end); cut != nil {
			j.fatal = errors.Join(err, fmt.Errorf("cut it back: %w", cut))
			return j.fatal
		}
		return err
	}
	if d == Synced {
		if err := j.toDisk(); err != nil {
			j.fatal = errors.Join(fmt.Errorf("append to %s: %w", j.path, err), j.file.Truncate(end))
			return j.fatal
		}
	}
	if cap(j.buf) > keepBuffer {
		j.buf = nil
	}
	j.mu.Lock()
	j.end = next
	close(j.changed)
	j.changed = make(chan struct{})
	j.mu.Unlock()
	return nil
}

// Sync makes all records durable that Append has written. It holds up no Append of a buffered record.
func (j *Journal) Sync() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.write.Lock()
	j.mu.Lock()
	closed := j.closed // and synced
	j.mu.Unlock()
	dirty, err := j.dirty, j.fatal
	j.dirty = false
	j.write.Unlock()
	if closed || err != nil {
		return err
	}
	if err = j.syncAll(dirty); err != nil {
		j.write.Lock()
		defer j.write.Unlock()
		j.fatal = fmt.Errorf("sync %s: %w", j.path, err)
		return j.fatal
	}
	return nil
}

// toDisk is Sync for one who holds both locks.
func (j *Journal) toDisk() error {
	err := j.syncAll(j.dirty)
	j.dirty = j.dirty && err != nil
	return err
}

// syncAll makes the file durable as it is, unless it is, and its name. After a failure the kernel may drop what it could
// not write: nothing later can be trusted. The caller holds the lock for syncing.
func (j *Journal) syncAll(dirty bool) error {
	if dirty {
		if err := j.file.Sync(); err != nil {
			return err
		}
	}
	if !j.named {
		if err := syncDir(filepath.Dir(j.path)); err != nil {
			return err
		}
		j.named = true
	}
	return nil
}

// keepBuffer is the largest buffer that a journal holds on to between records: most records are messages of a line or
// two.
const keepBuffer = 16 << 10

// Size is the file's, in bytes.
func (j *Journal) Size() int64 {
	end, _, _ := j.state()
	return end
}

// Close syncs and closes the file. Readers come to the end: io.EOF after the last record. It is idempotent.
func (j *Journal) Close() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.write.Lock()
	defer j.write.Unlock()
	j.mu.Lock()
	already := j.closed
	if !already {
		j.closed = true
		close(j.changed)
	}
	j.mu.Unlock()
	if already {
		return nil
	}
	var sync error
	if j.fatal == nil {
		sync = j.toDisk()
	}
	if err := errors.Join(sync, j.file.Close()); err != nil {
		return fmt.Errorf("close journal %s: %w", j.path, err)
	}
	return nil
}

// Reader reads the journal from its first record on, and then follows it. It has a file of its own, and outlives Close.
func (j *Journal) Reader() (*Reader, error) {
	f, err := os.Open(j.path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return &Reader{file: f, journal: j, scan: newScanner(j.path, f, 0)}, nil
}

// state is how far the file goes, a channel that is closed when it goes further, and whether it never will.
func (j *Journal) state() (end int64, changed <-chan struct{}, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end, j.changed, j.closed
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Reader is one reader of a journal. It is not safe for concurrent use.
type Reader struct {
	file    *os.File
	journal *Journal // nil when nothing writes the file
	scan    *scanner
}

// OpenReader reads a journal that nothing writes any more. A torn tail reads as the end.
func OpenReader(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read journal: %w", err), f.Close())
	}
	return &Reader{file: f, scan: newScanner(path, f, info.Size())}, nil
}

// Next returns the next record, and waits for it where the journal is still written. The slice is the caller's until
// the next call. The error is io.EOF at the journal's end, ctx's when that is done first, or wraps [ErrCorrupt].
func (r *Reader) Next(ctx context.Context) ([]byte, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var changed <-chan struct{}
		closed := true
		if r.journal != nil {
			r.scan.end, changed, closed = r.journal.state()
		}
		record, err := r.scan.next()
		switch {
		case err == nil:
			return record, nil
		case errors.Is(err, errTorn) && r.journal == nil:
			return nil, io.EOF
		case !errors.Is(err, io.EOF) || closed:
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close releases the reader's file.
func (r *Reader) Close() error {
	if err := r.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}
