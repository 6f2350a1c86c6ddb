package blob

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
)

const (
	// emulator is the variable by which Google's own clients find a server that stands in for theirs.
	emulator = "STORAGE_EMULATOR_HOST"
	// uploadBytes is how much of an upload is kept, to send it again; the library's default of 16 MiB is for videos.
	uploadBytes = 4 << 20
)

// gcs is a bucket of Google Cloud Storage, with the connections that it has to itself.
type gcs struct {
	gocloud
	transport *http.Transport
}

// newGCS opens gs://bucket/path. Not by gocloud's own opener of URLs: that prints to standard output when there are no
// credentials, and goes on.
func newGCS(ctx context.Context, u *url.URL) (driver, error) {
	anonymous := os.Getenv(emulator) != ""
	for key, values := range u.Query() {
		if key != "anonymous" || len(values) != 1 || values[0] != "true" && values[0] != "false" {
			return nil, fmt.Errorf("unknown query parameter %q: a URL of Google Cloud Storage takes anonymous=true or false", key)
		}
		anonymous = anonymous || values[0] == "true"
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() // it is documented to be one
	client := gcp.NewAnonymousHTTPClient(transport)
	if !anonymous {
		// A token is fetched anew for as long as the bucket is open.
		credentials, err := gcp.DefaultCredentials(context.WithoutCancel(ctx))
		if err == nil {
			client, err = gcp.NewHTTPClient(transport, credentials.TokenSource)
		}
		if err != nil {
			return nil, fmt.Errorf("%w (%s): %w", ErrDenied, howToAuthenticate("gs"), err)
		}
	}
	b, err := gcsblob.OpenBucket(context.WithoutCancel(ctx), client, u.Host, nil)
	if err != nil {
		return nil, err
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		b = gcblob.PrefixedBucket(b, prefix+"/")
	}
	return &gcs{gocloud{b: b, credentials: howToAuthenticate("gs"), uploadBytes: uploadBytes}, transport}, nil
}

func (g *gcs) close() error {
	defer g.transport.CloseIdleConnections()
	return g.gocloud.close()
}
