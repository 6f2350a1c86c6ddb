package stage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/window"
	"trestle/internal/stage/stagetest/sdk"
)

// TestTimerScenarios holds what becomes of elements, state, timers and time, event by event, against what is written down.
//
//	stage [window=OPTIONS] [expiry] [sorted] [tasks=N]   a stage with state and timers; the options of its window as package plantest has
//	                                     them, joined by "+": windows of ten milliseconds with fn=fixed
//	elements                             elements come: KEY TIMESTAMP PROGRAM (see timerFn)
//	watermark AT, clock AT, flush, drain, restore [tasks=N]
//
// All of it holds for keys that stand in front of what is kept of them, and for those of which a digest does.
func TestTimerScenarios(t *testing.T) {
	t.Run("short keys", func(t *testing.T) { timerScenarios(t, 0) })
	t.Run("long keys", func(t *testing.T) { timerScenarios(t, -1) })
}

func timerScenarios(t *testing.T, whole int) {
	datadriven.Walk(t, "testdata/timers", func(t *testing.T, path string) {
		var r *scriptRig
		fixed := false
		defer func() {
			if r != nil {
				r.close()
			}
		}()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			tasks := 1
			d.MaybeScanArgs(t, "tasks", &tasks)
			if d.Cmd == "stage" {
				if r != nil {
					r.close()
				}
				windows, options := "", ""
				d.MaybeScanArgs(t, "window", &windows)
				for _, flag := range []string{"expiry", "sorted"} {
					if d.HasArg(flag) {
						options += flag + " "
					}
				}
				fixed = strings.Contains(windows, "fixed")
				fn := &timerFn{}
				harness := oneHarness(t, map[string]sdk.Script{"work": fn.script}) // another: it knows stages by their names
				r = newScriptRig(t, t.TempDir(), timerPlan(t, strings.ReplaceAll(windows, "+", " "), options), harness, tasks, whole)
				fn.rig = r
				return ""
			}
			r.t = t
			if d.Cmd == "elements" {
				var records []byte
				for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
					var key, program string
					var at int64
					if _, err := fmt.Sscan(line, &key, &at, &program); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
					records = timerElement(records, fixed, key, at, program)
				}
				r.keyed(records)
				return r.outcome()
			}
			r.event(t, d, tasks)
			return r.outcome()
		})
	})
}

// TestSnapshotOfACancelledJob: a task whose job is cancelled while it writes what it keeps says so.
func TestSnapshotOfACancelledJob(t *testing.T) {
	fn := &timerFn{}
	r := newScriptRig(t, t.TempDir(), timerPlan(t, "", ""), oneHarness(t, map[string]sdk.Script{"work": fn.script}), 1, 0)
	defer r.close()
	fn.rig = r
	ctx, cancel := context.WithCancelCause(t.Context())
	r.wanted = ctx
	r.restore(1) // the same with the context
	r.keyed(timerElement(nil, false, "a", 1, "+one;t.x@9"))
	r.flush()
	over := errors.New("the job was cancelled")
	cancel(over)
	if err := r.tasks[0].Snapshot(context.Background(), 2, t.TempDir()); !errors.Is(err, over) {
		t.Errorf("a snapshot: %v", err)
	}
}

// event has an event happen that is none of a certain stage's.
func (r *scriptRig) event(t *testing.T, d *datadriven.TestData, tasks int) {
	t.Helper()
	at := coder.MaxTimestamp
	if len(d.CmdArgs) > 0 && d.CmdArgs[0].Key != "end" && d.CmdArgs[0].Key != "tasks" {
		if _, err := fmt.Sscan(d.CmdArgs[0].Key, &at); err != nil {
			t.Fatal(err)
		}
	}
	switch d.Cmd {
	case "watermark":
		r.watermark(at)
	case "clock":
		r.clock(at)
	case "flush":
		r.flush()
	case "drain":
		r.drain()
	case "restore":
		r.restore(tasks)
	default:
		t.Fatalf("no event %q", d.Cmd)
	}
}

// timerElement appends an element, in the global window or one of ten milliseconds.
func timerElement(dst []byte, fixed bool, key string, at int64, program string) []byte {
	var w []byte
	if fixed {
		w = window.AppendInterval(nil, tenOf(at))
	}
	dst = coder.AppendHeader(dst, at, w, coder.NoFiring)
	return sdk.String(sdk.String(dst, key), program)
}

func tenOf(at int64) window.Interval {
	start := at - (at%10+10)%10
	return window.Interval{Start: start, End: start + 10}
}
