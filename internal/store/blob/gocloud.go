package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// gocloud is the driver over any of gocloud.dev/blob's.
type gocloud struct {
	b *gcblob.Bucket
	// credentials tells where the driver takes them from.
	credentials string
	// uploadBytes is how much of an upload is kept in memory; the driver's default when 0.
	uploadBytes int
}

func (g *gocloud) check(ctx context.Context) error {
	ok, err := g.b.IsAccessible(ctx)
	if err != nil {
		return g.translate(err)
	}
	if !ok {
		return fmt.Errorf("there is no such bucket; create it, or correct the name: %w", ErrNotFound)
	}
	return nil
}

func (g *gocloud) stat(ctx context.Context, key string) (int64, error) {
	attributes, err := g.b.Attributes(ctx, key)
	if err != nil {
		return 0, g.translate(err)
	}
	return attributes.Size, nil
}

func (g *gocloud) open(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	r, err := g.b.NewReader(ctx, key, nil)
	if err != nil {
		return nil, 0, g.translate(err)
	}
	return r, r.Size(), nil
}

func (g *gocloud) write(ctx context.Context, key string, r io.Reader) error {
	// A writer whose context has ended when it is closed throws away what it got; that is gocloud's way to abort.
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	var file *os.File
	w, err := g.b.NewWriter(ctx, key, &gcblob.WriterOptions{
		// With a content type the writer neither sniffs one nor holds the first bytes back.
		ContentType: "application/octet-stream",
		BufferSize:  g.uploadBytes,
		BeforeWrite: func(as func(any) bool) error {
			as(&file) // only the file driver has one
			return nil
		},
	})
	if err != nil {
		return g.translate(err)
	}
	_, err = io.Copy(w, r)
	if err == nil && file != nil {
		// The file driver renames without a sync: after a power cut the name could be there and the bytes not.
		err = file.Sync()
	}
	if err != nil {
		abort()
		if closing := w.Close(); closing != nil && !errors.Is(closing, context.Canceled) {
			err = fmt.Errorf("%w (and while giving up: %w)", err, closing)
		}
		return g.translate(err)
	}
	err = w.Close()
	if err == nil && file != nil {
		err = syncFolder(filepath.Dir(file.Name()))
	}
	if err != nil {
		return g.translate(err)
	}
	return nil
}

// syncFolder makes the new name of a file durable: the temporary file lay in the same folder.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (g *gocloud) delete(ctx context.Context, key string) error {
	if err := g.b.Delete(ctx, key); err != nil {
		return g.translate(err)
	}
	return nil
}

func (g *gocloud) list(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		objects := g.b.List(&gcblob.ListOptions{Prefix: prefix})
		for {
			object, err := objects.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Object{}, g.translate(err))
				return
			}
			if !object.IsDir && !yield(Object{Key: object.Key, Size: object.Size}, nil) {
				return
			}
		}
	}
}

func (g *gocloud) close() error { return g.b.Close() }

// translate puts ErrNotFound or ErrDenied into the chain where it belongs.
func (g *gocloud) translate(err error) error {
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		// The driver's own words ("no such file", a request id) add nothing to "not found" but noise.
		return ErrNotFound
	case gcerrors.Code(err) == gcerrors.PermissionDenied, refusesS3(err), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w (%s): %w", ErrDenied, g.credentials, bare(err))
	default:
		return bare(err)
	}
}

// bare takes gocloud's envelope off, which repeats the key and gives a code, and an SDK's around a connection's failure,
// which has a status and ids of an answer that never came.
func bare(err error) error {
	var connection *url.Error
	if errors.As(err, &connection) {
		return connection
	}
	envelope, ok := err.(interface {
		Format(fmt.State, rune)
		Unwrap() []error
	})
	if ok {
		if inner := envelope.Unwrap(); len(inner) > 0 && inner[0] != nil {
			return inner[0]
		}
	}
	return err
}
