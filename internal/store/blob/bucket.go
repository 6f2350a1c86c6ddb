package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
)

// driver is what stands behind a bucket. Its methods are as [Bucket]'s of the same name, with these differences: keys
// are valid, errors name neither key nor bucket, and time limits are the bucket's, which ends ctx.
type driver interface {
	stat(ctx context.Context, key string) (int64, error)
	open(ctx context.Context, key string) (io.ReadCloser, int64, error)
	write(ctx context.Context, key string, r io.Reader) error
	// delete may return ErrNotFound.
	delete(ctx context.Context, key string) error
	list(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// check asks once whether the bucket is there.
	check(ctx context.Context) error
	close() error
}

// bucket is a Bucket over any driver.
type bucket struct {
	driver
	options Options
	// url is what errors call it; host is this one.
	url, host string
}

func (b *bucket) Stat(ctx context.Context, key string) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, b.fail("stat", key, err)
	}
	ctx, limit := newLimit(ctx, b.options.Patience)
	defer limit.end()
	size, err := b.stat(ctx, key)
	if err != nil {
		return 0, b.fail("stat", key, limit.explain(err))
	}
	return size, nil
}

func (b *bucket) Open(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	if err := checkKey(key); err != nil {
		return nil, 0, b.fail("read", key, err)
	}
	ctx, limit := newLimit(ctx, b.options.Patience)
	r, size, err := b.open(ctx, key)
	if err != nil {
		err = limit.explain(err)
		limit.end()
		return nil, 0, b.fail("read", key, err)
	}
	limit.pause() // until the caller reads
	return &reader{r: r, limit: limit, bucket: b, key: key}, size, nil
}

// reader names the bucket and key in the errors of a read, and ends one in which nothing moves.
type reader struct {
	r      io.ReadCloser
	limit  *limit
	bucket *bucket
	key    string
}

func (r *reader) Read(p []byte) (int, error) {
	r.limit.resume()
	defer r.limit.pause()
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.bucket.fail("read", r.key, r.limit.explain(err))
	}
	return n, err
}

func (r *reader) Close() error {
	r.limit.end()
	if err := r.r.Close(); err != nil {
		return r.bucket.fail("close", r.key, err)
	}
	return nil
}

func (b *bucket) Write(ctx context.Context, key string, r io.Reader) error {
	if err := checkKey(key); err != nil {
		return b.fail("write", key, err)
	}
	ctx, limit := newLimit(ctx, b.options.Patience)
	defer limit.end()
	if err := b.write(ctx, key, source{r, limit}); err != nil {
		return b.fail("write", key, limit.explain(err))
	}
	return nil
}

// source is what is written: that it takes its time is not the bucket's fault, and that it is asked for more means that
// the bucket moves.
type source struct {
	r     io.Reader
	limit *limit
}

func (s source) Read(p []byte) (int, error) {
	s.limit.pause()
	defer s.limit.resume()
	return s.r.Read(p)
}

func (b *bucket) Delete(ctx context.Context, key string) error {
	if err := checkKey(key); err != nil {
		return b.fail("delete", key, err)
	}
	ctx, limit := newLimit(ctx, b.options.Patience)
	defer limit.end()
	if err := b.delete(ctx, key); err != nil && !IsNotFound(err) {
		return b.fail("delete", key, limit.explain(err))
	}
	return nil
}

func (b *bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		ctx, limit := newLimit(ctx, b.options.Patience)
		defer limit.end()
		for object, err := range b.list(ctx, prefix) {
			limit.pause()
			if err != nil {
				yield(Object{}, b.fail("list", prefix, limit.explain(err)))
				return
			}
			// What is being written is no object.
			if !temporary(object.Key) && !yield(object, nil) {
				return
			}
			limit.resume()
		}
	}
}

func (b *bucket) Close() error {
	if err := b.close(); err != nil {
		return fmt.Errorf("close bucket %s: %w", b.url, err)
	}
	return nil
}

// fail names operation, key, bucket and host.
func (b *bucket) fail(operation, key string, err error) error {
	return fmt.Errorf("%s %q in bucket %s from host %s: %w", operation, key, b.url, b.host, err)
}
