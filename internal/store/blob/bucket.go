package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// bucket is a Bucket over any of gocloud's.
type bucket struct {
	b *gcblob.Bucket
	// url is what errors call it.
	url string
}

func (b *bucket) Stat(ctx context.Context, key string) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, b.fail("stat", key, err)
	}
	attributes, err := b.b.Attributes(ctx, key)
	if err != nil {
		return 0, b.fail("stat", key, err)
	}
	return attributes.Size, nil
}

func (b *bucket) Open(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	if err := checkKey(key); err != nil {
		return nil, 0, b.fail("read", key, err)
	}
	r, err := b.b.NewReader(ctx, key, nil)
	if err != nil {
		return nil, 0, b.fail("read", key, err)
	}
	return &reader{r: r, bucket: b, key: key}, r.Size(), nil
}

// reader names the bucket and key in the errors of a read.
type reader struct {
	r      *gcblob.Reader
	bucket *bucket
	key    string
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.bucket.fail("read", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error {
	if err := r.r.Close(); err != nil {
		return r.bucket.fail("close", r.key, err)
	}
	return nil
}

func (b *bucket) Write(ctx context.Context, key string, r io.Reader) error {
	if err := checkKey(key); err != nil {
		return b.fail("write", key, err)
	}
	// A writer whose context has ended when it is closed throws away what it got; that is gocloud's way to abort.
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	var file *os.File
	w, err := b.b.NewWriter(ctx, key, &gcblob.WriterOptions{
		// With a content type the writer neither sniffs one nor holds the first bytes back.
		ContentType: "application/octet-stream",
		BeforeWrite: func(as func(any) bool) error {
			as(&file) // only the file driver has one
			return nil
		},
	})
	if err != nil {
		return b.fail("write", key, err)
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
		return b.fail("write", key, err)
	}
	err = w.Close()
	if err == nil && file != nil {
		err = syncFolder(filepath.Dir(file.Name()))
	}
	if err != nil {
		return b.fail("write", key, err)
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

func (b *bucket) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return b.fail("delete", key, err)
	}
	if err := b.b.Delete(ctx, key); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return b.fail("delete", key, err)
	}
	return nil
}

func (b *bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		objects := b.b.List(&gcblob.ListOptions{Prefix: prefix})
		for {
			object, err := objects.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Object{}, b.fail("list", prefix, err))
				return
			}
			// A folder's temporary files are no objects.
			if object.IsDir || strings.HasSuffix(object.Key, ".tmp") {
				continue
			}
			if !yield(Object{Key: object.Key, Size: object.Size}, nil) {
				return
			}
		}
	}
}

func (b *bucket) Close() error {
	if err := b.b.Close(); err != nil {
		return fmt.Errorf("close bucket %s: %w", b.url, err)
	}
	return nil
}

// fail names operation, key and bucket, and puts ErrNotFound in the chain where it belongs.
func (b *bucket) fail(operation, key string, err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		// The driver's own words ("no such file", a request id) add nothing to "not found" but noise.
		err = ErrNotFound
	}
	return fmt.Errorf("%s %q in bucket %s: %w", operation, key, b.url, err)
}
