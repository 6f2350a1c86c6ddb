package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/dustin/go-humanize"

	"trestle/internal/store/blob"
)

const (
	// defaultPatience is for how long nothing may move, over several tries, before an artifact is given up.
	defaultPatience = 30 * time.Second
	// maxTries bounds the tries of which each brings something.
	maxTries = 8
	// hopeless divides the patience with an origin that has been given up before.
	hopeless = 6
)

// SourceConfig says from where a worker has artifacts and where it keeps them. One of Bucket and Server is set.
type SourceConfig struct {
	// Bucket is the URL of the bucket that they were staged to; see [blob.Portable].
	Bucket string
	// Server is the host:port of a job server that hands them out.
	Server string
	// Dir is a folder on local disk in which each job has a cache, a folder that the job's workers on this host share.
	Dir string
	// Job names the cache: fit for a file name, and the same for all workers of a job.
	Job string
	// Patience is for how long nothing may move before an artifact is given up. Default 30 s. Until something has come again, it
	// is a sixth of that.
	Patience time.Duration
	// Message tells the user what is waited for; nil when nobody listens. It may be called concurrently.
	Message func(text string)
	Log     *slog.Logger
}

// Source has the artifacts of a job on a host on which they were not staged. Each is fetched once, when somebody first
// asks for it, and kept in the job's cache. Its methods may be called concurrently.
type Source struct {
	cfg    SourceConfig
	origin origin
	cache  *cache

	// ctx ends with the source, and with it what is being fetched; fetching counts that.
	ctx      context.Context
	cancel   context.CancelCauseFunc
	fetching sync.WaitGroup

	mu      sync.Mutex
	fetches map[string]*fetch
	dead    bool // the last artifact was given up, and nothing has come since
}

// fetch is an artifact on its way, for all who wait for it.
type fetch struct {
	done chan struct{} // closed when err is set
	err  error
}

// NewSource makes a source. It asks neither bucket nor server yet; both may come up later. What killed workers have left
// of other jobs in cfg.Dir is removed.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Message == nil {
		cfg.Message = func(string) {}
	}
	origin, err := newOrigin(cfg)
	if err != nil {
		return nil, fmt.Errorf("source of artifacts: %w", err)
	}
	c, err := openCache(cfg.Dir, cfg.Job, cfg.Log)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("source of artifacts: %w", err), origin.close())
	}
	s := &Source{cfg: cfg, origin: origin, cache: c, fetches: map[string]*fetch{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// Close ends what is being fetched and waits for it. The last source of a job on this host removes the job's cache. No
// other method may be called afterwards; readers from Open may still be used.
func (s *Source) Close() error {
	s.cancel(errors.New("the worker is ending"))
	s.fetching.Wait()
	if err := errors.Join(s.origin.close(), s.cache.close()); err != nil {
		return fmt.Errorf("close the source of artifacts: %w", err)
	}
	return nil
}

// Open reads an artifact by its sha256 in hex, and tells its size in bytes. It waits for as long as the artifact takes;
// that ends with ctx. Several calls for one artifact share one fetch. What is returned has been verified, by the time
// that Open returns, in the cache. An error for which [blob.IsNotFound] holds says that the origin has no such
// artifact; one with ErrMismatch, that the origin has other bytes under that name.
func (s *Source) Open(ctx context.Context, sha256hex string) (io.ReadCloser, int64, error) {
	digest, err := normalizeSHA256(sha256hex)
	if err != nil {
		return nil, 0, fmt.Errorf("open artifact: %w", err)
	}
	for {
		file, size, err := s.cache.open(digest)
		if err == nil {
			return file, size, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, 0, fmt.Errorf("open artifact %s: %w", digest, err)
		}
		if err := s.fetch(ctx, digest); err != nil {
			return nil, 0, err
		}
	}
}

// fetch waits until the artifact is in the cache. The fetch itself goes on when the one who asked first goes away.
func (s *Source) fetch(ctx context.Context, digest string) error {
	s.mu.Lock()
	f := s.fetches[digest]
	if f == nil {
		f = &fetch{done: make(chan struct{})}
		s.fetches[digest] = f
		s.fetching.Go(func() {
			f.err = s.bring(digest)
			s.mu.Lock()
			delete(s.fetches, digest)
			s.mu.Unlock()
			close(f.done)
		})
	}
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("wait for artifact %s from %s: %w", digest, s.origin, context.Cause(ctx))
	}
}

// bring fetches an artifact into the cache, and tries again for as long as that may help.
func (s *Source) bring(digest string) error {
	release, err := s.cache.lock(s.ctx, digest)
	if err != nil {
		return fmt.Errorf("bring artifact %s to this worker: %w", digest, err)
	}
	defer release()
	if s.cache.has(digest) { // another worker of the job was quicker
		return nil
	}
	begin := time.Now()
	p := &progress{moved: begin}
	defer s.speak(digest, p)()
	pause, patience := backoff.NewExponentialBackOff(), s.patience()
	pause.MaxInterval = patience / 4
	for try := 1; ; try++ {
		err := s.try(digest, p)
		if err == nil {
			s.gaveUp(false)
			s.cfg.Log.Debug("fetched artifact", "sha256", digest, "from", s.origin.String(), "bytes", p.now().bytes, "took", time.Since(begin))
			return nil
		}
		p.failed(err)
		if s.ctx.Err() != nil {
			return fmt.Errorf("bring artifact %s to this worker: %w", digest, context.Cause(s.ctx))
		}
		wait := pause.NextBackOff()
		silent := time.Since(p.now().moved)
		if !mayPass(err) || try == maxTries || silent+wait > patience {
			s.gaveUp(mayPass(err))
			err = fmt.Errorf("bring artifact %s to this worker (tries: %d, in %v): %w", digest, try, time.Since(begin).Round(time.Millisecond), err)
			s.cfg.Message(err.Error())
			return err
		}
		s.cfg.Log.Info("an artifact is tried again", "sha256", digest, "from", s.origin.String(), "in", wait, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			timer.Stop()
		}
	}
}

// patience is how long an artifact is waited for: less when the one before was waited for in vain.
func (s *Source) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return s.cfg.Patience / hopeless
	}
	return s.cfg.Patience
}

func (s *Source) gaveUp(dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = dead
}

// try makes one attempt at an artifact.
func (s *Source) try(digest string, p *progress) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	p.begins()
	r, err := s.origin.open(ctx, digest)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.cache.put(digest, io.TeeReader(r, p), s.origin.String())
}

// mayPass tells whether trying again may help.
func mayPass(err error) bool {
	var local localError
	return !blob.IsNotFound(err) && !blob.IsDenied(err) && !errors.As(err, &local) && !refusedByServer(err)
}

// speak tells the user what is waited for, after some seconds (a part of the patience) and then now and again, until the function that it returns is called.
func (s *Source) speak(digest string, p *progress) (stop func()) {
	begin := time.Now()
	ctx, cancel := context.WithCancel(s.ctx)
	s.fetching.Go(func() {
		for after := s.cfg.Patience / 6; ; after = s.cfg.Patience {
			timer := time.NewTimer(after)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
			now := p.now()
			text := fmt.Sprintf("waiting for artifact %s from %s for %v: %s of it have come", digest, s.origin,
				time.Since(begin).Round(time.Second), humanize.IBytes(uint64(now.bytes)))
			if now.err != nil {
				text += fmt.Sprintf("; trying again after %v", now.err)
			}
			s.cfg.Message(text)
		}
	})
	return cancel
}

// progress is how far a fetch is. It is written to with what comes.
type progress struct {
	mu    sync.Mutex
	moved time.Time // when something came, or the fetch began
	bytes int64     // of this try
	err   error     // of the last try that failed
}

func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.moved = time.Now()
	p.bytes += int64(len(b))
	return len(b), nil
}

func (p *progress) begins() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes = 0
}

func (p *progress) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// now is a copy, without the lock.
func (p *progress) now() (state struct {
	moved time.Time
	bytes int64
	err   error
}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state.moved, state.bytes, state.err = p.moved, p.bytes, p.err
	return state
}
