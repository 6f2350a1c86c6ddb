package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// silence is how long a web server may send nothing before it counts as dead. The whole transfer has no limit.
const silence = time.Minute

// putURL fetches a URL artifact into the store. Only http and https are fetched: a file URL would name a file of this
// server, and an object store's would need credentials that the job has and the server should not borrow.
func (s *Store) putURL(ctx context.Context, address, want string) (_ Digest, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return Digest{}, refuse(fmt.Errorf("the URL %q cannot be read: %w", redact(address), err))
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return Digest{}, refuse(fmt.Errorf("the scheme of %q is not one that the server fetches (http, https): stage it as a file",
			u.Redacted()))
	}
	fetching, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	request, err := http.NewRequestWithContext(fetching, http.MethodGet, address, nil)
	if err != nil {
		return Digest{}, refuse(err)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		ResponseHeaderTimeout: silence,
		TLSHandshakeTimeout:   silence,
		// What is stored is what the server has, not what a decoder makes of it.
		DisableCompression: true,
		DisableKeepAlives:  true,
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return Digest{}, err // names method and URL
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return Digest{}, fmt.Errorf("fetch %s: the web server answered %s", u.Redacted(), response.Status)
	}
	dead := time.AfterFunc(s.silence, func() { cancel(fmt.Errorf("the web server has sent nothing for %v", s.silence)) })
	defer dead.Stop()
	d, err := s.Put(ctx, &watchedBody{response.Body, fetching, dead, s.silence}, want)
	if err != nil {
		return Digest{}, fmt.Errorf("fetch %s: %w", u.Redacted(), err)
	}
	return d, nil
}

// watchedBody is what a web server sends, as long as it sends something now and then: otherwise ctx ends.
type watchedBody struct {
	io.Reader
	ctx     context.Context
	dead    *time.Timer
	silence time.Duration
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 {
		b.dead.Reset(b.silence)
	}
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// redact hides a URL's password.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Redacted()
}
