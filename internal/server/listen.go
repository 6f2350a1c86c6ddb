package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// listen opens the server's port.
func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use, perhaps by another trestle: stop that one, or choose another port with --listen (port 0 takes any free one): %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s (--listen): %w", address, err)
	}
	return listener, nil
}

// advertised is the address to tell others.
func advertised(wanted string, listening net.Addr) (string, error) {
	if wanted != "" {
		if _, _, err := net.SplitHostPort(wanted); err != nil {
			return "", fmt.Errorf("--advertise %q: must be host:port: %w", wanted, err)
		}
		return wanted, nil
	}
	tcp, ok := listening.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return listening.String(), nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("listening on every address of this host, whose name is not known: say which to tell others with --advertise host:port: %w", err)
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port)), nil
}
