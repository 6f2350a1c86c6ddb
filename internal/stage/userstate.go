package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
)

// cell is what a state key of the Fn API addresses: a range of the store.
type cell struct {
	kind        string // the protocol
	key, window []byte
	lo, hi      []byte
	// part is set for what is a part of a multimap: the values of one map key. keys is set for the map keys.
	part, keys bool
	// values is set for the entries of a multimap: the coder of their values.
	values  *coder.Coder
	prefix  []byte // of the state as a whole
	appends bool   // it can be appended to
}

var errNoState = errors.New("this transform keeps no such state")

// cellOf finds what a request addresses.
func (k *kept) cellOf(key *fnpb.StateKey) (c cell, err error) {
	var transform, id string
	switch s := key.GetType().(type) {
	case *fnpb.StateKey_BagUserState_:
		c.kind, transform, id = urn.UserStateBag, s.BagUserState.GetTransformId(), s.BagUserState.GetUserStateId()
		c.key, c.window, c.appends = s.BagUserState.GetKey(), s.BagUserState.GetWindow(), true
	case *fnpb.StateKey_MultimapUserState_:
		c.kind, transform, id = urn.UserStateMultimap, s.MultimapUserState.GetTransformId(), s.MultimapUserState.GetUserStateId()
		c.key, c.window, c.appends, c.part = s.MultimapUserState.GetKey(), s.MultimapUserState.GetWindow(), true, true
	case *fnpb.StateKey_MultimapKeysUserState_:
		c.kind, transform, id = urn.UserStateMultimap, s.MultimapKeysUserState.GetTransformId(), s.MultimapKeysUserState.GetUserStateId()
		c.key, c.window, c.keys = s.MultimapKeysUserState.GetKey(), s.MultimapKeysUserState.GetWindow(), true
	case *fnpb.StateKey_OrderedListUserState_:
		c.kind, transform, id = urn.UserStateOrderedList, s.OrderedListUserState.GetTransformId(), s.OrderedListUserState.GetUserStateId()
		c.key, c.window, c.appends = s.OrderedListUserState.GetKey(), s.OrderedListUserState.GetWindow(), true
	case nil:
		entries, err := parseEntriesKey(key)
		if err != nil {
			return c, err
		}
		c.kind, transform, id, c.key, c.window = urn.UserStateMultimap, entries.transform, entries.state, entries.key, entries.window
		value, known := k.state.Values[id]
		if !known {
			return c, fmt.Errorf("the entries of state %q of transform %s cannot be listed: the runner does not know the coder of the values", id, transform)
		}
		if c.values, err = coder.Compile(k.spec.coders(), value); err != nil {
			return c, err
		}
	default:
		return c, fmt.Errorf("state of kind %T is not served here", s)
	}
	if transform != k.state.Transform || k.state.Kinds[id] != c.kind {
		return c, fmt.Errorf("state %q of transform %s as %s: %w", id, transform, c.kind, errNoState)
	}
	c.prefix = k.appendKeyName(begin(make([]byte, 0, 64), kindState, k.groupOf(c.key)), c.key)
	c.prefix = appendPart(appendPart(c.prefix, c.window), []byte(id))
	c.lo = c.prefix
	if c.part {
		c.lo = appendPart(slices.Clone(c.prefix), key.GetMultimapUserState().GetMapKey())
	}
	c.hi = after(c.lo)
	if r := key.GetOrderedListUserState().GetRange(); r != nil {
		c.lo = coder.AppendTimestamp(slices.Clone(c.prefix), r.GetStart())
		c.hi = coder.AppendTimestamp(slices.Clone(c.prefix), r.GetEnd())
		if r.GetStart() > r.GetEnd() {
			return c, fmt.Errorf("state %q of transform %s: a range from %d to %d", id, transform, r.GetStart(), r.GetEnd())
		}
	}
	return c, nil
}

// answer carries a state request out. It may be called while the bundle's timers arrive.
func (k *kept) answer(r *fnpb.StateRequest) (*fnpb.StateResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, err := k.cellOf(r.GetStateKey())
	if err != nil {
		return nil, err
	}
	if err := k.open(); err != nil {
		return nil, err
	}
	switch q := r.GetRequest().(type) {
	case *fnpb.StateRequest_Get:
		answer, err := k.read(c, q.Get.GetContinuationToken())
		return &fnpb.StateResponse{Response: &fnpb.StateResponse_Get{Get: answer}}, err
	case *fnpb.StateRequest_Append:
		if !c.appends {
			return nil, errors.New("the keys of a multimap can be read and cleared only")
		}
		k.touch(c.key, c.window)
		return &fnpb.StateResponse{Response: &fnpb.StateResponse_Append{Append: &fnpb.StateAppendResponse{}}}, k.add(c, q.Append.GetData())
	case *fnpb.StateRequest_Clear:
		if err := k.over.DeleteRange(c.lo, c.hi); err != nil {
			return nil, err
		}
		return &fnpb.StateResponse{Response: &fnpb.StateResponse_Clear{Clear: &fnpb.StateClearResponse{}}}, nil
	}
	return nil, fmt.Errorf("a state request of kind %T", r.GetRequest())
}

// add appends what an SDK has appended. Each append has a place of its own, behind all before it.
func (k *kept) add(c cell, data []byte) error {
	if c.kind != urn.UserStateOrderedList {
		k.over.Insert(k.numbered(c.lo), slices.Clone(data))
		return nil
	}
	// KV<varint, length-prefixed value>, see StateAppendRequest in beam_fn_api.proto.
	for len(data) > 0 {
		at, n := binary.Uvarint(data)
		if n <= 0 {
			return errOrderedList
		}
		_, rest, ok := cutPart(data[n:])
		if !ok {
			return errOrderedList
		}
		value := data[n : len(data)-len(rest)]
		k.over.Insert(k.numbered(coder.AppendTimestamp(slices.Clone(c.prefix), int64(at))), slices.Clone(value))
		data = rest
	}
	return nil
}

var errOrderedList = errors.New("entries of an ordered list are not a varint and a value in a length prefix each")

// numbered is a new key behind all others with the prefix.
func (k *kept) numbered(prefix []byte) []byte {
	return binary.BigEndian.AppendUint64(slices.Clip(slices.Clone(prefix)), k.over.Next())
}

// read reads a page of a cell, or of the entries of a multimap. Values that are appended come behind all that were read, also behind
// a page that a harness keeps; keys of a multimap do not.
func (k *kept) read(c cell, token []byte) (answer *fnpb.StateGetResponse, err error) {
	if c.values != nil {
		answer, err = k.readEntries(c, token)
	} else {
		answer, err = k.readValues(c, token)
	}
	k.inPages = k.inPages || (c.keys || c.values != nil) && len(answer.GetContinuationToken()) > 0
	return answer, err
}

// readValues reads a page of a cell. The token is the key in the store from which on to read.
func (k *kept) readValues(c cell, token []byte) (*fnpb.StateGetResponse, error) {
	lo := c.lo
	if len(token) > 0 {
		lo = append(slices.Clone(c.prefix), token...)
	}
	answer := &fnpb.StateGetResponse{}
	var last []byte
	first := true
	err := k.over.Scan(lo, c.hi, func(key, value []byte) (bool, error) {
		name := key[len(c.prefix):]
		if c.keys {
			mapKey, _, ok := cutPart(name)
			if !ok {
				return false, errors.New("a key of a multimap in the store is cut short")
			}
			if !first && string(mapKey) == string(last) {
				return true, nil // another value of it
			}
			value = mapKey
			last = append(last[:0], mapKey...)
		}
		first = false
		if len(answer.Data) >= pageBytes {
			answer.ContinuationToken = slices.Clone(name)
			return false, nil
		}
		if c.kind == urn.UserStateOrderedList {
			answer.Data = binary.AppendUvarint(answer.Data, uint64(coder.Timestamp(name)))
		}
		answer.Data = append(answer.Data, value...)
		return true, nil
	})
	return answer, err
}
