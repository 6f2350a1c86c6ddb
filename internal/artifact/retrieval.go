package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
)

// chunkBytes is the size of the chunks that harnesses get: well below the 4 MB that a gRPC client takes by default.
const chunkBytes = 1 << 20

// Retrieval hands artifacts to harnesses: the server of Beam's ArtifactRetrievalService. It serves what staging made of
// a job's dependencies (files named by their sha256), and embedded artifacts and, from a store, URLs besides. Its methods may be called
// concurrently.
type Retrieval struct {
	jobpb.UnimplementedArtifactRetrievalServiceServer

	from Opener
	log  *slog.Logger
}

// Opener has artifacts by their sha256: a [Store] or a [Source].
type Opener interface {
	// Open reads an artifact, and tells its size in bytes; an error for which [blob.IsNotFound] holds when there is
	// none. A Read, or Open itself, fails with ErrMismatch when the bytes are not the right ones. The caller closes the
	// reader.
	Open(ctx context.Context, sha256hex string) (io.ReadCloser, int64, error)
}

// NewRetrieval makes a retrieval service over a store or a source.
func NewRetrieval(from Opener, log *slog.Logger) *Retrieval {
	return &Retrieval{from: from, log: log}
}

// ResolveArtifacts answers with the artifacts that it was asked about: staging has resolved them. What staging cannot
// have made is refused, all of it at once.
func (r *Retrieval) ResolveArtifacts(_ context.Context, request *jobpb.ResolveArtifactsRequest) (*jobpb.ResolveArtifactsResponse, error) {
	var errs []error
	for _, info := range request.GetArtifacts() {
		if _, err := decode(info); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		err = fmt.Errorf("resolve artifacts: %w", err)
		r.log.Warn("a harness asked for what was not staged", "error", err)
		return nil, toStatus(refuse(err))
	}
	return &jobpb.ResolveArtifactsResponse{Replacements: request.GetArtifacts()}, nil
}

// GetArtifact streams an artifact in chunks of at most 1 MiB. The stream ends with an error when the stored bytes turn
// out not to be the right ones: a harness must not use what it got before the stream has ended well.
func (r *Retrieval) GetArtifact(request *jobpb.GetArtifactRequest, stream jobpb.ArtifactRetrievalService_GetArtifactServer) error {
	info := request.GetArtifact()
	if err := r.serve(request, stream); err != nil {
		err = fmt.Errorf("get artifact %s: %w", describe(info), err)
		r.log.Warn("an artifact could not be handed to a harness", "error", err)
		return toStatus(err)
	}
	return nil
}

func (r *Retrieval) serve(request *jobpb.GetArtifactRequest, stream jobpb.ArtifactRetrievalService_GetArtifactServer) (err error) {
	// What an artifact is for does not matter here, so that a role that is unknown, or a name, is no reason to refuse.
	d := &dependency{info: request.GetArtifact()}
	if err := d.decodeType(); err != nil {
		return refuse(err)
	}
	content, err := r.content(stream.Context(), d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	// A chunk is the transport's once it is sent, so each gets its own bytes.
	for {
		chunk := make([]byte, chunkBytes)
		n, err := io.ReadFull(content, chunk)
		if n > 0 {
			if err := stream.Send(&jobpb.GetArtifactResponse{Data: chunk[:n]}); err != nil {
				return fmt.Errorf("send to the harness: %w", err)
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// content opens what an artifact stands for.
func (r *Retrieval) content(ctx context.Context, d *dependency) (io.ReadCloser, error) {
	switch {
	case d.embedded != nil:
		return io.NopCloser(bytes.NewReader(d.embedded.GetData())), nil
	case d.url != nil:
		store, ok := r.from.(*Store)
		if !ok {
			return nil, refuse(errors.New("workers hand out what was staged, and staging leaves no URLs"))
		}
		digest, err := store.putURL(ctx, d.url.GetUrl(), d.sum)
		if err != nil {
			return nil, err
		}
		content, _, err := store.Open(ctx, digest.SHA256)
		return content, err
	case d.file != nil:
		if d.sum == "" {
			return nil, refuse(errors.New("it has no sha256, so it was not staged: only staged files are served, never a path"))
		}
		content, _, err := r.from.Open(ctx, d.sum)
		return content, err
	default:
		return nil, refuse(fmt.Errorf("it names the package %s, which the harness has to install by itself", d.pkg))
	}
}
