package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"trestle/internal/kit/here"
)

// probePrefix is where the objects of probes are.
const probePrefix = "probe/"

// Finding is what came of trying a bucket from this host.
type Finding struct {
	// URL is the bucket's, as far as it is known; Host is this one.
	URL, Host string
	// Tried says what was done, or was to be done.
	Tried string
	// Took is how long it took.
	Took time.Duration
	// Remark is what is worth knowing and no failure.
	Remark string
	// Err is what failed and what to do about it, nil when nothing did.
	Err error
}

// String is the finding in one line.
func (f Finding) String() string {
	line := fmt.Sprintf("staging store %s: tried from host %s to %s", f.URL, f.Host, f.Tried)
	took := f.Took.Round(time.Millisecond)
	if f.Err != nil {
		return fmt.Sprintf("%s: failed after %v: %s", line, took, strings.ReplaceAll(f.Err.Error(), "\n", "; "))
	}
	line += fmt.Sprintf(": it works, in %v", took)
	if f.Remark != "" {
		line += "; " + f.Remark
	}
	return line
}

// ProbeWriter tries what a job server does with a bucket: it opens it, writes a small object, reads it back and deletes
// it.
func ProbeWriter(ctx context.Context, location string) Finding {
	return probe(ctx, location, Options{}, "write, read back and delete a small object", func(b Bucket) (string, error) {
		return TryWrite(ctx, b)
	})
}

// ProbeReader tries what a worker does with a bucket: it opens it, and, unless key is empty, reads the object that
// [Mark] wrote, so that a bucket of the same name elsewhere is found out.
func ProbeReader(ctx context.Context, location, key string) Finding {
	tried := "open it and look for an object"
	if key != "" {
		tried = "read what the job server wrote there"
	}
	return probe(ctx, location, Options{ReadOnly: true}, tried, func(b Bucket) (string, error) {
		if key == "" {
			if _, err := b.Stat(ctx, probePrefix+"none"); !IsNotFound(err) {
				return "", err
			}
			return "", nil
		}
		err := readMark(ctx, b, key)
		if IsNotFound(err) {
			err = fmt.Errorf("%w: it is another store than the job server's, or a copy that lags behind: name one that is the same from every host", err)
		}
		return "", err
	})
}

func probe(ctx context.Context, location string, options Options, tried string, try func(Bucket) (remark string, err error)) Finding {
	f := Finding{Host: here.Host(), Tried: tried}
	u, err := parse(location)
	if err != nil {
		f.URL, f.Err = "(no URL)", err // the location may have a secret in it, which the error has not
		return f
	}
	f.URL = display(u)
	begin := time.Now()
	b, err := Open(ctx, location, options)
	if err == nil {
		f.Remark, err = try(b)
		err = errors.Join(err, b.Close())
	}
	if err != nil && !IsDenied(err) && !IsNotFound(err) && !errors.As(err, new(silence)) { // those say what to do
		err = fmt.Errorf("%w: check that the store is up, that its URL is right, and that this host reaches it", err)
	}
	f.Took, f.Err = time.Since(begin), err
	return f
}

// TryWrite writes a small object, reads it back and deletes it. That it may not be deleted is only a remark, which says
// what was left: job servers delete nothing.
func TryWrite(ctx context.Context, b Bucket) (remark string, err error) {
	key, err := Mark(ctx, b)
	if err != nil {
		return "", err
	}
	if err := readMark(ctx, b, key); err != nil {
		return "", err
	}
	if err := b.Delete(ctx, key); err != nil {
		if IsDenied(err) {
			return fmt.Sprintf("%s was left there, because deleting is not allowed, which job servers do without", key), nil
		}
		return "", err
	}
	return "", nil
}

// Mark writes a small object, for [ProbeReader] on other hosts. The caller deletes it.
func Mark(ctx context.Context, b Bucket) (key string, err error) {
	key = probePrefix + uuid.NewString()
	return key, b.Write(ctx, key, strings.NewReader(key))
}

// readMark reads an object that Mark wrote.
func readMark(ctx context.Context, b Bucket, key string) error {
	r, size, err := b.Open(ctx, key)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(io.LimitReader(r, int64(len(key))+1))
	if err != nil {
		return err
	}
	if string(got) != key || size != int64(len(key)) {
		return fmt.Errorf("%s came back as other bytes than were written (%d, of %d): the store or what is in between changes them",
			key, len(got), size)
	}
	return nil
}
