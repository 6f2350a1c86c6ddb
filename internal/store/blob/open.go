package blob

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	gcblob "gocloud.dev/blob"

	"trestle/internal/kit/here"
)

const (
	defaultPatience = 30 * time.Second
	// openPatience is how long Open waits for the bucket's answer: somebody waits for a server to start.
	openPatience = 15 * time.Second
)

// Open opens the bucket that a URL, or the plain path of a folder, names; the package's documentation has the forms.
// Unless it is opened for reading only, a folder that is missing is made. Open asks the bucket once whether it is there,
// so that a wrong name or address is told now and not in the middle of a job. The caller closes the bucket.
func Open(ctx context.Context, location string, options Options) (Bucket, error) {
	u, err := parse(location)
	if err != nil {
		return nil, err
	}
	if options.Patience == 0 {
		options.Patience = defaultPatience
	}
	b := &bucket{options: options, url: display(u), host: here.Host()}
	if b.driver, err = newDriver(ctx, u, options); err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", u, err)
	}
	ask, limit := newLimit(ctx, min(options.Patience, openPatience))
	defer limit.end()
	err = b.check(ask)
	if options.ReadOnly && IsDenied(err) {
		err = nil // who may read objects need not be allowed to list them; a read says so if that is denied as well
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket %s from host %s: %w", b.url, b.host, limit.explain(err)), b.close())
	}
	return b, nil
}

func newDriver(ctx context.Context, u *url.URL, options Options) (driver, error) {
	switch u.Scheme {
	case "file":
		return newFolder(ctx, u.Path, options)
	case "gs":
		return newGCS(ctx, u)
	case "hdfs":
		return newHDFS(u, options)
	default:
		return newCloud(ctx, u)
	}
}

// paramValidation says when the AWS SDK checks what it reads.
const paramValidation = "response_checksum_validation"

// newCloud opens a bucket of gocloud's whose URL names it by the host, and lets keys live below the path.
func newCloud(ctx context.Context, u *url.URL) (driver, error) {
	whole := *u
	whole.Path, whole.RawPath = "", ""
	if q := u.Query(); u.Scheme == "s3" && !q.Has(paramValidation) {
		// Objects that were sent in parts have a checksum of another kind, and the SDK would say so of each on standard
		// error. Whoever reads artifacts has their sha256.
		q.Set(paramValidation, "when_required")
		whole.RawQuery = q.Encode()
	}
	b, err := gcblob.OpenBucket(ctx, whole.String())
	if err != nil {
		// gocloud's option errors begin with the very words that ours do.
		if short, ok := strings.CutPrefix(err.Error(), "open bucket "+whole.String()+": "); ok {
			err = errors.New(short)
		}
		return nil, err
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		b = gcblob.PrefixedBucket(b, prefix+"/")
	}
	return &gocloud{b: b, credentials: howToAuthenticate(u.Scheme)}, nil
}
