package blob

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	gcblob "gocloud.dev/blob"
)

// Open opens the bucket that a URL, or the plain path of a folder, names; the package's documentation has the forms. A
// folder that is missing is made. Open asks the bucket once whether it is there, so that a wrong name or address is told
// now and not in the middle of a job. The caller closes the bucket.
func Open(ctx context.Context, location string) (Bucket, error) {
	u, err := parse(location)
	if err != nil {
		return nil, fmt.Errorf("open bucket %q: %w", location, err)
	}
	if u.User != nil {
		return nil, fmt.Errorf("open bucket %s: credentials do not belong in the URL, where logs would show them: "+
			"give them the driver's own way (for s3, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)", u.Redacted())
	}
	name := u.String()
	if known := gcblob.DefaultURLMux().BucketSchemes(); !slices.Contains(known, u.Scheme) {
		slices.Sort(known)
		return nil, fmt.Errorf("open bucket %s: this build has no driver for %s://; it has %s",
			name, u.Scheme, strings.Join(known, ", "))
	}
	dir := ""
	if u.Scheme == "file" {
		if dir, err = prepareFile(u); err != nil {
			return nil, fmt.Errorf("open bucket %s: %w", name, err)
		}
	}
	b, err := gcblob.OpenBucket(ctx, u.String())
	if err != nil {
		// gocloud's option errors begin with the very words that ours do.
		if short, ok := strings.CutPrefix(err.Error(), "open bucket "+u.String()+": "); ok {
			err = errors.New(short)
		}
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	ok, err := b.IsAccessible(ctx)
	if err == nil && !ok {
		err = errors.New("there is no such bucket; create it, or correct the name")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket %s: %w", name, err), b.Close())
	}
	if dir != "" {
		if err := sweep(dir); err != nil {
			return nil, errors.Join(fmt.Errorf("open bucket %s: %w", name, err), b.Close())
		}
	}
	return &bucket{b: b, url: strings.TrimSuffix(withoutQuery(u), "/")}, nil
}

// parse takes a URL or a plain path for what it is.
func parse(location string) (*url.URL, error) {
	if location == "" {
		return nil, errors.New("the location is empty: give a folder or a URL such as s3://bucket")
	}
	if !strings.Contains(location, "://") {
		abs, err := filepath.Abs(location)
		if err != nil {
			return nil, err
		}
		return &url.URL{Scheme: "file", Path: abs}, nil
	}
	u, err := url.Parse(location)
	if err != nil {
		var parseError *url.Error
		if errors.As(err, &parseError) {
			err = parseError.Err // without a second copy of the location
		}
		return nil, err
	}
	return u, nil
}

// prepareFile sets the options that the rest of the package relies on, and returns the folder: it is made when missing,
// temporary files lie beside the objects (a rename across file systems is not atomic), and there are no side files.
func prepareFile(u *url.URL) (string, error) {
	dir := u.Path
	switch u.Host {
	case "", "localhost":
	case ".":
		dir = strings.TrimPrefix(dir, "/")
	default:
		return "", fmt.Errorf("a file URL has no host, but this one has %q: write file:///%s%s for a folder on this machine",
			u.Host, u.Host, u.Path)
	}
	if dir == "" {
		return "", errors.New("the path is empty")
	}
	q := u.Query()
	q.Set("create_dir", "true")
	q.Set("no_tmp_dir", "true")
	q.Set("metadata", "skip")
	u.RawQuery = q.Encode()
	return filepath.Abs(dir)
}

// withoutQuery is the URL as errors name it: options are noise there, but for the prefix and the endpoint, which tell
// where the object is.
func withoutQuery(u *url.URL) string {
	short := *u
	q := url.Values{}
	for _, k := range []string{"endpoint", "prefix"} {
		if v := u.Query().Get(k); v != "" {
			q.Set(k, v)
		}
	}
	short.RawQuery = q.Encode()
	if unescaped, err := url.QueryUnescape(short.RawQuery); err == nil {
		short.RawQuery = unescaped
	}
	return short.Redacted()
}
