package stage

import (
	"context"
	"fmt"

	"trestle/internal/beam/urn"
	"trestle/internal/beam/window"
	"trestle/internal/shuffle"
)

// grouped iterates groups, as shuffle.Groups does.
type grouped interface {
	Next() (bool, error)
	Key() []byte
	Window() []byte
	NextValue() (value []byte, timestamp int64, ok bool, err error)
}

// merging merges the windows of each key before they become elements.
type merging interface {
	// see looks at a block that arrives.
	see(block []byte) error
	// merge returns the groups with merged windows; it and their iteration end when ctx does.
	merge(ctx context.Context, sorted *shuffle.Groups) (grouped, error)
	close() error
}

// newMerging returns what merges the windows of a GroupByKey's input; nil when they stay as they are.
func newMerging(s Spec, strategy *window.Strategy) (merging, error) {
	switch {
	case !strategy.Merging():
		return nil, nil
	case s.Stage.Input.Group.Merging != nil:
		return newCustomMerging(s)
	case strategy.Coder().URN() == urn.CoderIntervalWindow:
		return &sessionMerging{values: backlog{store: s.Store}}, nil
	default:
		return nil, fmt.Errorf("windows of coder %s cannot be merged as sessions are", strategy.Coder().URN())
	}
}
