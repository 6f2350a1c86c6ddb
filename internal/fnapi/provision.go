package fnapi

import (
	"context"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
)

type provision struct {
	fnpb.UnimplementedProvisionServiceServer
	server *Server
}

// GetProvisionInfo tells a harness what it needs to start (beam_provision_api.proto).
func (p *provision) GetProvisionInfo(ctx context.Context, _ *fnpb.GetProvisionInfoRequest) (*fnpb.GetProvisionInfoResponse, error) {
	s, err := p.server.caller(ctx)
	if err != nil {
		return nil, err
	}
	return &fnpb.GetProvisionInfoResponse{Info: s.worker.Provision}, nil
}
