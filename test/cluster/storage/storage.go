// Package storage runs real distributed stores on a host of a test cluster: an S3 server and HDFS. They hold what hosts
// share when they share no disk.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"time"

	"trestle/test/cluster"
)

// Store is a store that runs, as this process uses it. Paths are relative, with slashes.
type Store interface {
	// URL is what hosts call a path.
	URL(path string) string
	// Put writes a local file to a path.
	Put(ctx context.Context, local, path string) error
	// List are the paths below a folder, at any depth.
	List(ctx context.Context, folder string) ([]string, error)
	// Get reads a path.
	Get(ctx context.Context, path string) (io.ReadCloser, error)
	// Process is what can be killed; it is started again with Restart.
	Process() *cluster.Process
}

// Fetch copies all files below a store's folder into a local one, flat.
func Fetch(ctx context.Context, s Store, folder, local string) error {
	paths, err := s.List(ctx, folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(local, 0o755); err != nil {
		return err
	}
	for _, p := range paths {
		if err := fetch(ctx, s, p, filepath.Join(local, path.Base(p))); err != nil {
			return err
		}
	}
	return nil
}

func fetch(ctx context.Context, s Store, from, to string) (err error) {
	r, err := s.Get(ctx, from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("fetch %s: %w", s.URL(from), err)
	}
	return nil
}

// up waits until a store answers, or its process has ended.
func up(ctx context.Context, what string, p *cluster.Process, answers func(context.Context) bool) error {
	const patience = 5 * time.Minute // on a machine that others keep busy; one that ends is noticed at once
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s did not answer within %v; its log is %s", what, patience, p.Log))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !answers(ctx) {
		select {
		case <-tick.C:
		case <-p.Ended():
			return fmt.Errorf("%s ended (%w); its log is %s", what, p.Err(), p.Log)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// httpGet says whether a URL answers with 200, and its body.
func httpGet(ctx context.Context, client *http.Client, url string) (body []byte, ok bool) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, false
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return body, err == nil && response.StatusCode == http.StatusOK
}
