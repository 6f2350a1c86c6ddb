package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"github.com/dustin/go-humanize"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"trestle/internal/harness/container"
	"trestle/internal/job/submission"
	"trestle/internal/kit/here"
	"trestle/internal/store/blob"
)

const (
	// maxProbe bounds a probe's encoding.
	maxProbe = 1 << 20
	// tryTimeout bounds each thing that is tried.
	tryTimeout = 15 * time.Second
	// leastDisk is the free space below which a host is said to have too little: a job's spill is some multiple of it.
	leastDisk = 1 << 30
)

// TryHost tries from this host what workers need, as a probe on r says, and writes what it finds to w, as JSON. Workers make
// folders of their own in scratch. An error is of the probe itself.
func TryHost(ctx context.Context, version, scratch string, r io.Reader, w io.Writer) error {
	var p submission.Probe
	if err := json.NewDecoder(io.LimitReader(r, maxProbe)).Decode(&p); err != nil {
		return fmt.Errorf("read the probe: %w", err)
	}
	if p.Trestle != version {
		return fmt.Errorf("the probe is of trestle %s, and this is %s", p.Trestle, version)
	}
	containers, err := container.Decode(p.Containers)
	if err != nil {
		return err
	}
	found := []submission.Finding{
		program(version),
		disk(scratch),
		artifacts(ctx, p),
		engine(ctx, containers),
	}
	return json.NewEncoder(w).Encode(found)
}

// program tells which one it is that runs here, and where it was put.
func program(version string) submission.Finding {
	text := fmt.Sprintf("worker: trestle %s runs here (%s/%s, %d cores)", version, runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if self, err := os.Executable(); err == nil {
		text += ", as " + self
	}
	return submission.Finding{Text: text}
}

// artifacts tries the way that artifacts come.
func artifacts(ctx context.Context, p submission.Probe) submission.Finding {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	if p.Artifacts.Bucket != "" {
		f := blob.ProbeReader(ctx, p.Artifacts.Bucket, p.Mark)
		return submission.Finding{Text: f.String(), Failed: f.Err != nil}
	}
	begin := time.Now()
	text := fmt.Sprintf("job server %s, where artifacts come from: tried from host %s to connect, and ask it for some", p.Artifacts.Server, here.Host())
	err := ask(ctx, p.Artifacts.Server)
	took := time.Since(begin).Round(time.Millisecond)
	if err != nil {
		return submission.Finding{Failed: true, Text: fmt.Sprintf(
			"%s: failed after %v: %v; start the server with an address that this host reaches (--listen 0.0.0.0:8099 --advertise HOST:8099), open the port, or name a store (--staging s3://bucket/path)",
			text, took, err)}
	}
	return submission.Finding{Text: fmt.Sprintf("%s: it works, in %v", text, took)}
}

// ask finds out whether a job server is at an address. What is in between may take a connection where none is.
func ask(ctx context.Context, address string) (err error) {
	dialed, err := (&net.Dialer{}).DialContext(ctx, "tcp", address) // whose error is plain
	if err != nil {
		return err
	}
	if err := dialed.Close(); err != nil {
		return err
	}
	conn, err := grpc.NewClient("dns:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := jobpb.NewArtifactRetrievalServiceClient(conn).ResolveArtifacts(ctx, &jobpb.ResolveArtifactsRequest{}); err != nil {
		return fmt.Errorf("somebody takes connections there, who is no job server: %s", status.Convert(err).Message())
	}
	return nil
}

// engine tries the container engine.
func engine(ctx context.Context, cfg container.Config) submission.Finding {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	const need = "docker environments"
	e, err := container.Find(ctx, cfg)
	switch {
	case errors.Is(err, container.ErrNone):
		return submission.Finding{Need: need, Failed: true, Text: fmt.Sprintf("container engine: host %s has none: %v: install one there, or have user code run in processes (--environment_type=PROCESS) or by a worker pool (EXTERNAL)", here.Host(), err)}
	case err != nil:
		return submission.Finding{Need: need, Failed: true, Text: fmt.Sprintf("container engine: tried from host %s: %v", here.Host(), err)}
	}
	return submission.Finding{Need: need, Text: fmt.Sprintf("container engine: %v answers on host %s", e, here.Host())}
}

// disk makes a folder as a worker does, and looks how much room there is for what it would hold.
func disk(dir string) submission.Finding {
	const elsewhere = "set io.tmp.dirs in Flink's configuration to a larger disk that Flink may write to"
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		var made string
		if made, err = os.MkdirTemp(dir, "trestle-probe-*"); err == nil {
			err = os.Remove(made)
		}
	}
	var fs syscall.Statfs_t
	if err == nil {
		err = syscall.Statfs(dir, &fs)
	}
	if err != nil {
		return submission.Finding{Failed: true, Text: fmt.Sprintf("disk: tried on host %s to make a folder in %s, where jobs spill: %v: %s", here.Host(), dir, err, elsewhere)}
	}
	free := fs.Bavail * uint64(fs.Bsize)
	text := fmt.Sprintf("disk: %s free in %s on host %s, where jobs spill", humanize.IBytes(free), dir, here.Host())
	if free < leastDisk {
		return submission.Finding{Failed: true, Text: text + ", which is little: make room, or " + elsewhere}
	}
	return submission.Finding{Text: text}
}
