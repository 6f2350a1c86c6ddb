package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"trestle/internal/store/blob"
	"trestle/test/line"
)

// told collects what a source tells the user.
type told struct {
	mu    sync.Mutex
	texts []string
}

func (m *told) message(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.texts = append(m.texts, text)
}

func (m *told) all() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.texts, "\n")
}

func newSource(t *testing.T, cfg SourceConfig) *Source {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Job == "" {
		cfg.Job = "job-1"
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	s, err := NewSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.cache.dir); !os.IsNotExist(err) {
			t.Errorf("the cache is still there: %v", err)
		}
	})
	return s
}

func fetched(s *Source, ctx context.Context, digest string) ([]byte, error) { //nolint:revive // reads as the method would
	r, size, err := s.Open(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err == nil && size != int64(len(content)) {
		err = errors.New("another size than was told")
	}
	return content, err
}

// onlyWhole checks that a source's cache holds whole artifacts and locks, and no part of an artifact.
func onlyWhole(t *testing.T, s *Source) {
	t.Helper()
	for _, file := range files(t, s.cache.dir) {
		name := filepath.Base(file)
		if name == cacheLock || strings.HasSuffix(name, ".lock") {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil || sum(content) != name {
			t.Errorf("the cache holds %s, which is no whole artifact: %v", name, err)
		}
	}
}

// origins are the ways by which a source may have what a world has staged, behind a line.
func origins(t *testing.T, each func(t *testing.T, w *world, l *line.Line, cfg SourceConfig)) {
	t.Run("from the bucket", func(t *testing.T) {
		t.Setenv("AWS_ACCESS_KEY_ID", "test")
		t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
		t.Setenv("AWS_MAX_ATTEMPTS", "1") // the source has its own tries
		backend := s3mem.New()
		if err := backend.CreateBucket("b"); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(gofakes3.New(backend).Server())
		t.Cleanup(server.Close)
		bucket, err := blob.Open(t.Context(), "s3://b/p?endpoint="+server.URL, blob.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { bucket.Close() })
		w := &world{t: t, store: NewStore(bucket, t.TempDir())}
		u, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		l := line.New(t, u.Host)
		each(t, w, l, SourceConfig{Bucket: "s3://b/p?endpoint=http://" + l.Address()})
	})
	t.Run("from the job server", func(t *testing.T) {
		w := newWorld(t)
		l := line.New(t, w.listen())
		each(t, w, l, SourceConfig{Server: l.Address()})
	})
}

// From a store, or the job server, through a worker's own retrieval service to the harness's folder.
func TestSourceServesHarnesses(t *testing.T) {
	origins(t, func(t *testing.T, w *world, l *line.Line, cfg SourceConfig) {
		small, large := random(100, 1), random(5<<20+3, 2)
		w.put(small)
		w.put(large)
		s := newSource(t, cfg)
		worker := &world{t: t, retrieval: NewRetrieval(s, slog.New(slog.DiscardHandler))}
		worker.serveRetrieval()
		for range 2 { // the second harness has them out of the cache
			dir, got, err := worker.fetch(stagedInfo(small, "small"), stagedInfo(large, "lib/large"))
			if err != nil || len(got) != 2 {
				t.Fatal(got, err)
			}
			content, err := os.ReadFile(filepath.Join(dir, "lib", "large"))
			if err != nil || !bytes.Equal(content, large) {
				t.Errorf("%d bytes, %v", len(content), err)
			}
			l.Close() // what is cached needs nobody
		}
		_, _, err := worker.fetch(urlInfo("http://example.org/x", "", "n"))
		wantError(t, err, "staging leaves no URLs", "(InvalidArgument)")
		onlyWhole(t, s)
	})
}

// serveRetrieval serves the world's retrieval service alone.
func (w *world) serveRetrieval() {
	server := grpc.NewServer()
	jobpb.RegisterArtifactRetrievalServiceServer(server, w.retrieval)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	serving := make(chan error, 1)
	go func() { serving <- server.Serve(l) }()
	if w.conn, err = grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		w.conn.Close()
		server.Stop()
		if err := <-serving; err != nil {
			w.t.Error(err)
		}
	})
}

// However many ask, on however many workers of a host, an artifact is fetched once.
func TestSourceFetchesOnce(t *testing.T) {
	content := random(3<<20, 1)
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	counting := &countingOrigin{content: content, gate: make(chan struct{})}
	var sources []*Source
	for range 2 {
		s, err := NewSource(SourceConfig{Server: "127.0.0.1:1", Dir: dir, Job: "j", Log: log})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.origin.close(); err != nil {
			t.Fatal(err)
		}
		s.origin = counting
		sources = append(sources, s)
	}
	gone, leave := context.WithCancel(t.Context())
	var wg, left sync.WaitGroup
	left.Go(func() {
		_, err := fetched(sources[0], gone, sum(content))
		wantError(t, err, "wait for artifact", "counting", "context canceled")
	})
	for i := range 8 {
		wg.Go(func() {
			got, err := fetched(sources[i%2], t.Context(), sum(content))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	leave() // the one who goes away takes nothing from the others
	left.Wait()
	close(counting.gate)
	wg.Wait()
	if n := counting.count(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	// The cache is there until its last user ends.
	if err := sources[0].Close(); err != nil {
		t.Error(err)
	}
	if got, err := fetched(sources[1], t.Context(), sum(content)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after the other's end: %d bytes, %v", len(got), err)
	}
	if err := sources[1].Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

type countingOrigin struct {
	content []byte
	gate    chan struct{}
	mu      sync.Mutex
	opened  int
}

func (o *countingOrigin) String() string { return "counting" }
func (o *countingOrigin) close() error   { return nil }

func (o *countingOrigin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opened
}

func (o *countingOrigin) open(context.Context, string) (io.ReadCloser, error) {
	<-o.gate
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened++
	return io.NopCloser(bytes.NewReader(o.content)), nil
}

func TestSourceRefetchesWhatIsDamagedInTheCache(t *testing.T) {
	w := newWorld(t)
	content := random(1000, 1)
	w.put(content)
	s := newSource(t, SourceConfig{Bucket: w.dir})
	if _, err := fetched(s, t.Context(), sum(content)); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(content)
	damaged[500] ^= 1
	if err := os.WriteFile(filepath.Join(s.cache.dir, sum(content)), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := fetched(s, t.Context(), sum(content)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestSourceWithoutTheArtifact(t *testing.T) {
	origins(t, func(t *testing.T, _ *world, l *line.Line, cfg SourceConfig) {
		s := newSource(t, cfg)
		begin := time.Now()
		_, err := fetched(s, t.Context(), sum([]byte("x")))
		if !blob.IsNotFound(err) || time.Since(begin) > time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		host, _ := os.Hostname()
		wantError(t, err, "bring artifact "+sum([]byte("x")), "tries: 1", l.Address(), "from host "+host, "submit the job again")
		onlyWhole(t, s)
	})
}

// A bit flips in the store: neither bucket nor server gets it past the worker.
func TestSourceWithDamagedBytes(t *testing.T) {
	w := newWorld(t)
	content := random(2<<20, 1)
	w.put(content)
	damaged := bytes.Clone(content)
	damaged[1<<20] ^= 4
	if err := os.WriteFile(filepath.Join(w.dir, "artifacts", sum(content)), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]SourceConfig{"bucket": {Bucket: w.dir}, "server": {Server: w.listen()}} {
		t.Run(name, func(t *testing.T) {
			cfg.Patience = 3 * time.Second
			s := newSource(t, cfg)
			_, err := fetched(s, t.Context(), sum(content))
			wantError(t, err, "sha256 mismatch", sum(content), sum(damaged), "stage it again")
			onlyWhole(t, s)
		})
	}
}

// A line that breaks in the middle, and one that changes bytes for a while, cost another try.
func TestSourceTriesAgain(t *testing.T) {
	content := bytes.Repeat([]byte("\xabxyz"), 1<<20)
	origins(t, func(t *testing.T, w *world, l *line.Line, cfg SourceConfig) {
		w.put(content)
		s := newSource(t, cfg)
		l.Cut.Store(2 << 20)
		if got, err := fetched(s, t.Context(), sum(content)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if n := l.Conns.Load(); n < 2 {
			t.Errorf("%d connections: nothing was tried again", n)
		}
	})
	t.Run("changed on the way", func(t *testing.T) {
		w := newWorld(t)
		w.put(content)
		l := line.New(t, w.listen())
		l.Flip.Store(0xab)
		s := newSource(t, SourceConfig{Server: l.Address()})
		time.AfterFunc(100*time.Millisecond, func() { l.Flip.Store(0) })
		if got, err := fetched(s, t.Context(), sum(content)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// An origin that accepts and never answers, and one that is not there, fail within the source's patience; the user has
// heard of it by then.
func TestSourceGivesUp(t *testing.T) {
	origins(t, func(t *testing.T, _ *world, l *line.Line, cfg SourceConfig) {
		cfg.Patience = 1500 * time.Millisecond
		var user told
		cfg.Message = user.message
		host, _ := os.Hostname()
		for _, c := range []struct {
			how  func()
			want []string
		}{
			{func() { l.Silent.Store(true) }, []string{"nothing has moved for 500ms", "check that"}},
			// Refused. S3's client tries that for as long as it happens to: mostly for longer than nothing may move.
			{func() { l.Close() }, nil},
		} {
			c.how()
			s := newSource(t, cfg)
			begin := time.Now()
			_, err := fetched(s, t.Context(), sum(nil))
			if took := time.Since(begin); took > time.Minute {
				t.Errorf("took %v", took)
			}
			wantError(t, err, append(c.want, l.Address(), host, "tries: ")...)
			if said := user.all(); !strings.Contains(said, "waiting for artifact "+sum(nil)+" from ") || !strings.Contains(said, err.Error()) {
				t.Errorf("the user was told %q", said)
			}
			if s.patience() >= cfg.Patience {
				t.Errorf("the next artifact is waited for as long as this one")
			}
			onlyWhole(t, s)
		}
	})
}

// One that comes up late is waited for.
func TestSourceWaitsForAServer(t *testing.T) {
	w := newWorld(t)
	content := random(10, 1)
	w.put(content)
	l := line.New(t, "127.0.0.1:1") // where nobody listens
	s := newSource(t, SourceConfig{Server: l.Address()})
	up := w.listen()
	l.AfterFirst.Store(&up)
	if got, err := fetched(s, t.Context(), sum(content)); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What is wrong on this host is told at once: no other try would mend it.
func TestSourceWithoutItsFolder(t *testing.T) {
	w := newWorld(t)
	content := random(10, 1)
	w.put(content)
	s := newSource(t, SourceConfig{Bucket: w.dir})
	if err := os.RemoveAll(s.cache.dir); err != nil {
		t.Fatal(err)
	}
	_, err := fetched(s, t.Context(), sum(content))
	wantError(t, err, "bring artifact", "no such file or directory")
}

// What killed workers have left goes when the next worker starts; what living ones use stays.
func TestSourceSweepsTheCachesOfTheDead(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t)
	alive := newSource(t, SourceConfig{Bucket: w.dir, Dir: dir, Job: "alive"})
	dead, foreign := filepath.Join(dir, cachePrefix+"dead"), filepath.Join(dir, "other")
	for _, path := range []string{filepath.Join(dead, cacheLock), filepath.Join(dead, "x.tmp"), filepath.Join(foreign, "file")} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newSource(t, SourceConfig{Bucket: w.dir, Dir: dir, Job: "new"})
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead worker's cache: %v", err)
	}
	for _, path := range []string{alive.cache.dir, foreign} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(foreign); err != nil {
		t.Fatal(err)
	}
}

func TestSourceRefuses(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		cfg  SourceConfig
		want string
	}{
		{SourceConfig{}, "neither a bucket nor a job server"},
		{SourceConfig{Bucket: "/b", Server: "h:1"}, "both a bucket"},
		{SourceConfig{Bucket: "mem://"}, "cannot be read from another host"},
		{SourceConfig{Bucket: "s3://user:pw@b"}, "credentials do not belong in the URL"},
		{SourceConfig{Server: "nowhere"}, `"nowhere" must be host:port`},
		{SourceConfig{Server: "h:1", Job: "../x"}, "not fit for a file name"},
	} {
		c.cfg.Dir, c.cfg.Log = t.TempDir(), log
		if c.cfg.Job == "" {
			c.cfg.Job = "j"
		}
		_, err := NewSource(c.cfg)
		wantError(t, err, c.want)
	}
	s := newSource(t, SourceConfig{Bucket: t.TempDir()})
	_, _, err := s.Open(t.Context(), "../../etc/passwd")
	wantError(t, err, "is not a sha256")
	shared := t.TempDir()
	if err := os.MkdirAll(filepath.Join(shared, cachePrefix+"j"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(shared, cachePrefix+"j"), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err = NewSource(SourceConfig{Bucket: t.TempDir(), Dir: shared, Job: "j", Log: log})
	wantError(t, err, "is no folder of this user's alone")
}
