package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"trestle/internal/beam/failure"
	"trestle/internal/fnapi"
	"trestle/internal/kit/credit"
	"trestle/internal/plan"
	"trestle/internal/stage"
	"trestle/internal/worker/wire"
)

const (
	// windowBytes is how many bytes of blocks an adapter may have under way to a task: enough to keep it busy while a round
	// trip lasts, little enough for each task of a host to have it.
	windowBytes = 4 << 20
	// creditBytes is how much credit is gathered before it is given back, unless nothing waits.
	creditBytes = 256 << 10
	// reportEvery is how often a task's report goes to the adapter, if it has changed.
	reportEvery = time.Second
	// closeTimeout is how long a task may take to close before the worker gives up on itself: a harness that reads
	// nothing any more holds a send up for ever, since gRPC's have no deadline.
	closeTimeout = 10 * time.Second
)

// The kinds of failures: see docs/protocols/socket.md.
const (
	mendable byte = 0
	final    byte = 1
)

var (
	errLeft   = errors.New("the engine has closed the task")
	errBroken = errors.New("the engine's connection to the task is gone")
	errUnruly = errors.New("the engine's adapter does not keep to the protocol")
)

// taskConn is a connection that drives a task.
type taskConn struct {
	worker *Worker
	writer *wire.Writer
	ctx    context.Context // ends when the adapter has closed the task or is gone
	cancel context.CancelCauseFunc

	stage  *plan.Stage
	index  int // the task's
	slot   int // which of the worker's harnesses is its
	shared *openStage
	task   stage.Task
	report *report
	// reporting is held while a report is on its way to the connection: what comes after a report stays behind it.
	reporting sync.Mutex
	credit    *credit.Bytes // of emits

	mu       sync.Mutex
	queue    []*wire.Frame // events that wait for the task
	underWay int64         // what the adapter has been charged and not given back
	ends     int           // that have arrived
	arrived  chan struct{} // has an element when the queue may have

	ended map[int]bool // inputs
}

// serveTask drives a task until the adapter closes it, or is gone.
func (w *Worker) serveTask(ctx context.Context, conn net.Conn, reader *wire.Reader, open *wire.Frame) error {
	t := &taskConn{
		worker: w, writer: wire.NewWriter(conn), credit: credit.New(open.Wide), arrived: make(chan struct{}, 1), ended: map[int]bool{},
		report: &report{attempt: int(open.Numbers[3]), log: w.cfg.Log, memory: w.memory},
	}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	defer t.cancel(nil)
	if err := t.open(open); err != nil {
		if err := t.fail(err); err != nil {
			return err
		}
		return refused(reader, t.writer)
	}
	w.enter(t)
	defer w.leave(t)
	reading := make(chan error, 1)
	go func() {
		err := t.read(reader)
		t.cancel(err)
		reading <- err
	}()
	reporting := make(chan struct{})
	go func() {
		defer close(reporting)
		t.reportNow(reportEvery)
	}()
	err := t.writer.Write(wire.Frame{Type: wire.Opened, Wide: windowBytes})
	if err == nil {
		err = t.run()
	}
	told := false
	if err != nil && t.ctx.Err() == nil {
		// Others may wait for a side input that this one was to bring.
		err, told = errors.Join(t.fail(err), t.shared.withdraw(t)), true
	}
	if err != nil {
		t.cancel(errBroken) // nobody is there to be told
	}
	<-t.ctx.Done()
	<-reporting
	err = nil
	if unruly := context.Cause(t.ctx); errors.Is(unruly, errUnruly) && !told {
		err = t.fail(unruly)
	}
	err = errors.Join(err, t.close())
	left := <-reading
	switch {
	case errors.Is(left, errLeft):
		return errors.Join(err, t.writer.Write(wire.Frame{Type: wire.Closed}))
	case errors.Is(left, errUnruly):
		return errors.Join(left, err, dismissed(conn, reader, t.writer))
	default:
		return errors.Join(left, err)
	}
}

// open makes the task that a frame asks for.
func (t *taskConn) open(f *wire.Frame) (err error) {
	w := t.worker
	number, parallelism := int(f.Numbers[0]), int(f.Numbers[2])
	t.index = int(f.Numbers[1])
	if number >= len(w.plan.Stages) || t.index >= parallelism || parallelism > w.job.KeyGroups {
		return fmt.Errorf("the engine asks for task %d of %d of stage %d: the job has %d stages and %d key groups",
			t.index, parallelism, number, len(w.plan.Stages), w.job.KeyGroups)
	}
	t.stage = w.plan.Stages[number]
	if t.shared, t.slot, err = w.stages.enter(number); err != nil {
		return err
	}
	out := &outbox{writer: t.writer, credit: t.credit, report: t.report, plan: w.plan}
	spec := stage.Spec{
		Plan: w.plan, Stage: t.stage, Index: t.index, Parallelism: parallelism, KeyGroups: w.job.KeyGroups,
		Store: w.store, Views: t.shared.views, Out: out,
		State: stage.State{
			Directory: filepath.Join(w.cfg.Scratch, "state", fmt.Sprintf("%d-%d-%d", number, t.index, f.Numbers[3])), Cache: w.state,
		},
		BundleBytes: w.job.BundleBytes, Attempts: w.job.Attempts, Log: w.cfg.Log,
	}
	if t.stage.Environment != "" {
		spec.Harness = w.find(t.stage.Environment, t.slot)
	}
	if g := t.stage.Input.Group; g != nil && g.Merging != nil {
		spec.MergeHarness = w.find(g.Merging.Environment, t.slot)
	}
	if t.task, err = stage.Open(spec); err != nil {
		return errors.Join(err, w.stages.leave(number, t.slot))
	}
	return nil
}

// read takes the adapter's frames until it closes the task (errLeft), something is wrong with them (errUnruly), or none can come
// (errBroken).
func (t *taskConn) read(reader *wire.Reader) error {
	for {
		f, err := reader.Read()
		switch {
		case errors.Is(err, wire.ErrMalformed):
			return fmt.Errorf("%w: %w", errUnruly, err)
		case err != nil:
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		switch f.Type {
		case wire.Close:
			return errLeft
		case wire.AdapterCredit:
			t.credit.Give(f.Wide)
		case wire.Process, wire.End:
			if err := t.enqueue(f); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: it sent a %s to an open task", errUnruly, f.Type)
		}
	}
}

func (t *taskConn) enqueue(f *wire.Frame) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.Type == wire.Process {
		if t.underWay > 0 && t.underWay+f.Charge() > windowBytes {
			return fmt.Errorf("%w: it sent more than its credit of %d bytes", errUnruly, windowBytes)
		}
		t.underWay += f.Charge()
	}
	if f.Type == wire.End { // which costs no credit
		if t.ends++; t.ends > 1+len(t.stage.SideInputs) {
			return fmt.Errorf("%w: it sent %d ends of %d inputs", errUnruly, t.ends, 1+len(t.stage.SideInputs))
		}
	}
	t.queue = append(t.queue, f)
	select {
	case t.arrived <- struct{}{}:
	default:
	}
	return nil
}

// next is the next event, and whether more wait behind it; nil when the connection is over.
func (t *taskConn) next() (f *wire.Frame, more bool) {
	for {
		t.mu.Lock()
		if len(t.queue) > 0 {
			f = t.queue[0]
			t.queue[0] = nil
			t.queue = t.queue[1:]
			more = len(t.queue) > 0
			t.mu.Unlock()
			return f, more
		}
		t.mu.Unlock()
		select {
		case <-t.arrived:
		case <-t.ctx.Done():
			return nil, false
		}
	}
}

// run hands the task its events, until one fails or the connection is over.
func (t *taskConn) run() error {
	owed := int64(0)
	for {
		f, more := t.next()
		if f == nil {
			return nil
		}
		input := int(f.Numbers[0])
		if input > len(t.stage.SideInputs) {
			return fmt.Errorf("stage %q, task %d: the engine brings input %d, of %d", t.stage.Name, t.index, input, len(t.stage.SideInputs)+1)
		}
		if t.ended[input] {
			return fmt.Errorf("stage %q, task %d: the engine brings input %d after its end", t.stage.Name, t.index, input)
		}
		if f.Type == wire.End {
			t.ended[input] = true
			if err := t.end(input); err != nil {
				return err
			}
			continue
		}
		err := t.process(input, int(f.Numbers[1]), f.Data)
		owed += f.Charge()
		f.Release()
		if err != nil {
			return err
		}
		if owed >= creditBytes || !more {
			if err := t.giveBack(owed); err != nil {
				return err
			}
			owed = 0
		}
	}
}

// giveBack returns credit for blocks that the task has taken.
func (t *taskConn) giveBack(bytes int64) error {
	t.mu.Lock()
	t.underWay -= bytes
	t.mu.Unlock()
	return t.writer.Write(wire.Frame{Type: wire.WorkerCredit, Wide: uint64(bytes)})
}

func (t *taskConn) process(input, keyGroup int, block []byte) error {
	if keyGroup >= t.worker.job.KeyGroups {
		return fmt.Errorf("stage %q, task %d: the engine brings key group %d, of %d", t.stage.Name, t.index, keyGroup, t.worker.job.KeyGroups)
	}
	if input != stage.MainInput {
		if mine, err := t.shared.bring(t.ctx, t, input-1); !mine || err != nil {
			return err
		}
	}
	return t.task.Process(t.ctx, stage.Delivery{Input: input, KeyGroup: keyGroup}, block)
}

func (t *taskConn) end(input int) error {
	mine := false
	if input != stage.MainInput {
		var err error
		if mine, err = t.shared.bring(t.ctx, t, input-1); err != nil {
			return err
		}
	}
	if err := t.task.End(t.ctx, input); err != nil {
		return err
	}
	if mine {
		t.shared.brought(input - 1)
	}
	if input == stage.MainInput {
		if err := t.sendReport(); err != nil {
			return err
		}
	}
	return t.writer.Write(wire.Frame{Type: wire.Ended, Numbers: [4]uint32{uint32(input)}})
}

// reportNow sends the report now and then, while it changes.
func (t *taskConn) reportNow(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			t.measure(every)
			if err := t.sendReport(); err != nil {
				t.cancel(err)
				return
			}
		case <-t.ctx.Done():
			return
		}
	}
}

// measure asks the harness what the bundle under way has measured, and waits no longer than timeout for its answer.
func (t *taskConn) measure(timeout time.Duration) {
	if m, ok := t.task.(stage.Measurer); ok {
		ctx, cancel := context.WithTimeout(t.ctx, timeout)
		defer cancel()
		m.Measure(ctx)
	}
}

// sendReport sends the report if there is news. When it returns, there is none that was not sent, by whomever.
func (t *taskConn) sendReport() error {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	return t.writeReport()
}

func (t *taskConn) writeReport() error {
	b, err := t.report.encode()
	if b == nil || err != nil {
		return err
	}
	return t.writer.Write(wire.Frame{Type: wire.Report, Data: b})
}

// fail tells the adapter why the task is over, after what the task has said before.
func (t *taskConn) fail(err error) error {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	if err := t.writeReport(); err != nil {
		return err
	}
	t.report.end()
	return t.writer.Write(wire.Frame{Type: wire.Failed, Kind: t.kind(err), Data: []byte(stage.Describe(t.worker.plan, err))})
}

// kind tells whether another start of the task may mend a failure. User code that was tried often enough here is not
// tried again, nor when it says the same as the last time that the engine had started the task.
func (t *taskConn) kind(err error) byte {
	var large *tooLarge
	var lasting *lastingError
	if errors.As(err, &large) || errors.As(err, &lasting) {
		return final
	}
	var user *fnapi.HarnessError
	if !errors.As(err, &user) {
		return mendable
	}
	again := t.worker.saidBefore(t.stage.Index, t.index, failure.Words(failure.Parse(user.Text).Summary))
	if again || !errors.Is(err, errSent) {
		return final
	}
	return mendable
}

// close releases what the task held.
func (t *taskConn) close() error {
	hung := time.AfterFunc(closeTimeout, func() {
		t.worker.end(fmt.Errorf("stage %q, task %d did not close within %v: its harness takes nothing any more", t.stage.Name, t.index, closeTimeout))
	})
	defer hung.Stop()
	err := errors.Join(t.task.Close(), t.shared.withdraw(t), t.worker.stages.leave(t.stage.Index, t.slot))
	if err != nil {
		return fmt.Errorf("close a task: %w", err)
	}
	return nil
}
