package worker

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"trestle/internal/worker/wire"
)

const (
	// helloTimeout is how long a connection may take to say what it is, and to end when it has been told that it is over.
	helloTimeout = 10 * time.Second
	// helloBytes is the longest that a hello is: a type, a version, a token.
	helloBytes = 2 + wire.TokenBytes
)

// accept serves connections until the listener is closed.
func (w *Worker) accept(listener net.Listener, serving *sync.WaitGroup) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if w.ctx.Err() == nil {
				w.end(fmt.Errorf("listen for the engine's tasks: %w", err))
			}
			return
		}
		serving.Go(func() {
			defer conn.Close()
			// At the worker's end a connection that still talks is cut.
			ctx, cancel := context.WithCancelCause(w.ctx)
			defer cancel(nil)
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := w.serve(ctx, conn); err != nil && w.ctx.Err() == nil {
				w.cfg.Log.Info("a connection of the engine's ended", "error", err)
			}
		})
	}
}

// serve finds out what a connection is for.
func (w *Worker) serve(ctx context.Context, conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	reader := wire.NewReader(conn)
	reader.Limit(helloBytes)
	hello, err := reader.Read()
	if err != nil {
		return err
	}
	if hello.Type != wire.Hello || subtle.ConstantTimeCompare(hello.Data, w.token[:]) != 1 {
		return errors.New("it did not begin with the worker's token")
	}
	reader.Limit(wire.MaxFrame)
	writer := wire.NewWriter(conn)
	if hello.Kind != wire.Version {
		text := fmt.Sprintf("the adapter speaks version %d of the protocol, the worker version %d", hello.Kind, wire.Version)
		if err := writer.Write(wire.Frame{Type: wire.Failed, Kind: final, Data: []byte(text)}); err != nil {
			return err
		}
		return refused(reader, writer) // within helloTimeout
	}
	first, err := reader.Read()
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	switch first.Type {
	case wire.Open:
		return w.serveTask(ctx, conn, reader, first)
	case wire.Ping:
		return answerPings(reader, writer, first)
	default:
		return fmt.Errorf("after its hello it sent a %s", first.Type)
	}
}

// refused ends a connection when the adapter has been told why it gets no task: with what it sends meanwhile unread, the
// refusal itself could be lost.
func refused(reader *wire.Reader, writer *wire.Writer) error {
	for {
		f, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return nil // it closes nothing that it has not got
		case err != nil:
			return err
		case f.Type == wire.Close:
			return writer.Write(wire.Frame{Type: wire.Closed})
		}
		f.Release()
	}
}

// dismissed ends the connection of an adapter whose frames make no sense any more. It has been told why; with what it sends
// meanwhile unread, that could be lost.
func dismissed(conn net.Conn, reader *wire.Reader, writer *wire.Writer) error {
	if err := writer.Write(wire.Frame{Type: wire.Closed}); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	return reader.Discard()
}

// answerPings shows that the worker lives.
func answerPings(reader *wire.Reader, writer *wire.Writer, f *wire.Frame) error {
	for f.Type == wire.Ping {
		if err := writer.Write(wire.Frame{Type: wire.Pong, Wide: f.Wide}); err != nil {
			return err
		}
		var err error
		if f, err = reader.Read(); err != nil {
			return err
		}
	}
	return fmt.Errorf("among its pings it sent a %s", f.Type)
}

func (w *Worker) enter(t *taskConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks = append(w.tasks, t)
}

func (w *Worker) leave(t *taskConn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks = slices.DeleteFunc(w.tasks, func(other *taskConn) bool { return other == t })
}
