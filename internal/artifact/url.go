package artifact

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// silence is how long a web server may take to answer before it counts as dead. The transfer itself has no limit.
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
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
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
	d, err := s.Put(ctx, response.Body, want)
	if err != nil {
		return Digest{}, fmt.Errorf("fetch %s: %w", u.Redacted(), err)
	}
	return d, nil
}

// redact hides a URL's password.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Redacted()
}
