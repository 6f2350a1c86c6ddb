// Package until reads until a context ends, from readers that know of none.
package until

import (
	"context"
	"io"
)

// Reader is r until ctx ends: then each Read fails with the cause of that. One that is under way is not broken off.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
