package coder

import (
	"errors"
	"io"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
)

// fuzzed are the coders that fuzzed bytes are read with: together they have every step.
var fuzzed = []string{
	"kv(bytes,varint)",
	"kv(length_prefix(mine),iterable(nullable(string_utf8)))",
	"state_backed_iterable(kv(double,sharded_key(bytes)))",
	"iterable(kv(global_window,global_window))",
	"iterable(iterable(bool))",
	"timer(bytes,interval_window)",
	"custom_window(length_prefix(mine))",
	"windowed_value(kv(bytes,bytes),interval_window)",
	"windowed_value(kv(bytes,bytes),global_window)",
}

// FuzzSkip: no bytes make a walk fail in another way than with an error, and what is found is an element by itself.
func FuzzSkip(f *testing.F) {
	var coders []*Coder
	for _, text := range fuzzed {
		coders = append(coders, mustCompile(f, text))
	}
	for i, seed := range []string{"\x03abc\x05", "\x00\x00\x00\x00\x02\x00\x01\x01a", "\xff\xff\xff\xff\x00",
		"\x00\x00\x00\x09", "\x00\x00\x00\x01\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x01",
		"\x80\x00\x00\x00\x00\x00\x00\x00\x01a"} {
		f.Add(uint8(i), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := coders[int(which)%len(coders)]
		n, err := c.Skip(b)
		if err != nil {
			return
		}
		if n < 0 || n > len(b) {
			t.Fatalf("%s: Skip(%x) = %d", c.ID(), b, n)
		}
		if m, err := c.Skip(b[:n]); err != nil || m != n {
			t.Fatalf("%s: Skip(%x) = %d, %v; with more behind it was %d", c.ID(), b[:n], m, err, n)
		}
		if n > 0 {
			if m, err := c.Skip(b[:n-1]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s: Skip(%x) = %d, %v; one byte more makes an element", c.ID(), b[:n-1], m, err)
			}
		}
	})
}

// FuzzHeader: records are found by their header, as a whole, and by their parts, all the same.
func FuzzHeader(f *testing.F) {
	global := mustCompileWindowed(f, fuzzed[len(fuzzed)-1])
	interval := mustCompileWindowed(f, fuzzed[len(fuzzed)-2])
	f.Add(append(AppendHeader(nil, 5, nil, NoFiring), "\x01k\x01v"...))
	f.Add(append(AppendHeader(nil, 5, []byte("\x80\x00\x00\x00\x00\x00\x00\x09\x02"), OnTimeAndOnly), "\x01k\x01v"...))
	f.Add(append(AppendHeader(nil, 5, nil, PaneInfo{Timing: Late, Index: 9, NonSpeculative: 4}), "\x81\x00k\x01v"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, w := range []*Windowed{global, interval} {
			h, herr := w.Header(b)
			if herr == nil {
				if h.Size > len(b) || h.PaneOffset >= h.Size || h.WindowsOffset+h.WindowsSize != h.PaneOffset {
					t.Fatalf("Header(%x) = %+v", b, h)
				}
				p, n, err := Pane(h.Pane(b))
				if err != nil || n != h.Size-h.PaneOffset {
					t.Fatalf("Pane(%x) = %+v, %d, %v", h.Pane(b), p, n, err)
				}
			}
			hdr, size, err := w.Record(b)
			n, serr := w.Coder().Skip(b)
			if (err == nil) != (serr == nil) || err == nil && (size != n || hdr != h || herr != nil) {
				t.Fatalf("Record(%x) = %+v, %d, %v; Skip = %d, %v; Header = %+v, %v", b, hdr, size, err, n, serr, h, herr)
			}
			var r KV
			if kerr := w.CutKV(b, &r); (kerr == nil) != (err == nil) || kerr == nil && (r.Size != size || r.Header != h) {
				t.Fatalf("CutKV(%x) = %+v, %v; Record = %+v, %d, %v", b, r, kerr, hdr, size, err)
			}
		}
	})
}

// FuzzCompile: no coders make Compile fail in another way than with an error, and what it makes can walk.
func FuzzCompile(f *testing.F) {
	for _, text := range fuzzed {
		c := &pipepb.Components{Coders: map[string]*pipepb.Coder{}}
		id := parse(c.Coders, text)
		b, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, id)
	}
	f.Fuzz(func(t *testing.T, b []byte, id string) {
		var c pipepb.Components
		if proto.Unmarshal(b, &c) != nil {
			return
		}
		if k, err := Compile(c.GetCoders(), id); err == nil {
			if n, err := k.Skip(b); err == nil && n > len(b) {
				t.Fatalf("Skip(%x) = %d", b, n)
			}
		}
	})
}
