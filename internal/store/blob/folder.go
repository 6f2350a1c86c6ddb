package blob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	gcblob "gocloud.dev/blob"

	"trestle/internal/kit/here"
)

// newFolder opens a folder with the settings that the rest of the package relies on: temporary files lie beside the
// objects (a rename across file systems is not atomic), and there are no side files. What dead writers have left is
// swept.
func newFolder(ctx context.Context, dir string, options Options) (driver, error) {
	if options.ReadOnly {
		// Made here, it would be another folder than the one that is meant.
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no folder %s on host %s: it must be the job server's own, mounted under the same path on every host: %w",
				dir, here.Host(), ErrNotFound)
		}
	}
	settings := url.Values{"no_tmp_dir": {"true"}, "metadata": {"skip"}}
	if !options.ReadOnly {
		settings.Set("create_dir", "true")
	}
	u := url.URL{Scheme: "file", Path: dir, RawQuery: settings.Encode()}
	b, err := gcblob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, err
	}
	if !options.ReadOnly {
		if err := sweep(dir); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return &gocloud{b: b, credentials: howToAuthenticate("file")}, nil
}
