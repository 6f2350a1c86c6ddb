package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// memtable bounds what a store holds that is in no file yet. Small, because each task has one, and because a snapshot
	// waits until it is written.
	memtable = 4 << 20
	// filterBits a key let one of a hundred keys that are not in a table be looked for in it.
	filterBits = 10
)

// Store is an ordered store. It belongs to one goroutine at a time, but for Close.
type Store struct {
	db     *pebble.DB
	dir    string
	cache  *Cache
	recent recent // changes that are not in db
	// next is what Overlay.Next has answered last, nextWritten what db has of it.
	next, nextWritten uint64
	charged           int // what the cache has been told of recent
	writes            int // how often recent has gone to db
	wanted            context.Context
	unwant            context.CancelCauseFunc
	files             files
}

// sequence is where a store keeps its counter: behind all keys of key groups.
var sequence = []byte{0xff, 0xff, 0xff}

// Open makes a store in a directory, which is not there yet or empty, and the store's from now on: Close removes it. It
// holds what the given checkpoints have of keys from lo on and before hi (nil: to the end); keys are assumed to be in one
// checkpoint at the most. The checkpoints stay as they are.
//
// When the context ends, nothing of the store will be wanted any more: what takes long, now and later, fails with its cause. Then it
// can only be closed. So it is when the disk does not take what is written.
func Open(ctx context.Context, dir string, cache *Cache, log *slog.Logger, from []string, lo, hi []byte) (*Store, error) {
	return open(ctx, vfs.Default, dir, cache, log, from, lo, hi)
}

func open(ctx context.Context, disk vfs.FS, dir string, cache *Cache, log *slog.Logger, from []string, lo, hi []byte) (_ *Store, err error) {
	s := &Store{dir: dir, cache: cache, recent: newRecent(), files: files{disk, &fate{cut: map[string]bool{}}}}
	s.wanted, s.unwant = context.WithCancelCause(ctx)
	defer func() {
		if err != nil {
			s.unwant(err)
		}
	}()
	s.files.broken = func(err error) { s.unwant(fmt.Errorf("write files in %s: %w", dir, err)) }
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	whole := len(from) == 1
	if whole {
		if err := link(from[0], dir); err != nil {
			return nil, fmt.Errorf("store: take over checkpoint %s: %w", from[0], err)
		}
	}
	if s.db, err = pebble.Open(dir, options(s.files, cache, log)); err != nil {
		return nil, errors.Join(fmt.Errorf("store: open %s: %w", dir, err), os.RemoveAll(dir))
	}
	if err = s.unwanted(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if whole {
		err = s.narrow(lo, hi)
	} else {
		for _, checkpoint := range from {
			err = errors.Join(err, s.take(checkpoint, cache, log, lo, hi))
		}
	}
	if err == nil {
		err = s.readSequence()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func options(f files, cache *Cache, log *slog.Logger) *pebble.Options {
	o := &pebble.Options{
		DisableWAL: true, FormatMajorVersion: pebble.FormatNewest, FS: f,
		MemTableSize: memtable, MemTableStopWritesThreshold: 4,
		// Many small compactions instead of few large ones, so that no checkpoint has to write much that has not changed: a few flushes
		// at a time go into a level that is small itself, and from there table by table (docs/decisions/0025-compactions-in-small-pieces.md).
		L0CompactionThreshold: 4, L0StopWritesThreshold: 60, LBaseMaxBytes: 8 << 20,
		// Every checkpoint has a copy of the manifest, which grows with each flush until it is begun anew.
		MaxManifestFileSize: manifestBytes,
		Cache:               cache.blocks,
	}
	said := &logger{log: log, said: map[string]bool{}}
	o.Logger = said
	// Most keys that are asked for are not there: windows and timers that are new. The last level's filters would not be read.
	for i := range len(o.Levels) - 1 {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(filterBits)
	}
	apart := &apart{}
	o.Experimental.ValueSeparationPolicy = apart.policy
	o.EventListener = &pebble.EventListener{
		CompactionBegin: apart.begin,
		BackgroundError: func(err error) {
			if !errors.Is(err, errUnwanted) {
				said.Errorf("in the background: %v", err)
			}
		},
	}
	return o
}

// manifestBytes bounds a store's manifest where the store is small; pebble lets it be larger where what it tells is.
const manifestBytes = 16 << 10

// logger passes on what pebble has to say about failures. Fatal ones it returns from its calls as well. What fails in the background is
// tried again at once: so each text is passed on once, until there were many others.
type logger struct {
	log  *slog.Logger
	mu   sync.Mutex
	said map[string]bool
}

func (*logger) Infof(string, ...any)        {}
func (l *logger) Fatalf(f string, a ...any) { l.Errorf(f, a...) }

func (l *logger) Errorf(f string, a ...any) {
	text := fmt.Sprintf("store: "+f, a...)
	l.mu.Lock()
	known := l.said[text]
	if len(l.said) >= maxSaid {
		clear(l.said)
	}
	l.said[text] = true
	l.mu.Unlock()
	if !known {
		l.log.Error(text)
	}
}

// maxSaid bounds the texts that a logger remembers.
const maxSaid = 64

// narrow removes all keys that are not from lo on and before hi.
func (s *Store) narrow(lo, hi []byte) error {
	spans := []span{{[]byte{0}, lo}}
	if hi != nil {
		spans = append(spans, span{hi, sequence})
	}
	for _, out := range spans {
		if bytes.Compare(out.lo, out.hi) >= 0 {
			continue
		}
		if err := s.db.DeleteRange(out.lo, out.hi, pebble.NoSync); err != nil {
			return fmt.Errorf("store: leave out what others own: %w", err)
		}
	}
	return nil
}

// take copies what a checkpoint has of the range.
func (s *Store) take(checkpoint string, cache *Cache, log *slog.Logger, lo, hi []byte) (err error) {
	o := options(s.files, cache, log)
	o.ReadOnly, o.FS = true, untouched{o.FS}
	db, err := pebble.Open(checkpoint, o)
	if err != nil {
		return fmt.Errorf("store: open checkpoint %s: %w", checkpoint, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: upper(hi)})
	if err != nil {
		return fmt.Errorf("store: read checkpoint %s: %w", checkpoint, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = s.unwanted()
		}
		if err == nil {
			err = s.db.Set(it.Key(), value, pebble.NoSync)
		}
		if err != nil {
			return fmt.Errorf("store: copy from checkpoint %s: %w", checkpoint, err)
		}
	}
	counter, closer, err := db.Get(sequence)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: read checkpoint %s: %w", checkpoint, err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	if len(counter) != 8 {
		return fmt.Errorf("store: checkpoint %s: its counter has %d bytes", checkpoint, len(counter))
	}
	if n := binary.BigEndian.Uint64(counter); n > s.next {
		s.next = n
		return s.db.Set(sequence, counter, pebble.NoSync)
	}
	return nil
}

// upper keeps the counter out of what is read.
func upper(hi []byte) []byte {
	if hi == nil {
		return sequence
	}
	return hi
}

func (s *Store) readSequence() error {
	counter, closer, err := s.db.Get(sequence)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if len(counter) == 8 {
		s.next = binary.BigEndian.Uint64(counter)
		s.nextWritten = s.next
	}
	return closer.Close()
}

// Checkpoint writes the store as it is now, all changes committed, into a directory, which must not be there: files that never
// change again, most of them hard links to the store's own.
func (s *Store) Checkpoint(dir string) error {
	if err := s.write(); err != nil {
		return err
	}
	// Without a log, what is in memory only would be left out.
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("store: write what is in memory: %w", err)
	}
	select {
	case <-flushed:
	case <-s.wanted.Done():
		return s.unwanted()
	}
	if err := s.db.Checkpoint(dir); err != nil {
		return fmt.Errorf("store: checkpoint: %w", err)
	}
	if s.files.closing.Load() { // since when values apart are not written whole
		return fmt.Errorf("store: checkpoint: %w", errUnwanted)
	}
	return s.unwanted() // what could not be written, and of which pebble knows nothing, is not in it
}

// unwanted is an error when nothing of the store is wanted any more.
func (s *Store) unwanted() error {
	if s.wanted.Err() == nil {
		return nil
	}
	return fmt.Errorf("store: %w", context.Cause(s.wanted))
}

// Close closes the store and removes its files. It does not wait for what is being written to them.
func (s *Store) Close() error {
	s.forget()
	s.unwant(errUnwanted)
	s.files.closing.Store(true)
	return errors.Join(s.db.Close(), os.RemoveAll(s.dir))
}
