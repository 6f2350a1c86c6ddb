package worker

import (
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

// TestRefusedTask: an adapter that gets no task is told why, whatever it sends meanwhile, and the connection ends as a task's
// does, by its close.
func TestRefusedTask(t *testing.T) {
	for name, c := range map[string]struct {
		version byte
		want    string
	}{
		"stage":   {wire.Version, "asks for task 0 of 1 of stage 7"},
		"version": {9, "the adapter speaks version 9"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHost(t, stage.Spec{Plan: &plan.Plan{}, KeyGroups: 128}).address
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(w.Port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			writer, reader := wire.NewWriter(conn), wire.NewReader(conn)
			block := wire.Frame{Type: wire.Process, Data: make([]byte, 100<<10)}
			for _, f := range []wire.Frame{
				{Type: wire.Hello, Kind: c.version, Data: w.Token},
				{Type: wire.Open, Numbers: [4]uint32{7, 0, 1, 0}, Wide: 1},
				block, block,
			} {
				if err := writer.Write(f); err != nil {
					t.Fatal(err)
				}
			}
			f, err := reader.Read()
			for err == nil && f.Type == wire.Report {
				f, err = reader.Read()
			}
			if err != nil || f.Type != wire.Failed || !strings.Contains(string(f.Data), c.want) {
				t.Fatalf("got %v, %v", f, err)
			}
			if err := writer.Write(wire.Frame{Type: wire.Close}); err != nil {
				t.Fatal(err)
			}
			if f, err = reader.Read(); err != nil || f.Type != wire.Closed {
				t.Fatalf("after its close the adapter got %v, %v", f, err)
			}
			if f, err = reader.Read(); !errors.Is(err, io.EOF) {
				t.Errorf("after that it got %v, %v", f, err)
			}
		})
	}
}
