package fnapi

import (
	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
)

type logging struct {
	fnpb.UnimplementedBeamFnLoggingServer
	server *Server
}

// Logging takes a harness's log entries until the harness ends the stream or the session ends.
func (l *logging) Logging(stream fnpb.BeamFnLogging_LoggingServer) error {
	s, err := l.server.caller(stream.Context())
	if err != nil {
		return err
	}
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		for {
			list, err := stream.Recv()
			if err != nil {
				return // the harness's last entries have been read: what ended it is the control stream's affair
			}
			if s.worker.Logs == nil {
				continue
			}
			for _, entry := range list.GetLogEntries() {
				s.worker.Logs(entry)
			}
		}
	}()
	select {
	case <-broken:
	case <-s.ctx.Done():
	}
	return nil
}
