// Package blob keeps whole objects by key in a bucket that is opened by URL: a folder or an S3 bucket in the default
// build (drivers.go), anything else that gocloud.dev/blob has a driver for by one more blank import there.
//
// # URLs
//
//	/var/lib/trestle/blobs           a folder, made if missing; the same as file:///var/lib/trestle/blobs
//	s3://bucket?region=eu-west-1     S3, with the credentials that the AWS SDK finds (environment, profile, instance role)
//	s3://bucket?endpoint=http://minio:9000&use_path_style=true&region=x
//	                                 an S3-compatible server; some also want request_checksum_calculation=when_required
//	…&prefix=trestle/                any of them: keys live under the prefix
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// ErrNotFound is in the chain of an error about a key that the bucket does not hold.
var ErrNotFound = errors.New("not found")

// IsNotFound tells whether err says that the bucket does not hold the key.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// Object is what a listing tells of an object.
type Object struct {
	Key string
	// Size in bytes.
	Size int64
}

// Bucket holds whole objects. Its methods may be called concurrently. Every error names the operation, the key and the
// bucket's URL.
//
// A key is a relative slash-separated path without empty, "." or ".." elements; its last element may not end in
// ".tmp" or ".attrs", which the file driver keeps for itself. Any other key is refused before the bucket is asked.
type Bucket interface {
	// Stat tells an object's size in bytes; ErrNotFound when there is none.
	Stat(ctx context.Context, key string) (int64, error)
	// Open reads an object from its start, and tells its size; ErrNotFound when there is none. The caller closes the
	// reader. The read ends with ctx.
	Open(ctx context.Context, key string) (io.ReadCloser, int64, error)
	// Write stores all of r under key, replacing what was there. It is atomic: readers see the old object or the whole
	// new one, and when Write fails (r fails, ctx ends) nothing has changed. When it returns nil the object is durable.
	Write(ctx context.Context, key string, r io.Reader) error
	// Delete removes an object. It is no error when there is none.
	Delete(ctx context.Context, key string) error
	// List walks the objects whose keys start with prefix, which need not end at a slash, in the order of their keys.
	// The first error ends the walk.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Close releases the bucket. Nothing may be called after it.
	Close() error
}

// checkKey refuses a key that is not a clean relative path, or that the file driver would take for one of its own files.
func checkKey(key string) error {
	for element := range strings.SplitSeq(key, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("invalid key %q: it must be a relative path without empty, \".\" or \"..\" elements", key)
		}
	}
	if strings.ContainsRune(key, 0) {
		return fmt.Errorf("invalid key %q: it has a NUL byte", key)
	}
	if strings.HasSuffix(key, ".tmp") || strings.HasSuffix(key, ".attrs") {
		return fmt.Errorf("invalid key %q: the endings .tmp and .attrs are reserved", key)
	}
	return nil
}
