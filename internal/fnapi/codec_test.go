package fnapi

import (
	"bytes"
	"testing"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// message is the stock type with the content of parts.
func message(parts []part) *fnpb.Elements {
	m := &fnpb.Elements{}
	for _, p := range parts {
		if p.timers {
			m.Timers = append(m.Timers, &fnpb.Elements_Timers{InstructionId: p.instruction, TransformId: p.transform,
				TimerFamilyId: p.family, Timers: p.payload, IsLast: p.last})
		} else {
			m.Data = append(m.Data, &fnpb.Elements_Data{InstructionId: p.instruction, TransformId: p.transform, Data: p.payload, IsLast: p.last})
		}
	}
	return m
}

// What the codec writes is what the stock codec reads, and the other way round.
func TestCodecAgreesWithStock(t *testing.T) {
	parts := []part{
		{instruction: "i1", transform: "t1", payload: []byte("some elements")},
		{instruction: "i2", transform: string(bytes.Repeat([]byte("long"), 100)), payload: bytes.Repeat([]byte{7}, 100_000)},
		{instruction: "i3", transform: "t3", last: true},
		{instruction: "i4", transform: "t4", timers: true, family: "f", payload: []byte("timers"), last: true},
	}
	c := codec{encoding.GetCodecV2("proto")}
	written, err := c.Marshal(&elements{parts: parts})
	if err != nil {
		t.Fatal(err)
	}
	var got fnpb.Elements
	if err := proto.Unmarshal(written.Materialize(), &got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(message(parts), &got) { // a diff of the long payload would take seconds
		t.Errorf("the stock codec reads something else than was written: %d and %d parts", len(got.GetData()), len(got.GetTimers()))
	}
	wire, err := proto.Marshal(message(parts))
	if err != nil {
		t.Fatal(err)
	}
	var read elements
	// In pieces, as they come from the network.
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire[:5]), mem.SliceBuffer(wire[5:90_000]), mem.SliceBuffer(wire[90_000:])}, &read); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(message(parts), message(read.parts)) {
		t.Errorf("read something else than the stock codec wrote: %d parts", len(read.parts))
	}
	read.buf.Free()
}

// A message of nothing but empty parts is refused before they take many times its size.
func TestTooManyParts(t *testing.T) {
	empty := protowire.AppendBytes(protowire.AppendTag(nil, fieldData, protowire.BytesType), nil)
	for n, refused := range map[int]bool{mostParts: false, mostParts + 1: true} {
		parts, err := parseElements(nil, bytes.Repeat(empty, n))
		if (err != nil) != refused || len(parts) != mostParts {
			t.Errorf("of %d parts %d are taken, %v", n, len(parts), err)
		}
	}
}

// parseElements takes what the stock parser takes, with the same result, and never panics.
func FuzzParseElements(f *testing.F) {
	for _, m := range []*fnpb.Elements{
		{},
		{Data: []*fnpb.Elements_Data{{InstructionId: "i", TransformId: "t", Data: []byte("x"), IsLast: true}}},
		{Timers: []*fnpb.Elements_Timers{{InstructionId: "i", TransformId: "t", TimerFamilyId: "f", Timers: []byte("x"), IsLast: true}}},
	} {
		wire, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var want fnpb.Elements
		stock := proto.Unmarshal(wire, &want)
		parts, err := parseElements(nil, wire)
		if stock != nil {
			return // the stock parser also refuses strings that are not UTF-8
		}
		if err != nil {
			t.Fatalf("the stock parser takes this: %v", err)
		}
		clear := func(m *fnpb.Elements) *fnpb.Elements { // what the stock parser keeps and we do not need
			for _, d := range m.GetData() {
				d.ProtoReflect().SetUnknown(nil)
			}
			for _, d := range m.GetTimers() {
				d.ProtoReflect().SetUnknown(nil)
			}
			m.ProtoReflect().SetUnknown(nil)
			return m
		}
		if diff := cmp.Diff(clear(&want), message(parts), protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
			t.Errorf("differs from stock (-want +got):\n%s", diff)
		}
	})
}
