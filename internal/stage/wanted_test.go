package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/store/kv"
)

// TestATaskOfACancelledJobWritesNoMore: however much there is to write, a call ends with why nobody wants it.
func TestATaskOfACancelledJobWritesNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		made, out, done := openPanes(t, "fn=fixed", 0)
		defer done()
		ctx, cancel := context.WithCancelCause(t.Context())
		spec := made.spec
		spec.wanted, spec.State.Directory = ctx, filepath.Join(spec.State.Directory, "another")
		spec.State.Cache = kv.NewCache(64 << 20) // what comes stays in memory
		defer spec.State.Cache.Close()
		in, err := newPanes(spec, out)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := in.close(); err != nil {
				t.Error(err)
			}
		}()
		told := coder.MinTimestamp
		in.output = &told
		var records [][]byte
		for i := range rapid.IntRange(1, 40).Draw(t, "keys") {
			record := coder.AppendHeader(nil, 0, window.AppendInterval(nil, window.Interval{End: 10}), coder.NoFiring)
			record = appendPart(record, fmt.Append(nil, i))
			records = append(records, appendPart(record, bytes.Repeat([]byte("v"), 40<<10)))
		}
		deliver(t, in, records)
		over := errors.New("the job is over")
		cancel(over)
		if err := in.snapshot(filepath.Join(made.spec.State.Directory, "snapshot")); !errors.Is(err, over) {
			t.Errorf("a snapshot: %v", err)
		}
		if err := in.advance(ctx, times{input: 100}); !errors.Is(err, over) {
			t.Errorf("windows that are due: %v", err)
		}
	})
}
