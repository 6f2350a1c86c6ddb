package fnapi

import (
	"time"

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
		return nil
	case <-s.ctx.Done():
	}
	// The harness ends with its control stream, and closes this one when it has said its last word.
	grace := time.NewTimer(lastWords)
	defer grace.Stop()
	select {
	case <-broken:
	case <-grace.C:
	case <-s.server.closing:
	}
	return nil
}

// lastWords is how long a harness may go on logging when its session has ended.
const lastWords = 2 * time.Second
