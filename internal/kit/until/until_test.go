package until

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReader(t *testing.T) {
	over := errors.New("it is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := Reader(ctx, iotest.OneByteReader(strings.NewReader("abc")))
	if n, err := r.Read(make([]byte, 3)); n != 1 || err != nil {
		t.Errorf("before the end: %d, %v", n, err)
	}
	cancel(over)
	if b, err := io.ReadAll(r); len(b) != 0 || !errors.Is(err, over) {
		t.Errorf("after it: %q, %v", b, err)
	}
}
