package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
)

const (
	// cachePrefix begins the names of all caches' folders.
	cachePrefix = "trestle-artifacts-"
	// cacheLock is held shared by every process that uses a cache, and exclusively by the one that removes it.
	cacheLock = "in-use"
	// lockPoll is how often a lock is asked for that another process has: it holds it while it fetches.
	lockPoll = 50 * time.Millisecond
)

// cache is a job's folder of artifacts on a host: a file for each, named by its sha256. Several processes may use it;
// the last of them removes it. Its methods may be called concurrently.
type cache struct {
	dir string
	use *flock.Flock
	log *slog.Logger
}

// localError marks what is wrong on this host, and not with the origin.
type localError struct{ error }

func (l localError) Unwrap() error { return l.error }

// openCache opens the cache of a job, and removes the caches beside it that nobody uses: those of killed workers.
func openCache(parent, job string, log *slog.Logger) (*cache, error) {
	if job == "" || job != filepath.Base(job) {
		return nil, fmt.Errorf("the job id %q is not fit for a file name", job)
	}
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("cache for artifacts: %w", err)
	}
	c := &cache{dir: filepath.Join(parent, cachePrefix+job), log: log}
	if err := c.claim(); err != nil {
		return nil, fmt.Errorf("cache for artifacts: %w", err)
	}
	c.sweep(parent)
	return c, nil
}

// claim makes the folder and marks it as used.
func (c *cache) claim() error {
	for {
		if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := ours(c.dir); err != nil {
			return err
		}
		c.use = flock.New(filepath.Join(c.dir, cacheLock), flock.SetPermissions(0o600))
		err := c.use.RLock()
		if errors.Is(err, fs.ErrNotExist) {
			continue // its last user has just removed it
		}
		if err != nil {
			return err
		}
		stands, err := standing(c.use)
		if stands {
			return nil
		}
		if err := errors.Join(err, c.use.Close()); err != nil {
			return err
		}
	}
}

// standing tells whether a lock's file is still the one of that name: between opening it and having the lock, its holder
// may have removed it.
func standing(lock *flock.Flock) (bool, error) {
	held, err := lock.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(lock.Path())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(held, named), err
}

// ours refuses a folder that another user has made, who could exchange what lies in it.
func ours(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed by its last user; the caller finds out
	}
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o022 != 0 || ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is no folder of this user's alone: remove it, or choose another place", dir)
	}
	return nil
}

// close stops using the folder, and removes it when nobody else does.
func (c *cache) close() error {
	return errors.Join(c.use.Close(), removeUnused(c.dir))
}

// sweep removes the caches beside this one that nobody uses. What cannot be removed is the next one's affair.
func (c *cache) sweep(parent string) {
	others, err := os.ReadDir(parent)
	if err != nil {
		c.log.Warn("look for caches of artifacts that earlier workers left", "error", err)
	}
	for _, other := range others {
		dir := filepath.Join(parent, other.Name())
		if !other.IsDir() || dir == c.dir || !strings.HasPrefix(other.Name(), cachePrefix) {
			continue
		}
		if err := removeUnused(dir); err != nil {
			c.log.Warn("remove a cache of artifacts that an earlier worker left", "folder", dir, "error", err)
		}
	}
}

// removeUnused removes a cache, unless a process uses it.
func removeUnused(dir string) error {
	// Not made anew: a folder without the file is just being made, or removed.
	lock := flock.New(filepath.Join(dir, cacheLock), flock.SetFlag(os.O_RDWR))
	locked, err := lock.TryLock()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !locked {
		return lock.Close()
	}
	stands := false
	if err == nil {
		stands, err = standing(lock)
	}
	if stands {
		err = removeAside(dir)
	}
	return errors.Join(err, lock.Close())
}

// removeAside removes a cache that the caller has locked. It takes it out of the way first: whoever comes meanwhile makes
// another, and does not settle in one that is half gone.
func removeAside(dir string) error {
	aside := dir + ".removed" // a sweep that meets it after a crash removes it, too
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	return os.RemoveAll(aside)
}

// lock keeps other processes from fetching an artifact.
func (c *cache) lock(ctx context.Context, digest string) (release func(), err error) {
	lock := flock.New(filepath.Join(c.dir, digest+".lock"), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return nil, errors.Join(localError{err}, lock.Close())
	}
	return func() {
		if err := lock.Close(); err != nil {
			c.log.Warn("unlock an artifact", "sha256", digest, "error", err)
		}
	}, nil
}

func (c *cache) has(digest string) bool {
	_, err := os.Stat(filepath.Join(c.dir, digest))
	return err == nil
}

// open opens an artifact whose bytes it has just verified; fs.ErrNotExist when there is none. One that is damaged is
// removed, and there is none then.
func (c *cache) open(digest string) (_ *os.File, size int64, err error) {
	file, err := os.Open(filepath.Join(c.dir, digest))
	if err != nil {
		return nil, 0, localError{err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	hasher := sha256.New()
	if size, err = io.Copy(hasher, file); err != nil {
		return nil, 0, localError{err}
	}
	if got := hex.EncodeToString(hasher.Sum(nil)); got != digest {
		c.log.Warn("a cached artifact is damaged and fetched anew", "file", file.Name(), "sha256", got)
		if err := os.Remove(file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, localError{err}
		}
		return nil, 0, localError{fs.ErrNotExist}
	}
	if _, err = file.Seek(0, io.SeekStart); err != nil {
		return nil, 0, localError{err}
	}
	return file, size, nil
}

// put stores all of r under the digest, which it must have. When it fails it leaves nothing.
func (c *cache) put(digest string, r io.Reader, from string) (err error) {
	partial := filepath.Join(c.dir, digest+"."+uuid.NewString()+".tmp")
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return localError{err}
	}
	defer func() {
		if err != nil {
			if removing := os.Remove(partial); !errors.Is(removing, fs.ErrNotExist) {
				err = errors.Join(err, removing)
			}
		}
	}()
	hasher := sha256.New()
	size, err := io.Copy(io.MultiWriter(localWriter{file}, hasher), r)
	if closing := file.Close(); closing != nil {
		err = errors.Join(err, localError{closing})
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(hasher.Sum(nil)); got != digest {
		return fmt.Errorf("%w: the %d bytes that came from %s have sha256 %s, but %s was asked for: stage it again", ErrMismatch, size, from, got, digest)
	}
	if err := os.Rename(partial, filepath.Join(c.dir, digest)); err != nil {
		return localError{err}
	}
	return nil
}

// localWriter marks its errors as this host's.
type localWriter struct{ w io.Writer }

func (l localWriter) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	if err != nil {
		err = localError{err}
	}
	return n, err
}
