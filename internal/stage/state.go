package stage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/plan"
	"trestle/internal/shuffle"
)

// pageBytes is about how much one answer to a state request holds; the SDK comes back with the answer's token for more.
const pageBytes = 1 << 20

// stateServer answers the state requests of a task's bundles: side inputs, and the values of large groups.
type stateServer struct {
	views *Views
	stage *plan.Stage
	kept  *kept // nil unless the stage has state
	// frozen is what the bundle under way reads of side inputs, of a streaming plan.
	frozen *frozenViews

	mu    sync.Mutex
	next  int
	large map[string]*shuffle.Pages // by token
}

// keep makes the values of a large group readable until release.
func (s *stateServer) keep(values *shuffle.Pages) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.large == nil {
		s.large = map[string]*shuffle.Pages{}
	}
	s.next++
	token := strconv.Itoa(s.next)
	s.large[token] = values
	return []byte(token)
}

// release frees the large groups; their bundle has ended.
func (s *stateServer) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pages := range s.large {
		// Closing only gives memory and an unlinked file back: there is nothing to be lost.
		_ = pages.Close()
	}
	s.large = nil
	s.thawed()
}

// thaw lets go of the side inputs that a bundle has read.
func (s *stateServer) thaw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.thawed()
}

func (s *stateServer) thawed() {
	s.views.release(s.frozen)
	s.frozen = nil
}

var errReadOnly = errors.New("side inputs and grouped values can only be read")

func (s *stateServer) answer(_ context.Context, r *fnpb.StateRequest) (*fnpb.StateResponse, error) {
	switch r.GetStateKey().GetType().(type) {
	case nil, *fnpb.StateKey_BagUserState_, *fnpb.StateKey_MultimapUserState_, *fnpb.StateKey_MultimapKeysUserState_,
		*fnpb.StateKey_OrderedListUserState_:
		if s.kept != nil {
			return s.kept.request(r)
		}
	}
	get := r.GetGet()
	if get == nil {
		return nil, errReadOnly
	}
	if i, frozen := s.sideInput(r.GetStateKey()); frozen != nil {
		answer, err := frozen.read(i, r.GetStateKey(), get.GetContinuationToken())
		return &fnpb.StateResponse{Response: &fnpb.StateResponse_Get{Get: answer}}, err
	}
	page, err := parsePage(get.GetContinuationToken())
	if err != nil {
		return nil, err
	}
	data, next, err := s.read(r.GetStateKey(), page)
	if err != nil {
		return nil, err
	}
	answer := &fnpb.StateGetResponse{Data: data}
	if next >= 0 {
		answer.ContinuationToken = binary.AppendUvarint(nil, uint64(next))
	}
	return &fnpb.StateResponse{Response: &fnpb.StateResponse_Get{Get: answer}}, nil
}

// sideInput is the side input of a streaming plan that a state key is of, and what the bundle reads of it; nil where the key is
// of something else.
func (s *stateServer) sideInput(key *fnpb.StateKey) (int, *frozenViews) {
	var transform, tag string
	switch k := key.GetType().(type) {
	case *fnpb.StateKey_IterableSideInput_:
		transform, tag = k.IterableSideInput.GetTransformId(), k.IterableSideInput.GetSideInputId()
	case *fnpb.StateKey_MultimapSideInput_:
		transform, tag = k.MultimapSideInput.GetTransformId(), k.MultimapSideInput.GetSideInputId()
	case *fnpb.StateKey_MultimapKeysSideInput_:
		transform, tag = k.MultimapKeysSideInput.GetTransformId(), k.MultimapKeysSideInput.GetSideInputId()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, in := range s.stage.SideInputs {
		if in.Transform == transform && in.Tag == tag {
			return i, s.frozen
		}
	}
	return 0, nil
}

func parsePage(token []byte) (int64, error) {
	if len(token) == 0 {
		return 0, nil
	}
	page, n := binary.Uvarint(token)
	if n != len(token) || page > 1<<62 {
		return 0, fmt.Errorf("continuation token %x was never given out", token)
	}
	return int64(page), nil
}

// read reads a page of what a state key (StateKey in beam_fn_api.proto) addresses.
func (s *stateServer) read(key *fnpb.StateKey, page int64) ([]byte, int64, error) {
	switch k := key.GetType().(type) {
	case *fnpb.StateKey_Runner_:
		s.mu.Lock()
		pages := s.large[string(k.Runner.GetKey())]
		s.mu.Unlock()
		if pages == nil {
			return nil, -1, fmt.Errorf("no group has the token %q in this bundle: a group's values can be read until its bundle ends", k.Runner.GetKey())
		}
		return pages.Read(page, pageBytes)
	case *fnpb.StateKey_IterableSideInput_:
		v, err := s.view(k.IterableSideInput.GetTransformId(), k.IterableSideInput.GetSideInputId())
		if err != nil {
			return nil, -1, err
		}
		return v.values(k.IterableSideInput.GetWindow(), page)
	case *fnpb.StateKey_MultimapSideInput_:
		v, err := s.view(k.MultimapSideInput.GetTransformId(), k.MultimapSideInput.GetSideInputId())
		if err != nil {
			return nil, -1, err
		}
		return v.lookup(k.MultimapSideInput.GetKey(), k.MultimapSideInput.GetWindow(), page)
	case *fnpb.StateKey_MultimapKeysSideInput_:
		v, err := s.view(k.MultimapKeysSideInput.GetTransformId(), k.MultimapKeysSideInput.GetSideInputId())
		if err != nil {
			return nil, -1, err
		}
		return v.keys(k.MultimapKeysSideInput.GetWindow(), page)
	default:
		return nil, -1, fmt.Errorf("state of kind %T is not served here", key.GetType())
	}
}

func (s *stateServer) view(transform, tag string) (view, error) {
	for i, in := range s.stage.SideInputs {
		if in.Transform == transform && in.Tag == tag {
			return s.views.ready(i)
		}
	}
	return nil, fmt.Errorf("transform %s has no side input %q in this stage", transform, tag)
}
