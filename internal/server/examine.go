package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"

	"trestle/internal/artifact"
	"trestle/internal/engine/flink"
	"trestle/internal/harness/container"
	"trestle/internal/job/submission"
	"trestle/internal/kit/here"
	"trestle/internal/store/blob"
)

// Grade is how good a finding is.
type Grade int

const (
	// Good is what works.
	Good Grade = iota
	// Lacking is what only some jobs need, and does not work.
	Lacking
	// Bad is what every job needs, and does not work.
	Bad
)

// tellFunc takes a finding as a line, and the host that it was tried from.
type tellFunc = func(host, text string, g Grade)

// Examine tries what jobs of a server with this configuration would need, from this host and from those of its Flink cluster.
// An error is that nothing could be tried.
func Examine(ctx context.Context, cfg Config, tell func(host, text string, g Grade)) error {
	cfg, err := withDefaults(cfg)
	if err != nil {
		return err
	}
	if err := cfg.Containers.Check(); err != nil {
		return err
	}
	if cfg.Staging != defaultStaging(cfg.Data) {
		f := blob.ProbeWriter(ctx, cfg.Staging)
		tell(here.Host(), f.String(), grade(f.Err))
	}
	if cfg.Flink == "" {
		if cfg.Engine == "flink" {
			return errors.New("--engine flink: needs --flink as well")
		}
		examineContainers(ctx, cfg, tell)
		return nil
	}
	return examineFlink(ctx, cfg, tell)
}

func grade(err error) Grade {
	if err != nil {
		return Bad
	}
	return Good
}

// examineContainers tries the container engine of this host, which only docker environments need.
func examineContainers(ctx context.Context, cfg Config, tell tellFunc) {
	e, err := container.Find(ctx, cfg.Containers)
	if err != nil {
		tell(here.Host(), fmt.Sprintf("container engine, for docker environments: %v", err), Lacking)
		return
	}
	tell(here.Host(), fmt.Sprintf("container engine, for docker environments: %v answers", e), Good)
}

func examineFlink(ctx context.Context, cfg Config, tell tellFunc) error {
	endpoint, stop, err := beThere(ctx, cfg)
	if err != nil {
		tell(here.Host(), err.Error(), Bad)
		return nil
	}
	defer stop()
	e, err := newFlink(cfg, endpoint)
	if err != nil {
		tell(here.Host(), err.Error(), Bad)
		return nil
	}
	text, err := e.Describe(ctx)
	if err != nil {
		tell(here.Host(), err.Error(), Bad)
		return nil // its hosts cannot be asked
	}
	tell(here.Host(), text, Good)
	p := submission.Probe{Trestle: cfg.Version}
	if p.Artifacts, err = remoteArtifacts(cfg, endpoint); err != nil {
		return err
	}
	if p.Containers, err = cfg.Containers.Encode(); err != nil {
		return err
	}
	if p.Artifacts.Bucket != "" {
		// Where the store was found wanting above, whatever else the hosts have is tried all the same.
		if remove, err := mark(ctx, cfg, &p); err == nil {
			defer func() {
				if err := remove(); err != nil {
					tell(here.Host(), fmt.Sprintf("remove what the probe wrote to the staging store: %v", err), Lacking)
				}
			}()
		}
	}
	hosts, taskManagers, err := e.Probe(ctx, p)
	if err != nil {
		tell(here.Host(), err.Error(), Bad)
		return nil
	}
	tellHosts(hosts, tell)
	if missed := taskManagers - len(hosts); missed > 0 {
		tell(here.Host(), fmt.Sprintf("%d of Flink's %d TaskManagers were not tried, since they have no free slot, or share a host with one that was", missed, taskManagers), Lacking)
	}
	return nil
}

func tellHosts(hosts []flink.Host, tell tellFunc) {
	for _, h := range hosts {
		for _, f := range h.Findings {
			switch {
			case !f.Failed:
				tell(h.Name, f.Text, Good)
			case f.Need != "":
				tell(h.Name, f.Text+" (needed for "+f.Need+" only)", Lacking)
			default:
				tell(h.Name, f.Text, Bad)
			}
		}
	}
}

// mark writes an object to the staging store for others to read.
func mark(ctx context.Context, cfg Config, p *submission.Probe) (remove func() error, err error) {
	bucket, err := blob.Open(ctx, cfg.Staging, blob.Options{})
	if err != nil {
		return nil, err
	}
	key, err := blob.Mark(ctx, bucket)
	if err != nil {
		return nil, errors.Join(err, bucket.Close())
	}
	p.Mark = key
	return func() error {
		err := bucket.Delete(context.WithoutCancel(ctx), p.Mark)
		if blob.IsDenied(err) {
			err = nil // job servers do without
		}
		return errors.Join(err, bucket.Close())
	}, nil
}

// beThere answers where the server would, so that others can try to reach it; where somebody does already, that is the server.
func beThere(ctx context.Context, cfg Config) (endpoint string, stop func(), err error) {
	listener, err := listen(ctx, cfg.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		address, err := net.ResolveTCPAddr("tcp", cfg.Listen)
		if err != nil {
			return "", nil, fmt.Errorf("--listen %q: %w", cfg.Listen, err)
		}
		endpoint, err = advertised(cfg.Advertise, address)
		return endpoint, func() {}, err
	case err != nil:
		return "", nil, err
	}
	endpoint, err = advertised(cfg.Advertise, listener.Addr())
	if err != nil {
		return "", nil, errors.Join(err, listener.Close())
	}
	answering := grpc.NewServer()
	jobpb.RegisterArtifactRetrievalServiceServer(answering, artifact.NewRetrieval(nil, cfg.Log)) // which is asked for none
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := answering.Serve(listener); err != nil {
			cfg.Log.Warn("answer as the server would", "error", err)
		}
	}()
	return endpoint, func() {
		answering.Stop()
		<-served
	}, nil
}
