package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// frames is one of each type.
func frames() []Frame {
	var all []Frame
	for t, s := range shapes {
		f := Frame{Type: t}
		for i := range s.numbers {
			f.Numbers[i] = uint32(i + 1)
		}
		if s.wide {
			f.Wide = 1 << 40
		}
		if s.kind {
			f.Kind = 1
		}
		if s.data {
			f.Data = []byte("data")
		}
		all = append(all, f)
	}
	return all
}

func written(t testing.TB, all ...Frame) []byte {
	t.Helper()
	near, far := net.Pipe()
	go func() {
		w := NewWriter(near)
		for _, f := range all {
			if err := w.Write(f); err != nil {
				t.Error(err)
			}
		}
		near.Close()
	}()
	b, err := io.ReadAll(far)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is written is read.
func TestRoundTrip(t *testing.T) {
	all := frames()
	r := NewReader(bytes.NewReader(written(t, all...)))
	for _, want := range all {
		got, err := r.Read()
		if err != nil {
			t.Fatalf("%s: %v", want.Type, err)
		}
		if d := cmp.Diff(want, *got); d != "" {
			t.Errorf("%s (-want +got):\n%s", want.Type, d)
		}
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

// A stream that ends within a frame has not ended well, and what is no frame is said to be none.
func TestMalformed(t *testing.T) {
	for _, f := range frames() {
		b := written(t, f)
		for n := 1; n < len(b); n++ {
			if _, err := NewReader(bytes.NewReader(b[:n])).Read(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("%s cut after %d bytes: %v", f.Type, n, err)
			}
		}
	}
	for name, b := range map[string][]byte{
		"no type":        {0, 0, 0, 0},
		"unknown type":   {0, 0, 0, 1, 99},
		"too long":       {255, 255, 255, 255, 3},
		"short body":     {0, 0, 0, 3, byte(End), 0, 0},
		"longer than it": {0, 0, 0, 2, byte(Close), 0},
	} {
		if _, err := NewReader(bytes.NewReader(b)).Read(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzReader: whatever comes, a reader answers with frames or an error, and never with more data than came.
func FuzzReader(f *testing.F) {
	for _, frame := range frames() {
		f.Add(written(f, frame))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for size := 0; ; {
			frame, err := r.Read()
			if err != nil {
				return
			}
			if size += len(frame.Data); size > len(b) {
				t.Fatalf("%d bytes of data out of %d", size, len(b))
			}
		}
	})
}
