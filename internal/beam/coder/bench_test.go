package coder

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// records fills a mebibyte, about what is in the cache after a receive, with records of a KV whose value has a prefix
// and whose key has one or is a varint.
func records(value int, varint bool) []byte {
	var b []byte
	v := make([]byte, value)
	for i := 0; len(b) < 1<<20; i++ {
		b = AppendHeader(b, int64(i), nil, NoFiring)
		if varint {
			b = binary.AppendUvarint(b, uint64(i))
		} else {
			b = append(append(b, 8), fmt.Sprintf("%08d", i)...)
		}
		if value >= 0x80 {
			b = append(b, byte(value)|0x80, byte(value>>7))
		} else {
			b = append(b, byte(value))
		}
		b = append(b, v...)
	}
	return b
}

// Cutting must stay below 10 ns a record: it is paid for each record of a keyed exchange.
func BenchmarkCut(b *testing.B) {
	for _, c := range []struct {
		name, coder string
		value       int
	}{
		{"prefixes/10B", "kv(bytes,bytes)", 10},
		{"prefixes/100B", "kv(length_prefix(mine),bytes)", 100},
		{"prefixes/1000B", "kv(bytes,bytes)", 1000},
		{"program/10B", "kv(varint,bytes)", 10},
		{"program/100B", "kv(varint,bytes)", 100},
	} {
		w := mustCompileWindowed(b, "windowed_value("+c.coder+",global_window)")
		in := records(c.value, c.coder == "kv(varint,bytes)")
		b.Run(c.name+"/KV", func(b *testing.B) {
			b.ReportAllocs()
			left := in
			var r KV
			for b.Loop() {
				if len(left) == 0 {
					left = in
				}
				if err := w.CutKV(left, &r); err != nil {
					b.Fatal(err)
				}
				left = left[r.Size:]
			}
		})
		b.Run(c.name+"/Record", func(b *testing.B) {
			b.ReportAllocs()
			left := in
			for b.Loop() {
				if len(left) == 0 {
					left = in
				}
				_, n, err := w.Record(left)
				if err != nil {
					b.Fatal(err)
				}
				left = left[n:]
			}
		})
	}
}
