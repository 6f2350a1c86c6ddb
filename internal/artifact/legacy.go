package artifact

import (
	"context"
	"fmt"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// legacy tells why staging has failed. Go's client keeps that to itself, falls back to this service, and shows what it is
// told here.
type legacy struct {
	jobpb.UnimplementedLegacyArtifactStagingServiceServer
	staging *Staging
}

// Legacy is the service to which Go's client turns when staging has failed, only to be told why: it stages nothing.
func (s *Staging) Legacy() jobpb.LegacyArtifactStagingServiceServer { return &legacy{staging: s} }

func (l *legacy) PutArtifact(stream jobpb.LegacyArtifactStagingService_PutArtifactServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	return l.reason(first.GetMetadata().GetStagingSessionToken())
}

func (l *legacy) CommitManifest(_ context.Context, request *jobpb.CommitManifestRequest) (*jobpb.CommitManifestResponse, error) {
	return nil, l.reason(request.GetStagingSessionToken())
}

// reason is why the latest attempt of a token failed.
func (l *legacy) reason(token string) error {
	l.staging.mu.Lock()
	defer l.staging.mu.Unlock()
	session := l.staging.sessions[token]
	switch {
	case session == nil:
		return toStatus(unknownToken(token))
	case session.failed != nil:
		return toStatus(fmt.Errorf("stage artifacts: %w", session.failed))
	default:
		return status.Error(codes.Unimplemented, "stage artifacts by Beam's ArtifactStagingService: its predecessor stages nothing here")
	}
}
