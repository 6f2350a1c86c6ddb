package coder

import (
	"encoding/binary"
	"fmt"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/urn"
)

// Windowed walks the records of a PCollection as they travel: elements with timestamp, windows and pane
// (beam:coder:windowed_value:v1). It is immutable.
type Windowed struct {
	coder, value, window *Coder
	key, val             *Coder // of a KV
	global               bool
	prefixes             bool // the value is a KV of two that each begin with their length: the commonest
}

// CompileWindowed prepares the windowed-value coder with this id. It fails as Compile does, and for any other kind
// of coder.
func CompileWindowed(coders map[string]*pipepb.Coder, id string) (*Windowed, error) {
	c, err := Compile(coders, id)
	if err != nil {
		return nil, err
	}
	if c.urn != urn.CoderWindowedValue {
		return nil, fmt.Errorf("coder %q: records need %s, this is %s", id, urn.CoderWindowedValue, c.urn)
	}
	w := &Windowed{coder: c, value: c.comps[0], window: c.comps[1]}
	w.global = w.window.fixed == 0
	if k, v, ok := w.value.KV(); ok {
		w.key, w.val = k, v
		w.prefixes = k.prefixed1() && v.prefixed1()
	}
	return w, nil
}

// prefixed1 tells that an element is a length and as many bytes, and nothing else.
func (c *Coder) prefixed1() bool { return len(c.prog) == 1 && c.prog[0].op == opPrefix }

// Coder is the whole coder.
func (w *Windowed) Coder() *Coder { return w.coder }

// Value is the coder of the element.
func (w *Windowed) Value() *Coder { return w.value }

// Window is the coder of a window.
func (w *Windowed) Window() *Coder { return w.window }

// Header tells where the parts of a record are that stand before its element. Offsets count from the record's first
// byte, where the encoded timestamp's TimestampSize bytes are.
type Header struct {
	// Timestamp is the element's event time in milliseconds.
	Timestamp int64
	// Count is how many windows the element is in; their encodings are the WindowsSize bytes at WindowsOffset, one
	// behind the other. (All windows of the global window together are no bytes at all.)
	Count, WindowsOffset, WindowsSize int
	// PaneOffset is where the encoded pane starts; it ends at Size.
	PaneOffset int
	// Size is how many bytes stand before the element.
	Size int
}

// Windows returns the encoded windows of the record that starts at b; it shares b's bytes.
func (h *Header) Windows(b []byte) []byte {
	return b[h.WindowsOffset : h.WindowsOffset+h.WindowsSize]
}

// Pane returns the encoded pane of the record that starts at b; it shares b's bytes.
func (h *Header) Pane(b []byte) []byte { return b[h.PaneOffset:h.Size] }

// globalHeader is the size of a header with the global window and a pane of one byte: all but triggered ones.
const globalHeader = TimestampSize + 4 + 1

// Header reads the header of the record that starts at b. The error wraps io.ErrUnexpectedEOF when b ends within it;
// any other means that b is no record. Nothing is allocated.
func (w *Windowed) Header(b []byte) (Header, error) {
	var h Header
	err := w.header(b, &h)
	return h, err
}

func (w *Windowed) header(b []byte, h *Header) error {
	if w.global && len(b) >= globalHeader && binary.BigEndian.Uint32(b[TimestampSize:]) == 1 &&
		b[TimestampSize+4]>>4 == 0 {
		*h = Header{Timestamp: Timestamp(b), Count: 1, WindowsOffset: TimestampSize + 4,
			PaneOffset: TimestampSize + 4, Size: globalHeader}
		return nil
	}
	return w.slowHeader(b, h)
}

func (w *Windowed) slowHeader(b []byte, h *Header) error {
	if len(b) < TimestampSize {
		return errShort
	}
	n, start, end, err := w.coder.windows(b, TimestampSize, w.window)
	if err != nil {
		return err
	}
	size, err := w.coder.pane(b, end)
	if err != nil {
		return err
	}
	*h = Header{Timestamp: Timestamp(b), Count: n, WindowsOffset: start, WindowsSize: end - start,
		PaneOffset: end, Size: size}
	return nil
}

// Record reads the header of the record that starts at b and returns the size of the whole record. Errors are those
// of Header.
func (w *Windowed) Record(b []byte) (hdr Header, size int, err error) {
	if err = w.header(b, &hdr); err != nil {
		return hdr, 0, err
	}
	if w.prefixes {
		if _, size, ok := shortPrefixes(b, hdr.Size); ok {
			return hdr, size, nil
		}
	}
	size, err = w.value.walk(b, hdr.Size)
	return hdr, size, err
}

// KV tells where the parts of a record are whose element is a KV. Offsets count from the record's first byte: the
// key starts at Header.Size and ends at KeyEnd, the value follows and ends at Size, where the next record starts.
type KV struct {
	Header       Header
	KeyEnd, Size int
}

// Key returns the encoded key of the record that starts at b; it shares b's bytes.
func (r *KV) Key(b []byte) []byte { return b[r.Header.Size:r.KeyEnd] }

// Value returns the encoded value of the record that starts at b; it shares b's bytes.
func (r *KV) Value(b []byte) []byte { return b[r.KeyEnd:r.Size] }

// CutKV reads the record that starts at b into r, which the caller may use again and again. Errors are those of
// Header; it also fails when the coder's element is not a KV. On an error, r is not to be used.
func (w *Windowed) CutKV(b []byte, r *KV) error {
	if err := w.header(b, &r.Header); err != nil {
		return err
	}
	o := r.Header.Size
	if w.prefixes {
		if end, size, ok := shortPrefixes(b, o); ok {
			r.KeyEnd, r.Size = end, size
			return nil
		}
	}
	if w.key == nil {
		return fmt.Errorf("coder %q: records are not of %s", w.coder.id, urn.CoderKV)
	}
	var err error
	if r.KeyEnd, err = w.key.walk(b, o); err != nil {
		return err
	}
	r.Size, err = w.val.walk(b, r.KeyEnd)
	return err
}

// shortPrefixes skips two runs of bytes whose lengths take one byte each, as most keys and small values have. It is
// not ok when a length is longer or when b ends: the general way finds out which.
func shortPrefixes(b []byte, o int) (mid, end int, ok bool) {
	if o >= len(b) || b[o] >= 0x80 {
		return 0, 0, false
	}
	mid = o + 1 + int(b[o])
	if mid >= len(b) || b[mid] >= 0x80 {
		return 0, 0, false
	}
	end = mid + 1 + int(b[mid])
	return mid, end, end <= len(b)
}

// AppendHeader appends the header of a record that is in one window, whose encoding is given (nothing for the global
// one). The element is to follow.
func AppendHeader(dst []byte, millis int64, window []byte, pane PaneInfo) []byte {
	dst = AppendTimestamp(dst, millis)
	dst = append(dst, 0, 0, 0, 1)
	dst = append(dst, window...)
	return AppendPane(dst, pane)
}
