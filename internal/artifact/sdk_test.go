package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// sdk is a staging client that behaves as one of Beam's does.
type sdk struct {
	name string
	// files are the files on the SDK's host.
	files map[string][]byte
	// chunk is the size of the chunks it sends; 0 sends a file whole, in the message that is the last.
	chunk int
	// concurrent answers each request on a goroutine of its own, as TypeScript's client does.
	concurrent bool
	// awaitsHeaders makes it wait for the response headers before it believes the end of the stream, as TypeScript's
	// client does.
	awaitsHeaders bool
	// receives is the largest message it takes; 0 is gRPC's own 4 MB.
	receives int
	// resolve answers a resolve request; nil echoes the artifacts, as all clients do for what they know.
	resolve func([]*pipepb.ArtifactInformation) []*pipepb.ArtifactInformation
	// sent are the paths that it was asked for.
	mu   sync.Mutex
	sent []string
}

// sdks are the four clients, over some files.
func sdks(files map[string][]byte) []*sdk {
	return []*sdk{
		{name: "python", files: files, chunk: 2 << 20},
		{name: "java", files: files, chunk: 2 << 20, receives: 1 << 30},
		{name: "go", files: files, chunk: 1 << 20, receives: 1 << 30},
		{name: "typescript", files: files, chunk: 64 << 10, concurrent: true, awaitsHeaders: true},
		{name: "one message", files: files},
	}
}

// offer stages under a token until the server ends the stream.
func (c *sdk) offer(ctx context.Context, conn grpc.ClientConnInterface, token string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := 4 << 20
	if c.receives > 0 {
		limit = c.receives
	}
	stream, err := jobpb.NewArtifactStagingServiceClient(conn).ReverseArtifactRetrievalService(ctx, grpc.MaxCallRecvMsgSize(limit))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	out := &sender{stream: stream}
	if err := out.send(&jobpb.ArtifactResponseWrapper{StagingToken: token}); err != nil {
		return err
	}
	answered := make(chan error, 100)
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if c.awaitsHeaders {
				if headers, err := stream.Header(); err != nil || len(headers["content-type"]) == 0 {
					return fmt.Errorf("the stream ended without headers (%v, %v): the real client would hang", headers, err)
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		if !c.concurrent {
			if err := c.answer(out, token, request); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			continue
		}
		wg.Go(func() { answered <- c.answer(out, token, request) })
		select {
		case err := <-answered:
			if err != nil {
				return err
			}
		default:
		}
	}
}

// sender lets answers from several goroutines into one stream, message by message.
type sender struct {
	mu     sync.Mutex
	stream jobpb.ArtifactStagingService_ReverseArtifactRetrievalServiceClient
}

func (s *sender) send(m *jobpb.ArtifactResponseWrapper) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(m)
}

func (c *sdk) answer(out *sender, token string, request *jobpb.ArtifactRequestWrapper) error {
	if request.GetResolveArtifact() != nil {
		infos := request.GetResolveArtifact().GetArtifacts()
		if c.resolve != nil {
			infos = c.resolve(infos)
		}
		return out.send(&jobpb.ArtifactResponseWrapper{StagingToken: token, Response: resolved(infos)})
	}
	info := request.GetGetArtifact().GetArtifact()
	if info.GetTypeUrn() != typeFile {
		return fmt.Errorf("the %s client was asked for an artifact of type %q", c.name, info.GetTypeUrn())
	}
	payload := &pipepb.ArtifactFilePayload{}
	if err := proto.Unmarshal(info.GetTypePayload(), payload); err != nil {
		return err
	}
	content, ok := c.files[payload.GetPath()]
	if !ok {
		return fmt.Errorf("the %s client has no file %q", c.name, payload.GetPath())
	}
	c.mu.Lock()
	c.sent = append(c.sent, payload.GetPath())
	c.mu.Unlock()
	if c.chunk == 0 {
		return out.send(&jobpb.ArtifactResponseWrapper{IsLast: true, Response: chunk(content)})
	}
	for len(content) > 0 {
		n := min(c.chunk, len(content))
		if err := out.send(&jobpb.ArtifactResponseWrapper{StagingToken: token, Response: chunk(content[:n])}); err != nil {
			return err
		}
		content = content[n:]
	}
	return out.send(&jobpb.ArtifactResponseWrapper{StagingToken: token, IsLast: true, Response: chunk(nil)})
}

func chunk(data []byte) *jobpb.ArtifactResponseWrapper_GetArtifactResponse {
	return &jobpb.ArtifactResponseWrapper_GetArtifactResponse{GetArtifactResponse: &jobpb.GetArtifactResponse{Data: data}}
}

func resolved(infos []*pipepb.ArtifactInformation) *jobpb.ArtifactResponseWrapper_ResolveArtifactResponse {
	return &jobpb.ArtifactResponseWrapper_ResolveArtifactResponse{
		ResolveArtifactResponse: &jobpb.ResolveArtifactsResponse{Replacements: infos},
	}
}
