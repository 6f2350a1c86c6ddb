package fnapi

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the stock codec that ours stands in front of
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// ServerOptions are the options that a gRPC server with the Fn API's services must be made with. They suit Beam's job and
// artifact services as well: messages of any size that protobuf allows, and clients that ping often.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		// On loopback the window is not the limit; a fixed one spares the estimator, and a larger one pins memory.
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(4 << 20),
		grpc.ReadBufferSize(128 << 10),
		// Python's and Java's clients ping more often than gRPC's default policy forgives (ENHANCE_YOUR_CALM).
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		// A connection whose other end has vanished without a word is noticed.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 20 * time.Second}),
	}
}

// part is one Elements.Data or Elements.Timers of an Elements message.
type part struct {
	instruction, transform string
	family                 string // of timers
	timers, last           bool
	payload                []byte
}

// elements is Beam's Elements message with its payloads where gRPC put them: the generated type would copy each one.
// A received message's parts point into buf, which is freed when the last part is done with.
type elements struct {
	parts []part
	buf   mem.Buffer
}

// codec reads and writes *elements; all other messages go to the stock codec.
type codec struct{ encoding.CodecV2 }

// Field numbers of Elements, Elements.Data and Elements.Timers (beam_fn_api.proto).
const (
	fieldData, fieldTimers           = 1, 2
	fieldInstruction, fieldTransform = 1, 2
	fieldDataPayload, fieldDataLast  = 3, 4
	fieldTimersFamily                = 3
	fieldTimersPayload               = 4
	fieldTimersLast                  = 5
)

// Marshal copies payloads: gRPC writes them some time after they were sent.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	e, ok := v.(*elements)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, 0, 2*len(e.parts))
	for _, p := range e.parts {
		field, payload, last := protowire.Number(fieldData), protowire.Number(fieldDataPayload), protowire.Number(fieldDataLast)
		if p.timers {
			field, payload, last = fieldTimers, fieldTimersPayload, fieldTimersLast
		}
		inner := make([]byte, 0, 48+len(p.instruction)+len(p.transform)+len(p.family))
		inner = protowire.AppendTag(inner, fieldInstruction, protowire.BytesType)
		inner = protowire.AppendString(inner, p.instruction)
		inner = protowire.AppendTag(inner, fieldTransform, protowire.BytesType)
		inner = protowire.AppendString(inner, p.transform)
		if p.timers {
			inner = protowire.AppendTag(inner, fieldTimersFamily, protowire.BytesType)
			inner = protowire.AppendString(inner, p.family)
		}
		if p.last {
			inner = protowire.AppendTag(inner, last, protowire.VarintType)
			inner = protowire.AppendVarint(inner, 1)
		}
		inner = protowire.AppendTag(inner, payload, protowire.BytesType)
		inner = protowire.AppendVarint(inner, uint64(len(p.payload)))
		head := make([]byte, 0, len(inner)+12)
		head = protowire.AppendTag(head, field, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(inner)+len(p.payload)))
		head = append(head, inner...)
		out = append(out, mem.SliceBuffer(head))
		if len(p.payload) > 0 {
			out = append(out, mem.Copy(p.payload, &buffers))
		}
	}
	return out, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	e, ok := v.(*elements)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	e.buf = data.MaterializeToBuffer(&buffers)
	parts, err := parseElements(e.parts[:0], e.buf.ReadOnlyData())
	e.parts = parts
	if err != nil {
		e.buf.Free()
		return fmt.Errorf("elements message: %w", err)
	}
	return nil
}

// mostParts bounds the parts of a message, which take fifty times the room here that the shortest have on the wire. An SDK
// sends one or two for each output and timer family of each bundle that the message is about.
const mostParts = 1 << 20

// parseElements appends the parts of an encoded Elements message to parts; payloads point into b.
func parseElements(parts []part, b []byte) ([]part, error) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return parts, protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType || field != fieldData && field != fieldTimers {
			if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
				return parts, protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		body, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return parts, protowire.ParseError(n)
		}
		b = b[n:]
		if len(parts) == mostParts {
			return parts, fmt.Errorf("it has more than %d parts", mostParts)
		}
		p, err := parsePart(body, field == fieldTimers)
		if err != nil {
			return parts, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func parsePart(b []byte, timers bool) (part, error) {
	p := part{timers: timers}
	payload, last := protowire.Number(fieldDataPayload), protowire.Number(fieldDataLast)
	if timers {
		payload, last = fieldTimersPayload, fieldTimersLast
	}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return p, protowire.ParseError(n)
		}
		b = b[n:]
		switch {
		case kind == protowire.BytesType:
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return p, protowire.ParseError(n)
			}
			b = b[n:]
			switch {
			case field == fieldInstruction:
				p.instruction = string(value)
			case field == fieldTransform:
				p.transform = string(value)
			case field == payload:
				p.payload = value
			case timers && field == fieldTimersFamily:
				p.family = string(value)
			}
		case kind == protowire.VarintType && field == last:
			value, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return p, protowire.ParseError(n)
			}
			b = b[n:]
			p.last = value != 0
		default:
			if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
				return p, protowire.ParseError(n)
			}
			b = b[n:]
		}
	}
	return p, nil
}
