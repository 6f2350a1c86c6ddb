package stagetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/stage/stagetest/sdk"
)

var mergingCases = []testCase{
	{"windows that only an SDK can merge are merged by it", mergedByTheSDK},
	{"windows are merged again when the harness dies", mergedAgain},
	{directly + "a window function that fails is the task's failure", mergingFails},
}

// mergeAll is a window function that merges all windows of a key into one.
func mergeAll(b *sdk.Bundle) error {
	return b.Each(func(e sdk.Element) error {
		// KV<nonce, Iterable<window>>, the nonce with its length.
		nonce, windows := e.Value[:1+e.Value[0]], e.Value[1+e.Value[0]:]
		var all window.Interval
		for i, rest := 0, windows[4:]; len(rest) > 0; i++ {
			w, n, err := window.DecodeInterval(rest)
			if err != nil {
				return fmt.Errorf("window to be merged: %w", err)
			}
			if i == 0 {
				all = w
			}
			all.Start, all.End = min(all.Start, w.Start), max(all.End, w.End)
			rest = rest[n:]
		}
		// KV<nonce, KV<Iterable<unmerged window>, Iterable<KV<merged window, Iterable<window>>>>>
		out := coder.AppendHeader(nil, e.Timestamp, nil, coder.NoFiring)
		out = binary.BigEndian.AppendUint32(append(out, nonce...), 0)
		out = binary.BigEndian.AppendUint32(out, 1)
		return b.Write("merged", append(window.AppendInterval(out, all), windows...))
	})
}

func mergeCase(t *testing.T, open Open, merge sdk.Script) (*rig, *collector) {
	var c collector
	r := start(t, open, setup{pipeline: grouped("custom"), script: c.script, merge: merge, attempts: 2})
	var all []byte
	all = windowedRecord(all, 3, interval(0, 10), "a", "x")
	all = windowedRecord(all, 70, interval(70, 80), "a", "y")
	all = windowedRecord(all, 1, interval(0, 10), "a", "z")
	all = windowedRecord(all, 20, interval(20, 30), "b", "x")
	r.group(all)
	return r, &c
}

func mergedByTheSDK(t *testing.T, open Open) {
	r, c := mergeCase(t, open, mergeAll)
	r.finish()
	c.check(t, "a [x y z] until 80 at 1", "b [x] until 30 at 20")
}

func mergedAgain(t *testing.T, open Open) {
	var died atomic.Bool
	r, c := mergeCase(t, open, func(b *sdk.Bundle) error {
		if !died.Swap(true) {
			return b.Vanish()
		}
		return mergeAll(b)
	})
	r.finish()
	c.check(t, "a [x y z] until 80 at 1", "b [x] until 30 at 20")
}

func mergingFails(t *testing.T, open Open) {
	r, _ := mergeCase(t, open, func(*sdk.Bundle) error { return errors.New("these windows do not merge") })
	if err := r.ends(""); err == nil || !strings.Contains(err.Error(), "these windows do not merge") || !strings.Contains(err.Error(), r.stage.Name) {
		t.Errorf("got %v, want what the window function said, and the stage", err)
	}
}
