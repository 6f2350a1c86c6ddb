package stagetest

import (
	"strings"
	"testing"

	"trestle/internal/beam/coder"
	"trestle/internal/stage"
)

// stableStream is a stage of a streaming plan whose first transform wants stable input.
const stableStream = `
env other
impulse start() > I
pardo source(I) > in:string@global~ env=other
pardo work(in) > out:string@global stable
pardo next(out) > end env=other
`

var stableCases = []testCase{
	{"stable input is processed when a snapshot that has it is safe, and holds the watermark until then", stableInput},
	{"who begins with a snapshot processes the stable input that it has, for tasks of any number", snapshotOfStable},
	{"stable input with keys goes to the tasks that own them", snapshotOfStableKeys},
}

// committed tells each task that a snapshot is safe.
func (r *rig) committed(snapshot uint64) {
	r.t.Helper()
	for i := range r.tasks {
		if err := r.streaming(i).Committed(r.ctx, snapshot); err != nil {
			r.t.Fatal(err)
		}
	}
	r.flush()
}

func stableInput(t *testing.T, open Open) {
	r := start(t, open, setup{pipeline: stableStream, script: identity})
	r.clock(0)
	r.watermark(5)
	r.told(5)
	r.process(stage.MainInput, records("a b"))
	r.watermark(7)
	r.flush()
	r.told(5)
	r.want("")
	r.snapshots()
	r.process(stage.MainInput, records("c"))
	r.watermark(9)
	r.want("")
	r.committed(1)
	r.told(7) // c has the rest wait
	r.want("a b")
	r.committed(1)
	r.want("a b")
	r.snapshots()
	r.watermark(coder.MaxTimestamp)
	r.quiet(false)
	r.committed(1)
	r.told(coder.MaxTimestamp)
	r.want("a b c")
	r.quiet(true)
}

func snapshotOfStable(t *testing.T, open Open) {
	first := start(t, open, setup{pipeline: stableStream, parallelism: 3, script: identity})
	first.clock(0)
	for _, v := range []string{"a", "b", "c", "d"} {
		first.process(stage.MainInput, records(v))
	}
	for i := range first.tasks {
		if err := first.tasks[i].Process(first.ctx, stage.Delivery{Input: stage.MainInput}, records("x y")); err != nil {
			t.Fatal(err)
		}
	}
	restore := first.snapshots()
	first.process(stage.MainInput, records("lost"))
	first.want("")
	first.end()

	second := start(t, open, setup{pipeline: stableStream, parallelism: 2, script: identity, restore: restore})
	second.watermark(6)
	second.want("")
	second.clock(1)
	second.flush()
	second.told(6)
	second.want("a b c d x x x y y y")
	second.process(stage.MainInput, records("e"))
	second.flush()
	second.want("a b c d x x x y y y")
	restore = second.snapshots()
	second.end()

	third := start(t, open, setup{pipeline: stableStream, script: identity, restore: restore})
	third.clock(2)
	third.watermark(coder.MaxTimestamp)
	third.want("e")
	third.quiet(true)
}

func snapshotOfStableKeys(t *testing.T, open Open) {
	stream := keptStream("global", "state stable")
	first := start(t, open, setup{pipeline: stream, parallelism: 2, script: remembering})
	first.clock(0)
	first.group(pairs("a=1 b=1 c=1 d=1"))
	first.snapshots()
	first.committed(1)
	first.want("a:1 b:1 c:1 d:1")
	first.group(pairs("a=2 b=2 c=2 d=2"))
	restore := first.snapshots()
	first.end()

	second := start(t, open, setup{pipeline: stream, parallelism: 3, script: remembering, restore: restore})
	second.clock(1)
	second.flush()
	second.want("a:1,2 b:1,2 c:1,2 d:1,2")
	second.watermark(coder.MaxTimestamp)
	second.quiet(true)
	second.end()

	// What is grouped first is as stable as what is grouped.
	stream = strings.Replace(panedBy("fixed"), "pardo work(grouped) > out:string@global", "pardo work(grouped) > out:string@global stable", 1)
	w := interval(0, 10)
	first = start(t, open, setup{pipeline: stream, parallelism: 2, script: panesOf})
	first.clock(0)
	first.group(windowedRecord(windowedRecord(nil, 1, w, "a", "1"), 2, w, "b", "1"))
	first.watermark(20)
	first.want("")
	restore = first.snapshots()
	first.committed(1)
	first.want("a[1]1.0 b[1]1.0")
	first.end()
	second = start(t, open, setup{pipeline: stream, script: panesOf, restore: restore})
	second.clock(1)
	second.watermark(20)
	second.flush()
	second.want("a[1]1.0 b[1]1.0")
}
