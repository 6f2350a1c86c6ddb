package coder

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// sample draws a coder, as parse reads it, and a function that draws encodings of its elements. It is the naive
// reference: each encoding is put together from the proto's words.
func sample(t *rapid.T, depth int) (text string, draw func(*rapid.T) []byte) {
	leaves := []string{"bytes", "string_utf8", "varint", "bool", "double", "interval_window", "global_window",
		"length_prefix(mine)"}
	nodes := []string{"kv", "iterable", "state_backed_iterable", "timer", "custom_window", "windowed_value",
		"param_windowed_value", "sharded_key", "nullable"}
	if depth > 0 {
		leaves = slices.Concat(leaves, nodes, nodes)
	}
	name := rapid.SampledFrom(leaves).Draw(t, "coder")
	sub := func() (string, func(*rapid.T) []byte) { return sample(t, depth-1) }
	switch name {
	case "bytes", "string_utf8", "length_prefix(mine)":
		return name, prefixedSample
	case "varint":
		return name, func(t *rapid.T) []byte { return binary.AppendUvarint(nil, rapid.Uint64().Draw(t, "varint")) }
	case "bool":
		return name, func(t *rapid.T) []byte { return []byte{byte(rapid.IntRange(0, 1).Draw(t, "bool"))} }
	case "double":
		return name, eight
	case "interval_window":
		return name, func(t *rapid.T) []byte {
			return binary.AppendUvarint(eight(t), rapid.Uint64().Draw(t, "span"))
		}
	case "global_window":
		return name, func(*rapid.T) []byte { return nil }
	case "kv":
		k, drawK := sub()
		v, drawV := sub()
		return "kv(" + k + "," + v + ")", func(t *rapid.T) []byte { return append(drawK(t), drawV(t)...) }
	case "iterable", "state_backed_iterable":
		e, drawE := sub()
		return name + "(" + e + ")", func(t *rapid.T) []byte { return iterableSample(t, drawE, name != "iterable") }
	case "custom_window":
		w, drawW := sub()
		return name + "(" + w + ")", func(t *rapid.T) []byte { return append(eight(t), drawW(t)...) }
	case "sharded_key":
		k, drawK := sub()
		return name + "(" + k + ")", func(t *rapid.T) []byte { return append(prefixedSample(t), drawK(t)...) }
	case "nullable":
		v, drawV := sub()
		return name + "(" + v + ")", func(t *rapid.T) []byte {
			if rapid.Bool().Draw(t, "null") {
				return []byte{0}
			}
			return append([]byte{1}, drawV(t)...)
		}
	case "param_windowed_value":
		v, drawV := sub()
		return name + "(" + v + ",global_window)", drawV
	case "timer":
		k, drawK := sub()
		return name + "(" + k + ",interval_window)", func(t *rapid.T) []byte {
			b := append(drawK(t), prefixedSample(t)...)
			b = append(b, windowsSample(t)...)
			if rapid.Bool().Draw(t, "clear") {
				return append(b, 1)
			}
			b = append(append(append(b, 0), eight(t)...), eight(t)...)
			return append(b, paneSample(t)...)
		}
	default: // windowed_value
		v, drawV := sub()
		return name + "(" + v + ",interval_window)", func(t *rapid.T) []byte {
			b := append(eight(t), windowsSample(t)...)
			return append(append(b, paneSample(t)...), drawV(t)...)
		}
	}
}

func eight(t *rapid.T) []byte {
	return binary.BigEndian.AppendUint64(nil, rapid.Uint64().Draw(t, "eight bytes"))
}

func prefixedSample(t *rapid.T) []byte {
	p := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
	return append(binary.AppendUvarint(nil, uint64(len(p))), p...)
}

func windowsSample(t *rapid.T) []byte {
	n := rapid.IntRange(0, 3).Draw(t, "windows")
	b := binary.BigEndian.AppendUint32(nil, uint32(n))
	for range n {
		b = binary.AppendUvarint(append(b, eight(t)...), rapid.Uint64().Draw(t, "span"))
	}
	return b
}

func paneSample(t *rapid.T) []byte { return AppendPane(nil, drawPane(t)) }

func drawPane(t *rapid.T) PaneInfo {
	p := PaneInfo{
		Timing: Timing(rapid.IntRange(0, 3).Draw(t, "timing")),
		First:  rapid.Bool().Draw(t, "first"),
		Last:   rapid.Bool().Draw(t, "last"),
	}
	switch p.Timing {
	case Unknown: // has no indices
	case Early:
		p.Index, p.NonSpeculative = rapid.Int64Min(0).Draw(t, "index"), -1
	default:
		p.Index = rapid.Int64Min(0).Draw(t, "index")
		p.NonSpeculative = rapid.Int64Range(0, p.Index).Draw(t, "non-speculative index")
	}
	return p
}

func iterableSample(t *rapid.T, elem func(*rapid.T) []byte, backed bool) []byte {
	many := rapid.IntRange(0, 4)
	if !rapid.Bool().Draw(t, "unknown length") {
		n := many.Draw(t, "count")
		b := binary.BigEndian.AppendUint32(nil, uint32(n))
		for range n {
			b = append(b, elem(t)...)
		}
		return b
	}
	b := []byte{0xff, 0xff, 0xff, 0xff}
	for range rapid.IntRange(0, 3).Draw(t, "chunks") {
		n := rapid.IntRange(1, 3).Draw(t, "chunk")
		b = append(b, byte(n))
		for range n {
			b = append(b, elem(t)...)
		}
	}
	if backed && rapid.Bool().Draw(t, "token") {
		return append(binary.AppendUvarint(b, math.MaxUint64), prefixedSample(t)...)
	}
	return append(b, 0)
}

// TestSkipAgreesWithReference: Skip gives the length of what the reference wrote, whatever follows, and every part
// of it that is not the whole is too short.
func TestSkipAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, draw := sample(t, 3)
		b := draw(t)
		c := mustCompile(t, text)
		more := append(b[:len(b):len(b)], rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "behind")...)
		if n, err := c.Skip(more); err != nil || n != len(b) {
			t.Fatalf("%s: Skip(%x) = %d, %v; want %d", text, more, n, err, len(b))
		}
		if n, ok := c.Fixed(); ok && n != len(b) {
			t.Fatalf("%s: Fixed() = %d; want %d", text, n, len(b))
		}
		for i := range b {
			if n, err := c.Skip(b[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s: Skip of %d bytes of %d = %d, %v", text, i, len(b), n, err)
			}
		}
	})
}

// TestRecordAgreesWithParts: the parts of a record that was put together are found again.
func TestRecordAgreesWithParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kvs := rapid.SampledFrom([]string{"kv(bytes,bytes)", "kv(length_prefix(mine),string_utf8)", "kv(bytes,varint)"}).
			Draw(t, "element")
		window, encoded := "global_window", []byte(nil)
		if rapid.Bool().Draw(t, "interval") {
			window = "interval_window"
			encoded = binary.AppendUvarint(eight(t), rapid.Uint64().Draw(t, "span"))
		}
		millis := rapid.Int64().Draw(t, "timestamp")
		pane := drawPane(t)
		key := prefixedSample(t)
		val := prefixedSample(t)
		if strings.Contains(kvs, "varint") {
			val = binary.AppendUvarint(nil, rapid.Uint64().Draw(t, "value"))
		}
		b := AppendHeader(nil, millis, encoded, pane)
		size := len(b)
		b = append(append(b, key...), val...)
		w := mustCompileWindowed(t, "windowed_value("+kvs+","+window+")")

		type parts struct {
			At        int64
			Windows   string
			Count     int
			Pane      PaneInfo
			Key, Val  string
			Head, All int
		}
		want := parts{millis, string(encoded), 1, pane, string(key), string(val), size, len(b)}
		var r KV
		if err := w.CutKV(append(b[:len(b):len(b)], 9, 9), &r); err != nil {
			t.Fatal(err)
		}
		p, _, err := Pane(r.Header.Pane(b))
		if err != nil {
			t.Fatal(err)
		}
		got := parts{r.Header.Timestamp, string(r.Header.Windows(b)), r.Header.Count, p, string(r.Key(b)),
			string(r.Value(b)), r.Header.Size, r.Size}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("parts (-want +got):\n%s", d)
		}
		h, all, err := w.Record(b)
		if err != nil || h != r.Header || all != len(b) {
			t.Fatalf("Record = %+v, %d, %v; CutKV has %+v", h, all, err, r)
		}
		for i := range b {
			if err := w.CutKV(b[:i], &r); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("CutKV of %d bytes of %d: %v", i, len(b), err)
			}
		}
	})
}
