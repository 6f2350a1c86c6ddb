package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"trestle/internal/kit/here"
	"trestle/internal/store/blob"
)

// origin is what a source fetches from. Its errors name it and this host.
type origin interface {
	fmt.Stringer
	// open reads an artifact. The read ends with ctx, and fails when nothing moves for some seconds.
	open(ctx context.Context, digest string) (io.ReadCloser, error)
	close() error
}

func newOrigin(cfg SourceConfig) (origin, error) {
	// A try that stands still leaves time for two more.
	silence := cfg.Patience / 3
	switch {
	case cfg.Bucket != "" && cfg.Server != "":
		return nil, fmt.Errorf("both a bucket (%s) and a job server (%s) are named", cfg.Bucket, cfg.Server)
	case cfg.Bucket != "":
		url, err := blob.Portable(cfg.Bucket)
		if err != nil {
			return nil, err
		}
		return &bucketOrigin{url: url, silence: silence}, nil
	case cfg.Server != "":
		return newServerOrigin(cfg.Server, silence)
	default:
		return nil, errors.New("neither a bucket nor a job server is named")
	}
}

// bucketOrigin opens its bucket when it is first needed: a store that is down then may be up at the next try.
type bucketOrigin struct {
	url     string
	silence time.Duration

	opening singleflight.Group
	mu      sync.Mutex
	bucket  blob.Bucket
}

func (o *bucketOrigin) String() string { return "staging store " + o.url }

// opened opens the bucket once, for all who want it at a time.
func (o *bucketOrigin) opened(ctx context.Context) (blob.Bucket, error) {
	o.mu.Lock()
	b := o.bucket
	o.mu.Unlock()
	if b != nil {
		return b, nil
	}
	opened, err, _ := o.opening.Do("", func() (any, error) {
		b, err := blob.Open(ctx, o.url, blob.Options{ReadOnly: true, Patience: o.silence})
		if err != nil {
			return nil, err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.bucket = b
		return b, nil
	})
	if err != nil {
		return nil, err
	}
	return opened.(blob.Bucket), nil
}

func (o *bucketOrigin) open(ctx context.Context, digest string) (io.ReadCloser, error) {
	b, err := o.opened(ctx)
	if err != nil {
		return nil, err
	}
	r, _, err := b.Open(ctx, keyPrefix+digest)
	if blob.IsNotFound(err) {
		return nil, fmt.Errorf("%w: submit the job again to stage it anew; if it was staged just now, this is not the store that the job server stages to", err)
	}
	return r, err
}

func (o *bucketOrigin) close() error {
	if o.bucket == nil {
		return nil
	}
	return o.bucket.Close()
}

// connectPause is how long gRPC waits between its attempts to connect.
const connectPause = 50 * time.Millisecond

// serverOrigin is a job server's retrieval service.
type serverOrigin struct {
	address, host string
	silence       time.Duration
	conn          *grpc.ClientConn
}

func newServerOrigin(address string, silence time.Duration) (*serverOrigin, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("the job server's address %q must be host:port: %w", address, err)
	}
	conn, err := grpc.NewClient("dns:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A connection attempt may take longer than all our tries, since ours say more. gRPC answers with the last failure for as long as
		// it waits between its own: that is to be shorter than our pauses.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: connectPause, Multiplier: 1, MaxDelay: connectPause},
			MinConnectTimeout: 6 * silence, // the last try may begin after 3 and end after 4
		}),
		grpc.WithNoProxy(), // a proxy is for the world outside
	)
	if err != nil {
		return nil, fmt.Errorf("the job server's address %q: %w", address, err)
	}
	return &serverOrigin{address: address, host: here.Host(), silence: silence, conn: conn}, nil
}

func (o *serverOrigin) String() string { return "job server " + o.address }

func (o *serverOrigin) close() error { return o.conn.Close() }

func (o *serverOrigin) open(ctx context.Context, digest string) (io.ReadCloser, error) {
	payload, err := proto.Marshal(&pipepb.ArtifactFilePayload{Path: digest, Sha256: digest})
	if err != nil {
		return nil, err
	}
	r := &serverReader{origin: o, digest: digest}
	ctx, r.cancel = context.WithCancelCause(ctx)
	r.ctx = ctx
	r.timer = time.AfterFunc(o.silence, func() {
		r.cancel(fmt.Errorf("nothing has moved for %v", o.silence))
	})
	r.stream, err = jobpb.NewArtifactRetrievalServiceClient(o.conn).GetArtifact(ctx, &jobpb.GetArtifactRequest{
		Artifact: &pipepb.ArtifactInformation{TypeUrn: typeFile, TypePayload: payload},
	})
	if err != nil {
		err = r.fail(err)
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// serverReader is an artifact on its way from a job server.
type serverReader struct {
	origin *serverOrigin
	digest string
	stream grpc.ServerStreamingClient[jobpb.GetArtifactResponse]
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	chunk  []byte
}

func (r *serverReader) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		r.timer.Reset(r.origin.silence)
		response, err := r.stream.Recv()
		r.timer.Stop()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, r.fail(err)
		}
		r.chunk = response.GetData()
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

func (r *serverReader) Close() error {
	r.timer.Stop()
	r.cancel(nil)
	return nil
}

// fail says what to do about an error.
func (r *serverReader) fail(err error) error {
	where := fmt.Sprintf("get artifact %s from job server %s from host %s", r.digest, r.origin.address, r.origin.host)
	const reach = "check that the job server runs and that this host can reach its address (--advertise), or stage to a store that both reach (--staging)"
	code := status.Code(err)
	err = plain(err)
	switch {
	case r.ctx.Err() != nil:
		return fmt.Errorf("%s: %w: %s", where, context.Cause(r.ctx), reach)
	case code == codes.Unavailable:
		return fmt.Errorf("%s: %w: %s", where, err, reach)
	case code == codes.NotFound:
		return fmt.Errorf("%s: %w: %w: submit the job again to stage it anew", where, err, blob.ErrNotFound)
	case code == codes.Unimplemented:
		return fmt.Errorf("%s: %w: something else than a trestle server listens there", where, err)
	default:
		return fmt.Errorf("%s: %w", where, err)
	}
}

// refusedByServer tells whether a job server will answer in the same way again.
func refusedByServer(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated:
		return true
	default:
		return false
	}
}
