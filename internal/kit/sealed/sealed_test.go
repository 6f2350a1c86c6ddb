package sealed

import (
	"bytes"
	"errors"
	"testing"
)

// What was written is read, and with any one bit flipped, or cut short, is not.
func TestAnyBitFlipped(t *testing.T) {
	for _, body := range []string{"", "x", "a line\nand {\"another\": 1}\n"} {
		b := Encode("trestle test ", 12, []byte(body))
		version, got, err := Decode("trestle test ", b)
		if version != 12 || string(got) != body || err != nil {
			t.Errorf("%q: %d, %q, %v", b, version, got, err)
		}
		for i := range b {
			for bit := range 8 {
				harmed := bytes.Clone(b)
				harmed[i] ^= 1 << bit
				if version, got, err := Decode("trestle test ", harmed); !errors.Is(err, ErrDamaged) {
					t.Errorf("%q: %d, %q, %v", harmed, version, got, err)
				}
			}
			if version, got, err := Decode("trestle test ", b[:i]); !errors.Is(err, ErrDamaged) {
				t.Errorf("%q: %d, %q, %v", b[:i], version, got, err)
			}
		}
	}
}

// FuzzDecode: whatever is read is written again as it was.
func FuzzDecode(f *testing.F) {
	f.Add(Encode("trestle test ", 1, []byte("{}")))
	f.Add([]byte("trestle test 1 2\n"))
	f.Add([]byte("trestle test 01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, Encode("trestle test ", 3, b)} {
			if version, body, err := Decode("trestle test ", b); err == nil && !bytes.Equal(Encode("trestle test ", version, body), b) {
				t.Errorf("%q is read as %d, %q", b, version, body)
			}
		}
	})
}
