package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"trestle/internal/plan"
	"trestle/internal/stage"
	"trestle/internal/worker/wire"
)

// TestUnrulyAdapter: an adapter whose frames make no sense is told what is wrong with them, though it goes on sending, and the
// connection ends.
func TestUnrulyAdapter(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, wire.MaxFrame+1)
	for name, c := range map[string]struct {
		sent []byte
		want string
	}{
		"length":  {long, fmt.Sprintf("malformed frame: of %d bytes", wire.MaxFrame+1)},
		"type":    {[]byte{0, 0, 0, 1, 99}, "malformed frame: type 99"},
		"short":   {[]byte{0, 0, 0, 2, byte(wire.End), 0}, "malformed frame: a end of 2 bytes"},
		"order":   {[]byte{0, 0, 0, 9, byte(wire.Ping), 0, 0, 0, 0, 0, 0, 0, 1}, "it sent a ping to an open task"},
		"too far": {[]byte{0, 0, 0, 5, byte(wire.End), 0, 0, 0, 0, 0, 0, 0, 5, byte(wire.End), 0, 0, 0, 0}, "2 ends of 1 inputs"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &plan.Plan{Stages: []*plan.Stage{{Name: "Impulse", Input: plan.Input{Kind: plan.Impulse}}}}
			w := newHost(t, stage.Spec{Plan: p, Stage: p.Stages[0], KeyGroups: 128}).address
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(w.Port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			writer, reader := wire.NewWriter(conn), wire.NewReader(conn)
			for _, f := range []wire.Frame{
				{Type: wire.Hello, Kind: wire.Version, Data: w.Token},
				{Type: wire.Open, Numbers: [4]uint32{0, 0, 1, 0}, Wide: 1 << 20},
			} {
				if err := writer.Write(f); err != nil {
					t.Fatal(err)
				}
			}
			if f, err := reader.Read(); err != nil || f.Type != wire.Opened {
				t.Fatalf("got %v, %v", f, err)
			}
			if _, err := conn.Write(append(c.sent, make([]byte, 1<<20)...)); err != nil {
				t.Fatal(err)
			}
			var told []string
			for {
				f, err := reader.Read()
				if err != nil {
					t.Fatalf("after %q it got %v", told, err)
				}
				if f.Type == wire.Closed {
					break
				}
				if f.Type == wire.Failed {
					told = append(told, string(f.Data))
				}
			}
			if len(told) != 1 || !strings.Contains(told[0], c.want) {
				t.Errorf("it is told %q, want %q", told, c.want)
			}
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if f, err := reader.Read(); !errors.Is(err, io.EOF) {
				t.Errorf("after that it got %v, %v", f, err)
			}
		})
	}
}
