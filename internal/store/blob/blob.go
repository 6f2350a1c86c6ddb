// Package blob keeps whole objects by key in a bucket that is opened by URL: a folder, S3, Google
// Cloud Storage, HDFS.
//
// # URLs
//
//	/var/lib/trestle/blobs           a folder, made if missing; the same as file:///var/lib/trestle/blobs
//	s3://bucket/path?region=eu-west-1    S3; keys live below the path. Credentials, and what else the URL does not say,
//	                                 as the AWS SDK finds them (AWS_ACCESS_KEY_ID, AWS_PROFILE, instance role, AWS_REGION, …)
//	s3://bucket/path?endpoint=http://minio:9000      an S3-compatible server, or with AWS_ENDPOINT_URL in the environment;
//	                                 some also want request_checksum_calculation=when_required
//	gs://bucket/path                 Google Cloud Storage; credentials as Google's clients find them
//	                                 (GOOGLE_APPLICATION_CREDENTIALS, service account), or ?anonymous=true
//	hdfs://namenode:8020/path        HDFS, as the user in HADOOP_USER_NAME, else as this process's; the host may be a name
//	                                 service of the Hadoop configuration in HADOOP_CONF_DIR
//
// Credentials in a URL are refused: it is written to logs and told to other hosts ([Portable]).
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// ErrNotFound is in the chain of an error about a key that the bucket does not hold.
var ErrNotFound = errors.New("not found")

// ErrDenied is in the chain of an error about something that the bucket knows how to do and will not do for us.
var ErrDenied = errors.New("permission denied")

// IsNotFound tells whether err says that the bucket does not hold the key.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// IsDenied tells whether err says that the bucket refuses us: there are no credentials, or they do not allow it.
func IsDenied(err error) bool { return errors.Is(err, ErrDenied) }

// Options are how a bucket is opened. The zero value is for one who reads and writes.
type Options struct {
	// ReadOnly says that the bucket is somebody else's to make and to sweep: a folder must be there. It does not keep
	// the caller from writing.
	ReadOnly bool
	// Patience is how long nothing may move in an operation before it fails. Default 30 s: it covers a driver's own
	// attempts, and a part of an upload on a slow line.
	Patience time.Duration
}

// Object is what a listing tells of an object.
type Object struct {
	Key string
	// Size in bytes.
	Size int64
}

// Bucket holds whole objects. Its methods may be called concurrently. Every error names the operation, the key, the
// bucket's URL and this host. An operation in which nothing moves for [Options.Patience] fails.
//
// A key is a relative slash-separated path without empty, "." or ".." elements; its last element may not end in
// ".tmp" or ".attrs", which drivers keep for themselves. Any other key is refused before the bucket is asked.
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

// checkKey refuses a key that is not a clean relative path, or that a driver would take for one of its own files.
func checkKey(key string) error {
	for element := range strings.SplitSeq(key, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("invalid key %q: it must be a relative path without empty, \".\" or \"..\" elements", key)
		}
	}
	if strings.ContainsRune(key, 0) {
		return fmt.Errorf("invalid key %q: it has a NUL byte", key)
	}
	if temporary(key) || strings.HasSuffix(key, ".attrs") {
		return fmt.Errorf("invalid key %q: the endings .tmp and .attrs are reserved", key)
	}
	return nil
}

// temporary tells whether a name is that of a file that is being written.
func temporary(name string) bool { return strings.HasSuffix(name, ".tmp") }
