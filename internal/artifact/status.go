package artifact

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"trestle/internal/kit/trailer"
	"trestle/internal/store/blob"
)

// refusal marks an error that is the client's to mend: the same call will fail again.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(err error) error {
	if err == nil {
		return nil
	}
	return refusal{err}
}

// toStatus gives an error the gRPC code that tells the client whose fault it is, and of its text what clients can take: hundreds of
// artifacts may be wrong at once. The caller logs all of it.
func toStatus(err error) error {
	code := codes.Internal
	var refused refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused), errors.Is(err, ErrMismatch):
		code = codes.InvalidArgument
	case errors.Is(err, errForgotten):
		code = codes.FailedPrecondition
	case blob.IsNotFound(err):
		code = codes.NotFound
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return trailer.Status(code, err.Error())
}
