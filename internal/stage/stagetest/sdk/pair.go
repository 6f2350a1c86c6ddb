package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"trestle/internal/fnapi"
)

// Pair is a Fn API server and a client's connection to it, in one process.
type Pair struct {
	Server *fnapi.Server

	conn   *grpc.ClientConn
	grpc   *grpc.Server
	served chan error
	worker int
}

// NewPair starts a server. The caller closes it.
func NewPair() (*Pair, error) {
	p := &Pair{
		Server: fnapi.NewServer(slog.New(slog.DiscardHandler)),
		grpc:   grpc.NewServer(fnapi.ServerOptions()...),
		served: make(chan error, 1),
	}
	p.Server.Register(p.grpc)
	listener := bufconn.Listen(1 << 20)
	var err error
	p.conn, err = grpc.NewClient("passthrough:///fn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		return nil, fmt.Errorf("sdk: %w", err)
	}
	go func() { p.served <- p.grpc.Serve(listener) }()
	return p, nil
}

// Connect connects a harness and waits until its session is ready. The caller closes the harness before the pair.
func (p *Pair) Connect(ctx context.Context, scripts map[string]Script) (*fnapi.Session, *Harness, error) {
	id := fmt.Sprintf("w%d", p.worker)
	p.worker++
	session, err := p.Server.Expect(fnapi.Worker{ID: id, Endpoint: "fn"})
	if err != nil {
		return nil, nil, fmt.Errorf("sdk: connect: %w", err)
	}
	h, err := connect(p.conn, id, scripts)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-session.Ready():
		return session, h, nil
	case <-ctx.Done():
		h.Close()
		return nil, nil, fmt.Errorf("sdk: connect: %w", context.Cause(ctx))
	}
}

// Close ends the sessions and the server.
func (p *Pair) Close() error {
	p.Server.Close()
	err := p.conn.Close()
	p.grpc.Stop()
	return errors.Join(err, <-p.served)
}
