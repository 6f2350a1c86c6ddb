package coder

import (
	"errors"
	"io"
	"slices"
	"testing"
)

// TestEachElement: an iterable's elements come one by one, however its length is told, and what is cut short or lies in
// state is an error.
func TestEachElement(t *testing.T) {
	for _, c := range []struct {
		coder, in string
		want      []string
		size      int
		err       error // nil: want is all; errors without a name of their own are errOther
	}{
		{"iterable(bytes)", "\x00\x00\x00\x00rest", nil, 4, nil},
		{"iterable(bytes)", "\x00\x00\x00\x02\x01a\x02bcrest", []string{"\x01a", "\x02bc"}, 9, nil},
		{"iterable(bytes)", "\xff\xff\xff\xff\x02\x01a\x01b\x01\x01c\x00rest", []string{"\x01a", "\x01b", "\x01c"}, 13, nil},
		{"iterable(kv(bool,bool))", "\x00\x00\x00\x02\x01\x00\x00\x01", []string{"\x01\x00", "\x00\x01"}, 8, nil},
		{"iterable(global_window)", "\x00\x00\x00\x01", []string{""}, 4, nil},
		{"iterable(bytes)", "\x00\x00\x00\x02\x01a", []string{"\x01a"}, 0, io.ErrUnexpectedEOF},
		{"iterable(bytes)", "\xff\xff\xff\xff\x01\x01a", []string{"\x01a"}, 0, io.ErrUnexpectedEOF},
		{"state_backed_iterable(bytes)", "\xff\xff\xff\xff\x01\x01a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01t", []string{"\x01a"}, 0, errBacked},
		{"iterable(bytes)", "\xff\xff\xff\xfe", nil, 0, errOther},
		{"iterable(global_window)", "\x7f\xff\xff\xff", nil, 0, errOther},
		{"bytes", "\x00\x00\x00\x00", nil, 0, errOther},
	} {
		var got []string
		size, err := mustCompile(t, c.coder).EachElement([]byte(c.in), func(e []byte) error {
			got = append(got, string(e))
			return nil
		})
		if !slices.Equal(got, c.want) || size != c.size {
			t.Errorf("%s of %q: %q, %d bytes; want %q, %d", c.coder, c.in, got, size, c.want, c.size)
		}
		if c.err == errOther && err == nil || c.err != errOther && !errors.Is(err, c.err) {
			t.Errorf("%s of %q: error %v, want %v", c.coder, c.in, err, c.err)
		}
	}
	_, err := mustCompile(t, "iterable(bytes)").EachElement([]byte("\x00\x00\x00\x02\x01a\x01b"), func([]byte) error { return errOther })
	if err != errOther {
		t.Errorf("the callback's error came back as %v", err)
	}
}

var errOther = errors.New("some error")

// FuzzEachElement: an iterable's elements are found where Skip finds its end, and each of them is an element.
func FuzzEachElement(f *testing.F) {
	var coders []*Coder
	for _, text := range []string{"iterable(bytes)", "iterable(kv(bool,iterable(varint)))", "state_backed_iterable(bytes)", "iterable(global_window)"} {
		coders = append(coders, mustCompile(f, text))
	}
	for i, seed := range []string{"\x00\x00\x00\x02\x01a\x02bc", "\x00\x00\x00\x01\x01\xff\xff\xff\xff\x01\x05\x00", "\xff\xff\xff\xff\x01\x01a\x00", "\x00\x00\x00\x01"} {
		f.Add(uint8(i), []byte(seed))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := coders[int(which)%len(coders)]
		elem, _ := c.Element()
		n, err := c.EachElement(b, func(e []byte) error {
			if size, err := elem.Skip(e); err != nil || size != len(e) {
				t.Fatalf("%x is no element: %d, %v", e, size, err)
			}
			return nil
		})
		size, skip := c.Skip(b)
		if err == nil && (skip != nil || n != size) {
			t.Fatalf("%d bytes, Skip says %d, %v", n, size, skip)
		}
	})
}
