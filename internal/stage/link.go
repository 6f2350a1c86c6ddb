package stage

import (
	"context"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"

	"trestle/internal/fnapi"
)

// link is the way to a harness that knows what it is to do. It belongs to one goroutine.
type link struct {
	session    *fnapi.Session // nil before the first use, and when there is none; it may have ended since the last
	descriptor string         // its id of what connect was given
}

// connect sees to it that there is a harness that knows d. One that went away since the last use is replaced, which costs no
// attempt.
func (l *link) connect(ctx context.Context, harness Harness, d *fnpb.ProcessBundleDescriptor) error {
	if l.session != nil && l.session.Err() == nil {
		return nil
	}
	l.session = nil
	session, err := harness(ctx)
	if err != nil {
		return err
	}
	if l.descriptor, err = session.AddDescriptor(d); err != nil {
		return err
	}
	l.session = session
	return nil
}
