package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/colinmarc/hdfs/v2"
	"github.com/google/uuid"
)

const (
	// closeTries bounds how often HDFS is asked whether a file's last block has reached its DataNodes: with the pauses
	// between, half a minute.
	closeTries = 25
	// abandonedHDFS is the age past which a temporary file has no writer. HDFS tells a file's age from when it was made.
	abandonedHDFS = 24 * time.Hour
	// tidy is how long the removal of a temporary file may take when its write has failed.
	tidy = 5 * time.Second
)

// hadoop is the driver for HDFS, over its own protocol. Keys are files below a folder; a file is written under another
// name and renamed.
type hadoop struct {
	options hdfs.ClientOptions
	root    string
	// readOnly is as in Options.
	readOnly bool
}

// newHDFS makes the driver for hdfs://host:port/path. The host may be a name service of the Hadoop configuration that
// HADOOP_CONF_DIR or HADOOP_HOME names.
func newHDFS(u *url.URL, options Options) (driver, error) {
	client, err := hdfsOptions(u)
	if err != nil {
		return nil, err
	}
	return &hadoop{options: client, root: path.Join("/", u.Path), readOnly: options.ReadOnly}, nil
}

func (h *hadoop) check(ctx context.Context) error {
	return h.do(ctx, func(c *hdfs.Client) error {
		info, err := c.Stat(h.root)
		switch {
		case err == nil && !info.IsDir():
			return fmt.Errorf("%s is not a directory", h.root)
		case errors.Is(err, os.ErrNotExist) && h.readOnly:
			return fmt.Errorf("there is no directory %s: it must be the one that the job server stages to: %w", h.root, ErrNotFound)
		case errors.Is(err, os.ErrNotExist):
			return c.MkdirAll(h.root, 0o755)
		case err != nil || h.readOnly:
			return err
		}
		return h.walk(c, h.root, "", func(key string, info os.FileInfo) error {
			if temporary(key) && time.Since(info.ModTime()) > abandonedHDFS {
				if err := c.Remove(h.path(key)); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
			return nil
		})
	})
}

func (h *hadoop) path(key string) string { return path.Join(h.root, key) }

func (h *hadoop) stat(ctx context.Context, key string) (size int64, err error) {
	err = h.do(ctx, func(c *hdfs.Client) error {
		info, err := c.Stat(h.path(key))
		if err == nil && info.IsDir() {
			return ErrNotFound
		}
		if err == nil {
			size = info.Size()
		}
		return err
	})
	return size, err
}

func (h *hadoop) open(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	s, err := h.connect(ctx)
	if err != nil {
		return nil, 0, err
	}
	file, err := s.client.Open(h.path(key))
	if err == nil && file.Stat().IsDir() {
		err = ErrNotFound
	}
	if err != nil {
		return nil, 0, errors.Join(h.translate(err), s.close())
	}
	return &hadoopReader{file: file, session: s, hadoop: h}, file.Stat().Size(), nil
}

// hadoopReader is a file that is read over a session of its own.
type hadoopReader struct {
	file    *hdfs.FileReader
	session *session
	hadoop  *hadoop
}

func (r *hadoopReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.hadoop.translate(err)
	}
	return n, err
}

func (r *hadoopReader) Close() error {
	return errors.Join(r.file.Close(), r.session.close())
}

func (h *hadoop) write(ctx context.Context, key string, r io.Reader) error {
	name := h.path(key)
	partial := name + "." + uuid.NewString() + ".tmp"
	err := h.session(ctx, func(s *session) error {
		if err := s.client.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		file, err := s.client.Create(partial)
		if err != nil {
			return err
		}
		if _, err := io.Copy(file, whileWhole{r, s}); err != nil {
			// Only closing ends the writer's goroutines. What it says is no news.
			_ = file.Close()
			return err
		}
		if err := closeFile(ctx, file); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.client.Rename(partial, name)
	})
	if err == nil {
		return nil
	}
	// ctx may have ended, and the session with it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidy)
	defer cancel()
	removing := h.do(ctx, func(c *hdfs.Client) error { return c.Remove(partial) })
	if removing != nil && !IsNotFound(removing) && removing.Error() != err.Error() {
		err = fmt.Errorf("%w (and while removing what there was of it: %w)", err, removing)
	}
	return err
}

// closeFile closes a file that was written, once its last block has arrived.
func closeFile(ctx context.Context, file *hdfs.FileWriter) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 20*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := file.Close()
		if err != nil && !hdfs.IsErrReplicating(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pause), backoff.WithMaxTries(closeTries))
	return err
}

func (h *hadoop) delete(ctx context.Context, key string) error {
	return h.do(ctx, func(c *hdfs.Client) error {
		info, err := c.Stat(h.path(key))
		if err != nil {
			return err
		}
		if info.IsDir() {
			return ErrNotFound
		}
		return c.Remove(h.path(key))
	})
}

// errLeft ends a walk whose caller has left it.
var errLeft = errors.New("left")

func (h *hadoop) list(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		err := h.do(ctx, func(c *hdfs.Client) error {
			return h.walk(c, h.root, prefix, func(key string, info os.FileInfo) error {
				if !yield(Object{Key: key, Size: info.Size()}, nil) {
					return errLeft
				}
				return nil
			})
		})
		if err != nil && !errors.Is(err, errLeft) {
			yield(Object{}, err)
		}
	}
}

// walk visits the files in a folder whose keys start with prefix, in the order of their keys.
func (h *hadoop) walk(c *hdfs.Client, folder, prefix string, visit func(key string, info os.FileInfo) error) error {
	entries, err := c.ReadDir(folder)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil // removed meanwhile
		}
		return err
	}
	// A folder's name stands for the keys below it, which go on with a slash.
	key := func(info os.FileInfo) string {
		k := strings.TrimPrefix(strings.TrimPrefix(path.Join(folder, info.Name()), h.root), "/")
		if info.IsDir() {
			k += "/"
		}
		return k
	}
	slices.SortFunc(entries, func(a, b os.FileInfo) int { return strings.Compare(key(a), key(b)) })
	for _, entry := range entries {
		k := key(entry)
		switch {
		case entry.IsDir() && (strings.HasPrefix(k, prefix) || strings.HasPrefix(prefix, k)):
			err = h.walk(c, path.Join(folder, entry.Name()), prefix, visit)
		case !entry.IsDir() && strings.HasPrefix(k, prefix):
			err = visit(k, entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *hadoop) close() error { return nil }

// translate puts ErrNotFound or ErrDenied into the chain where it belongs, and takes Java's stack traces off.
func (h *hadoop) translate(err error) error {
	var remote hdfs.Error
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ErrNotFound
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w to user %s (%s): %w", ErrDenied, h.options.User, howToAuthenticate("hdfs"), err)
	case errors.As(err, &remote):
		message, _, _ := strings.Cut(remote.Message(), "\n")
		return fmt.Errorf("%w: %s", err, message)
	default:
		return err
	}
}
