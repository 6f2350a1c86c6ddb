package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"trestle/internal/kit/until"
	"trestle/internal/store/blob"
)

// ErrMismatch is in the chain of an error about bytes whose sha256 is not the one that was promised.
var ErrMismatch = errors.New("sha256 mismatch")

const (
	// keyPrefix leaves room in the bucket for things that are no artifacts.
	keyPrefix = "artifacts/"
	// scratchPattern names scratch files so that a sweep finds them, and nothing else. They have a name for an instant
	// only: they are unlinked once they are open, so that none outlives its process.
	scratchPattern = "incoming-*.artifact"
)

// Digest is what identifies an artifact.
type Digest struct {
	// SHA256 in lower-case hex.
	SHA256 string
	// Size in bytes.
	Size int64
}

// Store keeps artifacts in a bucket, each once, under its sha256. Its methods may be called concurrently.
type Store struct {
	bucket  blob.Bucket
	scratch string
	// scratchErr is why the scratch folder cannot be used; every Put returns it.
	scratchErr error
	// silence is how long a web server may send nothing of an artifact; shorter in tests.
	silence time.Duration

	mu sync.Mutex
	// writing has a channel for each digest that a Put writes to the bucket, a Stat looks for there or a Sweep removes from
	// it; it is closed when that is over.
	writing map[string]chan struct{}
	// used is when each digest was last put or found.
	used map[string]time.Time
	// suspect has the digests whose stored bytes turned out to be others: the next Put of one replaces them.
	suspect map[string]bool
}

// NewStore makes a store over a bucket, which stays the caller's. Scratch is a folder on local disk for artifacts on
// their way in. It is made if missing, and swept: nothing that a process left there when it was killed stays. When the
// folder cannot be used, Put says so.
func NewStore(b blob.Bucket, scratch string) *Store {
	return &Store{
		bucket:     b,
		scratch:    scratch,
		scratchErr: prepareScratch(scratch),
		silence:    silence,
		writing:    map[string]chan struct{}{},
		used:       map[string]time.Time{},
		suspect:    map[string]bool{},
	}
}

func prepareScratch(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("scratch folder for artifacts: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("scratch folder for artifacts: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if ours, err := filepath.Match(scratchPattern, entry.Name()); err != nil || !ours {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("scratch folder for artifacts: remove what an earlier process left: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Put stores all of r and tells its digest. When want is not empty it is the sha256 in hex that r must have, else
// ErrMismatch. The bytes go to a scratch file while they are hashed, never whole into memory, and to the bucket only
// once they are complete and right; they are not written again when the bucket has them. When Put fails (r fails, ctx
// ends, the hash is wrong) it leaves nothing behind.
func (s *Store) Put(ctx context.Context, r io.Reader, want string) (Digest, error) {
	d, err := s.put(ctx, r, want)
	if err != nil {
		return Digest{}, fmt.Errorf("store artifact: %w", err)
	}
	return d, nil
}

func (s *Store) put(ctx context.Context, r io.Reader, want string) (_ Digest, err error) {
	if s.scratchErr != nil {
		return Digest{}, s.scratchErr
	}
	if want != "" {
		if want, err = normalizeSHA256(want); err != nil {
			return Digest{}, err
		}
	}
	file, err := os.CreateTemp(s.scratch, scratchPattern)
	if err != nil {
		return Digest{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := os.Remove(file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) { // another store's sweep may be quicker
		return Digest{}, err
	}
	hasher := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hasher), until.Reader(ctx, r))
	if err != nil {
		return Digest{}, err
	}
	d := Digest{SHA256: hex.EncodeToString(hasher.Sum(nil)), Size: size}
	if want != "" && d.SHA256 != want {
		return Digest{}, fmt.Errorf("%w: the %d bytes that arrived have sha256 %s, but %s was promised",
			ErrMismatch, size, d.SHA256, want)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return Digest{}, err
	}
	return d, s.write(ctx, d, file)
}

// write brings a complete artifact into the bucket, unless it is there: of several at once, one writes and the others
// find it done.
func (s *Store) write(ctx context.Context, d Digest, r io.Reader) error {
	release, err := s.claim(ctx, d.SHA256)
	if err != nil {
		return err
	}
	defer release()
	size, err := s.bucket.Stat(ctx, keyPrefix+d.SHA256)
	switch {
	case err == nil && size == d.Size && !s.isSuspect(d.SHA256):
		return nil
	case err != nil && !blob.IsNotFound(err):
		return err
	}
	// Missing; or damaged by something outside our control, and mended here.
	if err := s.bucket.Write(ctx, keyPrefix+d.SHA256, r); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.suspect, d.SHA256)
	s.mu.Unlock()
	return nil
}

func (s *Store) isSuspect(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.suspect[digest]
}

// claim waits until nobody else writes, looks for or removes this digest, and notes that it is used.
func (s *Store) claim(ctx context.Context, digest string) (release func(), err error) {
	for {
		s.mu.Lock()
		busy, ok := s.writing[digest]
		if !ok {
			s.used[digest] = time.Now()
			release := s.claimLocked(digest)
			s.mu.Unlock()
			return release, nil
		}
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// claimLocked claims a digest that nobody has claimed.
func (s *Store) claimLocked(digest string) (release func()) {
	done := make(chan struct{})
	s.writing[digest] = done
	return func() {
		s.mu.Lock()
		delete(s.writing, digest)
		s.mu.Unlock()
		close(done)
	}
}

// Stat finds an artifact by its sha256 in hex; an error for which [blob.IsNotFound] holds when the store has none, or
// has found out that its bytes are damaged.
func (s *Store) Stat(ctx context.Context, sha256 string) (Digest, error) {
	digest, err := normalizeSHA256(sha256)
	if err != nil {
		return Digest{}, fmt.Errorf("find artifact: %w", err)
	}
	release, err := s.claim(ctx, digest)
	if err != nil {
		return Digest{}, fmt.Errorf("find artifact %s: %w", digest, err)
	}
	defer release()
	size, err := s.bucket.Stat(ctx, keyPrefix+digest)
	if err == nil && s.isSuspect(digest) {
		err = fmt.Errorf("its stored bytes are damaged: %w", blob.ErrNotFound)
	}
	if err != nil {
		return Digest{}, fmt.Errorf("find artifact %s: %w", digest, err)
	}
	return Digest{SHA256: digest, Size: size}, nil
}

// Open reads an artifact by its sha256 in hex, and tells its size in bytes; an error for which [blob.IsNotFound] holds
// when the store has none. The hash is verified on the way: where the bytes do not have it, the last Read returns
// ErrMismatch instead of io.EOF. The caller closes the reader.
func (s *Store) Open(ctx context.Context, sha256hex string) (io.ReadCloser, int64, error) {
	digest, err := normalizeSHA256(sha256hex)
	if err != nil {
		return nil, 0, fmt.Errorf("open artifact: %w", err)
	}
	r, size, err := s.bucket.Open(ctx, keyPrefix+digest)
	if err != nil {
		return nil, 0, fmt.Errorf("open artifact %s: %w", digest, err)
	}
	return &verifier{ReadCloser: r, store: s, hash: sha256.New(), want: digest}, size, nil
}

// verifier is a reader that fails at its end when the bytes were not the right ones.
type verifier struct {
	io.ReadCloser
	store *Store
	hash  hash.Hash
	want  string
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	if err == io.EOF {
		if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
			v.store.mu.Lock()
			v.store.suspect[v.want] = true
			v.store.mu.Unlock()
			return n, fmt.Errorf("%w: the stored bytes of artifact %s have sha256 %s; stage it again", ErrMismatch, v.want, got)
		}
	}
	return n, err
}
