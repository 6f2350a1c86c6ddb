package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/protobuf/encoding/protowire"
)

// entriesField is the field of StateKey that addresses all entries of a multimap, with its user key and window:
// MultimapEntriesUserState in Java's beam_fn_api.proto. The generated protos of the Go module do not have it yet.
const entriesField = 10

// entriesKey is what a MultimapEntriesUserState has.
type entriesKey struct {
	transform, state string
	window, key      []byte
}

func parseEntriesKey(k *fnpb.StateKey) (e entriesKey, err error) {
	bad := errors.New("a state key of a kind that this version of Trestle does not know")
	for b := []byte(k.ProtoReflect().GetUnknown()); len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType || field != entriesField {
			return e, bad
		}
		message, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return e, bad
		}
		b = b[n+m:]
		for len(message) > 0 {
			field, kind, n := protowire.ConsumeTag(message)
			if n < 0 || kind != protowire.BytesType {
				return e, bad
			}
			value, m := protowire.ConsumeBytes(message[n:])
			if m < 0 {
				return e, bad
			}
			message = message[n+m:]
			switch field {
			case 1:
				e.transform = string(value)
			case 2:
				e.state = string(value)
			case 3:
				e.window = value
			case 4:
				e.key = value
			}
		}
	}
	if e.transform == "" {
		return e, bad
	}
	return e, nil
}

// readEntries reads a page of a multimap's entries: KV<map key, Iterable<value>>. An entry is in one page whole.
func (k *kept) readEntries(c cell, token []byte) (*fnpb.StateGetResponse, error) {
	lo := c.lo
	if len(token) > 0 {
		lo = append(slices.Clone(c.prefix), token...)
	}
	answer := &fnpb.StateGetResponse{}
	var last []byte
	at, count := -1, 0 // where the number of the entry's values is, and what it is so far
	end := func() {
		if at >= 0 {
			binary.BigEndian.PutUint32(answer.Data[at:], uint32(count))
		}
	}
	err := k.over.Scan(lo, c.hi, func(key, value []byte) (bool, error) {
		name := key[len(c.prefix):]
		mapKey, _, ok := cutPart(name)
		if !ok {
			return false, errors.New("a key of a multimap in the store is cut short")
		}
		if at < 0 || string(mapKey) != string(last) {
			end()
			if len(answer.Data) >= pageBytes {
				answer.ContinuationToken = slices.Clone(name)
				at = -1
				return false, nil
			}
			last = append(last[:0], mapKey...)
			answer.Data = append(answer.Data, mapKey...)
			at, count = len(answer.Data), 0
			answer.Data = append(answer.Data, 0, 0, 0, 0)
		}
		for rest := value; ; {
			// A value may take no bytes at all: then an append is one.
			size, err := c.values.Skip(rest)
			if err != nil {
				return false, fmt.Errorf("values of a multimap: %w", err)
			}
			count++
			if rest = rest[size:]; len(rest) == 0 {
				break
			}
			if size == 0 {
				return false, errors.New("values of a multimap that take no bytes, and bytes behind them")
			}
		}
		answer.Data = append(answer.Data, value...)
		return true, nil
	})
	end()
	return answer, err
}
