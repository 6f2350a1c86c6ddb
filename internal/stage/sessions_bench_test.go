package stage

import (
	"context"
	"encoding/binary"
	"testing"

	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
	"trestle/internal/beam/window"
	"trestle/internal/shuffle"
)

// BenchmarkSessions reads 500,000 values of 100 bytes out of a sort, in windows of their own as they come out of it
// (apart) and merged into sessions of ten and of all of a key's. What is before the reading is not measured.
func BenchmarkSessions(b *testing.B) {
	const values, keys = 500_000, 1000
	for name, step := range map[string]int64{"apart": 0, "tens": 15, "whole": 1} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				store := shuffle.NewStore(b.TempDir(), shuffle.NewBudget(1<<30))
				m := &sessionMerging{values: backlog{store: store}}
				grouper := store.NewGrouper(128)
				partitioner, err := shuffle.NewPartitioner(benchRecords(b), 128, func(keyGroup int, block []byte) error {
					if err := grouper.Add(0, keyGroup, block); err != nil {
						return err
					}
					return m.see(block)
				})
				if err != nil {
					b.Fatal(err)
				}
				for i := range int64(values) {
					at := i / keys
					if step > 1 {
						at = at/10*100 + at%10*5
					}
					var key [4]byte
					binary.BigEndian.PutUint32(key[:], uint32(i%keys))
					record := coder.AppendHeader(nil, at, window.AppendInterval(nil, window.Interval{Start: at, End: at + 10}), coder.NoFiring)
					record = append(append(append(record, 4), key[:]...), 100)
					if err := partitioner.Write(append(record, make([]byte, 100)...)); err != nil {
						b.Fatal(err)
					}
				}
				if err := partitioner.Flush(); err != nil {
					b.Fatal(err)
				}
				sorted, err := grouper.Seal()
				if err != nil {
					b.Fatal(err)
				}
				groups := grouped(sorted)
				b.StartTimer()
				if step > 0 {
					if groups, err = m.merge(context.Background(), sorted); err != nil {
						b.Fatal(err)
					}
				}
				n := 0
				for more, err := groups.Next(); more; more, err = groups.Next() {
					if err != nil {
						b.Fatal(err)
					}
					for {
						_, _, ok, err := groups.NextValue()
						if err != nil {
							b.Fatal(err)
						}
						if !ok {
							break
						}
						n++
					}
				}
				if n != values {
					b.Fatalf("%d values", n)
				}
				b.StopTimer()
				if err := store.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/values, "ns/value")
		})
	}
}

func benchRecords(b interface{ Fatal(...any) }) *coder.Windowed {
	spec := func(u string, components ...string) *pipepb.Coder {
		return &pipepb.Coder{Spec: &pipepb.FunctionSpec{Urn: u}, ComponentCoderIds: components}
	}
	w, err := coder.CompileWindowed(map[string]*pipepb.Coder{
		"bytes": spec(urn.CoderBytes), "kv": spec(urn.CoderKV, "bytes", "bytes"),
		"window": spec(urn.CoderIntervalWindow), "record": spec(urn.CoderWindowedValue, "kv", "window"),
	}, "record")
	if err != nil {
		b.Fatal(err)
	}
	return w
}
