package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// resolveBytes bounds one resolve request: Python's client takes no message over 4 MB.
const resolveBytes = 1 << 20

// client is the other end of a staging stream, which answers the server's requests. One request is under way at a time.
type client struct {
	attempt *attempt
	stream  jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceServer
	in      chan received
}

type received struct {
	message *jobpb.ArtifactResponseWrapper
	err     error
}

// newClient starts to read the stream, so that the end of the attempt is noticed while the client is silent. The
// goroutine ends with the attempt, or at the latest with the stream, which the return of its handler ends.
func newClient(a *attempt, stream jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceServer) *client {
	c := &client{attempt: a, stream: stream, in: make(chan received)}
	go func() {
		for {
			message, err := stream.Recv()
			select {
			case c.in <- received{message, err}:
			case <-a.ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return c
}

// receive waits for the client's next message.
func (c *client) receive() (*jobpb.ArtifactResponseWrapper, error) {
	select {
	case r := <-c.in:
		switch {
		case r.err == nil:
			return r.message, nil
		case errors.Is(r.err, io.EOF):
			return nil, errors.New("the client closed the stream")
		default:
			return nil, errors.New(status.Convert(r.err).Message())
		}
	case <-c.attempt.ctx.Done():
		return nil, context.Cause(c.attempt.ctx)
	}
}

// resolve asks the client what stands for artifacts, in requests of a bounded size. Embedded artifacts are not sent:
// they need no resolution, and may be larger than a client takes.
func (c *client) resolve(environment string, infos []*pipepb.ArtifactInformation) ([]*pipepb.ArtifactInformation, error) {
	var resolved, batch []*pipepb.ArtifactInformation
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		replacements, err := c.resolveBatch(environment, batch)
		resolved = append(resolved, replacements...)
		batch, size = nil, 0
		return err
	}
	for _, info := range infos {
		if info.GetTypeUrn() == typeEmbedded {
			if err := flush(); err != nil {
				return nil, err
			}
			resolved = append(resolved, info)
			continue
		}
		if n := proto.Size(info); size+n > resolveBytes {
			if err := flush(); err != nil {
				return nil, err
			}
			size = n
		} else {
			size += n
		}
		batch = append(batch, info)
	}
	return resolved, flush()
}

func (c *client) resolveBatch(environment string, infos []*pipepb.ArtifactInformation) ([]*pipepb.ArtifactInformation, error) {
	what := fmt.Sprintf("resolve %d artifacts of environment %q", len(infos), environment)
	c.attempt.asks(what)
	err := c.stream.Send(&jobpb.ArtifactRequestWrapper{Request: &jobpb.ArtifactRequestWrapper_ResolveArtifact{
		ResolveArtifact: &jobpb.ResolveArtifactsRequest{
			Artifacts:     infos,
			PreferredUrns: []string{typeFile, typeURL, typeEmbedded},
		},
	}})
	if err != nil {
		return nil, fmt.Errorf("ask the client to %s: %w", what, err)
	}
	message, err := c.receive()
	if err != nil {
		return nil, fmt.Errorf("the client was asked to %s: %w", what, err)
	}
	answer, ok := message.GetResponse().(*jobpb.ArtifactResponseWrapper_ResolveArtifactResponse)
	if !ok {
		return nil, refuse(fmt.Errorf("the client was asked to %s, but answered with a %T", what, message.GetResponse()))
	}
	c.attempt.moves(0)
	return answer.ResolveArtifactResponse.GetReplacements(), nil
}

// get asks the client for an artifact. The reader must be read to its end before the next request.
func (c *client) get(environment string, info *pipepb.ArtifactInformation) (io.Reader, error) {
	what := fmt.Sprintf("send artifact %s of environment %q", describe(info), environment)
	c.attempt.asks(what)
	err := c.stream.Send(&jobpb.ArtifactRequestWrapper{Request: &jobpb.ArtifactRequestWrapper_GetArtifact{
		GetArtifact: &jobpb.GetArtifactRequest{Artifact: info},
	}})
	if err != nil {
		return nil, fmt.Errorf("ask the client to %s: %w", what, err)
	}
	return &chunks{client: c, what: what}, nil
}

// chunks is an artifact as the client sends it.
type chunks struct {
	client *client
	what   string
	chunk  []byte
	last   bool
	bytes  int64
}

func (r *chunks) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		if r.last {
			return 0, io.EOF
		}
		message, err := r.client.receive()
		if err != nil {
			return 0, fmt.Errorf("after %d bytes: %w", r.bytes, err)
		}
		answer, ok := message.GetResponse().(*jobpb.ArtifactResponseWrapper_GetArtifactResponse)
		if !ok && !message.GetIsLast() {
			return 0, refuse(fmt.Errorf("the client was asked to %s, but answered with a %T", r.what, message.GetResponse()))
		}
		if ok {
			r.chunk = answer.GetArtifactResponse.GetData()
		}
		r.last = message.GetIsLast()
		r.bytes += int64(len(r.chunk))
		r.client.attempt.moves(len(r.chunk))
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}
