package streaming

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/metric"
	"trestle/internal/plan"
	"trestle/internal/shuffle"
	"trestle/internal/stage"
)

const (
	// bundleTime is how long a bundle stays open while input keeps coming: what it put out is held back until it has
	// ended, and its fixed cost is about a millisecond.
	bundleTime = 20 * time.Millisecond
	// clockTime is how far processing time runs on before a task that is busy is told.
	clockTime = time.Millisecond
	// checkpointTime is how long a splittable DoFn is left to itself before what is left is put off, if it has put something
	// out: that gets on then, and its watermark. One that has put nothing out may be on its way to its first element, and
	// gets quietTime: KafkaIO connects, and then waits for records for 2 s at a time, without a claim.
	checkpointTime = 100 * time.Millisecond
	quietTime      = 5 * time.Second
)

// task is a task of a running job, and what it is connected to. Its goroutine is the only one that calls the task.
type task struct {
	job   *Job
	stage *stageRun
	index int
	task  stage.StreamingTask
	inbox *inbox

	// What the task receives: by slot, its input and what its sender has said; by input, what the task was told.
	slots []slot
	told  []int64

	owed    int       // of the activity: events that were taken, and whose consequences were not all passed on
	dirty   bool      // something happened since the last Flush
	opened  time.Time // when the first thing since the last Flush happened
	clocked time.Time // what Clock was told last

	// Of a snapshot that is being taken: the slots by which its barrier has come, and what came by them after it.
	passed map[int]bool
	aside  *shuffle.Spool

	// sharing is nil unless the tasks of the stage can give work to each other; the task is the member of it.
	sharing *sharing
	member  *member
	taker   stage.Taker // the task

	began atomic.Int64 // when the call under way began, in nanoseconds; 0 when none is

	mu      sync.Mutex // outputs come from any goroutine of the task
	wake    time.Time  // zero when there is none
	targets [][]target // by exchange
	turn    []int      // by exchange, the target of the next block of a rebalance
	attempt stage.Attempt
	sent    map[*inbox]bool // who has blocks of the attempt
	metrics metric.Set      // of all its bundles that are in effect, also before the snapshot that the job goes on from
	buf     []byte
}

// slot is a sender, as its receiver knows it.
type slot struct {
	input  int
	millis int64
}

// target is a receiver, as its sender knows it.
type target struct {
	task *task
	slot int
}

// join makes t a sender of the other task's input.
func (t *task) join(exchange int, to *task, input int) {
	t.targets[exchange] = append(t.targets[exchange], target{to, to.slot(input)})
}

// slot makes room for another sender of an input.
func (t *task) slot(input int) int {
	t.slots = append(t.slots, slot{input, coder.MinTimestamp})
	return len(t.slots) - 1
}

// main drives the task until the job ends.
func (t *task) main(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	for {
		came, err := t.due(ctx)
		if err != nil {
			return err
		}
		took, err := t.takeGiven(ctx)
		if err != nil {
			return err
		}
		came = came || took
		e, ok, err := t.next(ctx)
		if err != nil {
			return t.errorf("inbox", err)
		}
		if ok {
			if err := t.handle(ctx, e); err != nil {
				return err
			}
		}
		if t.dirty && (!ok || t.job.cfg.Now().Sub(t.opened) >= bundleTime) {
			if err := t.flush(ctx); err != nil {
				return err
			}
			continue // things may have become due
		}
		if ok || came {
			continue
		}
		t.job.activity.add(-t.owed)
		t.owed = 0
		if over, err := t.rest(ctx); over || err != nil {
			return err
		}
	}
}

// checkpoints asks a task that takes long for one bundle to give a part to an idle one, or to put off what is left, until the job ends.
func (t *task) checkpoints(ctx context.Context) error {
	task, ok := t.task.(stage.Checkpointer)
	if !ok {
		return nil
	}
	ticker := time.NewTicker(checkpointTime / 2)
	defer ticker.Stop()
	share := sharer{pause: shareFirst}
	for {
		select {
		case <-ticker.C:
		case <-t.job.ended:
			return nil
		case <-ctx.Done():
			return nil // the job's end has its own reason
		}
		began := t.began.Load()
		if began == 0 {
			continue
		}
		taken := time.Duration(t.job.cfg.Now().UnixNano() - began)
		given, err := share.ask(ctx, t, taken)
		if err != nil {
			return err
		}
		if given || taken < checkpointTime {
			continue
		}
		if err := task.Checkpoint(ctx, taken >= quietTime); err != nil {
			return err
		}
	}
}

// begin tells the task the time, and of the inputs that nobody sends to that nothing will come.
func (t *task) begin(ctx context.Context) error {
	if err := t.tick(ctx); err != nil {
		return err
	}
	for input := len(t.told) - 1; input >= 0; input-- { // side inputs first
		if err := t.watermark(ctx, input); err != nil {
			return err
		}
	}
	return nil
}

// rest waits until something is to be done; over is true when the job has ended.
func (t *task) rest(ctx context.Context) (over bool, err error) {
	var alarm <-chan time.Time
	if wake := t.wakeAt(); !wake.IsZero() {
		if d, ok := t.job.clock.until(wake); ok {
			timer := time.NewTimer(d)
			defer timer.Stop()
			alarm = timer.C
		}
	}
	select {
	case <-t.inbox.came:
	case <-alarm:
	case <-t.job.ended:
		return true, nil
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
	return false, nil
}

// due tells the task the time if what it waits for has come.
func (t *task) due(ctx context.Context) (came bool, err error) {
	wake := t.wakeAt()
	if wake.IsZero() || wake.After(t.job.clock.time()) {
		return false, nil
	}
	if err := t.room(ctx); err != nil {
		return false, err
	}
	t.happened()
	t.clocked = t.job.clock.time()
	return true, t.call(func() error { return t.task.Clock(ctx, t.clocked) })
}

func (t *task) wakeAt() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wake
}

// tick tells the task the time, if it is another than it was told.
func (t *task) tick(ctx context.Context) error {
	now := t.job.clock.time()
	if now.Equal(t.clocked) {
		return nil
	}
	t.clocked = now
	return t.call(func() error { return t.task.Clock(ctx, now) })
}

// call makes a call of the task, and notes that it is under way.
func (t *task) call(f func() error) error {
	t.began.Store(t.job.cfg.Now().UnixNano())
	defer t.began.Store(0)
	return f()
}

// happened notes that there is something to flush.
func (t *task) happened() {
	if !t.dirty {
		t.dirty, t.opened = true, t.job.cfg.Now()
	}
}

func (t *task) flush(ctx context.Context) error {
	t.dirty = false
	return t.call(func() error { return t.task.Flush(ctx) })
}

// handle has an event done.
func (t *task) handle(ctx context.Context, e event) error {
	switch e.kind {
	case block:
		if err := t.room(ctx); err != nil {
			return err
		}
		if now := t.job.clock.time(); now.Sub(t.clocked) >= clockTime {
			if err := t.tick(ctx); err != nil {
				return err
			}
		}
		t.happened()
		return t.call(func() error {
			return t.task.Process(ctx, stage.Delivery{Input: t.slots[e.sender].input, KeyGroup: e.keyGroup}, e.records)
		})
	case watermark:
		// One that was restored may say again what it has said before.
		t.slots[e.sender].millis = max(t.slots[e.sender].millis, e.millis)
		return t.watermark(ctx, t.slots[e.sender].input)
	case tick:
		t.happened()
		return t.tick(ctx)
	case drain:
		t.happened()
		return t.call(func() error { return t.task.Drain(ctx) })
	case readable:
		if err := t.room(ctx); err != nil {
			return err
		}
		t.happened()
		return t.call(func() error { return t.task.Readable(ctx, uint64(e.millis)) })
	case barrier:
		return t.barrier(ctx, e)
	case committed:
		return t.call(func() error { return t.task.Committed(ctx, uint64(e.millis)) })
	}
	return t.errorf("inbox", fmt.Errorf("an event of kind %d", e.kind))
}

// watermark tells the task how far an input is, if it is further than it was told.
func (t *task) watermark(ctx context.Context, input int) error {
	least := coder.MaxTimestamp
	for _, s := range t.slots {
		if s.input == input {
			least = min(least, s.millis)
		}
	}
	if least == t.told[input] {
		return nil
	}
	if err := t.room(ctx); err != nil {
		return err
	}
	t.told[input] = least
	t.happened()
	if err := t.call(func() error { return t.task.Watermark(ctx, input, least) }); err != nil {
		return err
	}
	if input == stage.MainInput || t.index != 0 {
		return nil
	}
	// The side inputs of all tasks of the stage are one, and filled by this task: the others go by its word.
	for _, other := range t.stage.tasks[1:] {
		e := event{kind: watermark, sender: input - 1, millis: least}
		if _, err := other.inbox.put(ctx, 0, e, nil); err != nil {
			return t.errorf("side input", err)
		}
	}
	return nil
}

// room waits until nobody that the task sends to is full.
func (t *task) room(ctx context.Context) error {
	for _, targets := range t.targets {
		for _, to := range targets {
			full := to.task.inbox.full()
			if full == nil {
				continue
			}
			select {
			case <-full:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

func (t *task) errorf(what string, err error) error {
	return fmt.Errorf("stage %q, task %d: %s: %w", t.stage.plan.Name, t.index, what, err)
}

// Emit is a task's output: see stage.Output. It does not wait: room has been asked for before.
func (t *task) Emit(ctx context.Context, exchange, keyGroup int, records []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	targets := t.targets[exchange]
	to := targets[0]
	switch t.job.cfg.Plan.Exchanges[exchange].Kind {
	case plan.Keyed:
		to = targets[keyGroup*len(targets)/t.job.cfg.KeyGroups]
	case plan.Rebalance:
		to = targets[t.turn[exchange]%len(targets)]
		t.turn[exchange]++
	}
	if t.attempt == 0 {
		t.attempt = stage.Attempt(t.job.attempts.Add(1))
		t.sent = map[*inbox]bool{}
	}
	t.sent[to.task.inbox] = true
	var err error
	t.buf, err = to.task.inbox.put(ctx, t.attempt, event{kind: block, sender: to.slot, keyGroup: keyGroup, records: records}, t.buf)
	return err
}

// Settle ends the attempt at each receiver.
func (t *task) Settle(_ context.Context, keep bool) error {
	t.mu.Lock()
	attempt, sent := t.attempt, t.sent
	t.attempt, t.sent = 0, nil
	t.mu.Unlock()
	for in := range sent {
		if err := in.settle(attempt, keep); err != nil {
			return err
		}
	}
	return nil
}

// Watermark passes the task's watermark on to all that it sends to; if the stage's tasks share work, the stage's.
func (t *task) Watermark(ctx context.Context, millis int64) error {
	if t.sharing != nil {
		return t.sharing.watermark(ctx, t.member, millis)
	}
	return t.tellWatermark(ctx, millis)
}

func (t *task) tellWatermark(ctx context.Context, millis int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, targets := range t.targets {
		for _, to := range targets {
			var err error
			t.buf, err = to.task.inbox.put(ctx, 0, event{kind: watermark, sender: to.slot, millis: millis}, t.buf)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Readable tells the stage's other tasks what has become readable of the side inputs that they share, by the way of the first
// side input's watermark (see connect).
func (t *task) Readable(ctx context.Context, version uint64) error {
	for _, other := range t.stage.tasks[1:] {
		e := event{kind: readable, sender: 0, millis: int64(version)}
		if _, err := other.inbox.put(ctx, 0, e, nil); err != nil {
			return t.errorf("side inputs", err)
		}
	}
	return nil
}

// WakeAt notes when the task wants to be told the time.
func (t *task) WakeAt(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wake = at
}

// Quiet says that nothing more will come of this task.
func (t *task) Quiet() {
	if t.sharing != nil {
		t.sharing.silence(t.member)
		return
	}
	t.job.quiet()
}

// Message is a task's message to the job's log.
func (t *task) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	t.job.cfg.Message(importance, text)
}

// Metrics is what an attempt at one of the task's bundles measured. The job has it first: no more is committed than was attempted.
func (t *task) Metrics(infos []*pipepb.MonitoringInfo, counts bool) {
	t.job.cfg.Metrics(infos, counts)
	if !counts {
		return
	}
	t.mu.Lock()
	err := t.metrics.Add(infos)
	t.mu.Unlock()
	if err != nil {
		t.job.cfg.Log.Debug("metrics of a bundle, for snapshots", "error", err) // the job tells
	}
}
