// Package client is the adapter's side of the task contract on a socket, in Go: tests drive workers with it as an engine's
// adapter does. What a task puts out has succeeded when it arrives, and what it measured comes whole, so that the
// [stage.Output] that it is given sees Settle after each block, and each metric once, before Quiet.
package client

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/job/submission"
	"trestle/internal/kit/credit"
	"trestle/internal/stage"
	"trestle/internal/worker/wire"
)

// windowBytes is how much a task may emit before it was passed on.
const windowBytes = 1 << 20

// Failed is a task's failure as the worker tells it.
type Failed struct {
	// Final says that another start of the task will not mend it.
	Final bool
	Text  string
}

func (f *Failed) Error() string { return f.Text }

// Address is where a worker listens, and its token, as it tells them on its standard output.
type Address struct {
	Port  int
	Token []byte
}

// ParseAddress reads the line that a worker writes.
func ParseAddress(line string) (Address, error) {
	var version int
	var token string
	var a Address
	if _, err := fmt.Sscanf(line, "trestle-worker %d %d %s", &version, &a.Port, &token); err != nil || version != wire.Version {
		return a, fmt.Errorf("not where a worker of version %d listens: %q", wire.Version, line)
	}
	var err error
	a.Token, err = hex.DecodeString(token)
	return a, err
}

// Dial connects to a worker and says hello.
func Dial(ctx context.Context, a Address) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(a.Port)))
	if err != nil {
		return nil, err
	}
	err = wire.NewWriter(conn).Write(wire.Frame{Type: wire.Hello, Kind: wire.Version, Data: a.Token})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Task is a task in a worker. It is a stage.Task without attempts: Settle is refused, and so are blocks of attempts.
type Task struct {
	conn   net.Conn
	writer *wire.Writer
	credit *credit.Bytes // of blocks
	out    stage.Output
	ctx    context.Context // ends when the worker says no more
	cancel context.CancelCauseFunc
	read   sync.WaitGroup
	emits  context.Context // ends with Close
	close  context.CancelFunc
	// sending is held while a frame is sent, so that nothing follows a close.
	sending sync.Mutex

	// What reports have told; receive's.
	metrics []*pipepb.MonitoringInfo // the latest, whole
	told    int                      // the number of the latest message that was passed on

	mu    sync.Mutex // one event at a time
	ended chan int   // inputs
	once  sync.Once  // of Close
}

// Open opens a task over a connection that has said hello, and takes it over.
func Open(ctx context.Context, conn net.Conn, stageNumber, index, parallelism, attempt int, out stage.Output) (*Task, error) {
	t := &Task{conn: conn, writer: wire.NewWriter(conn), out: out, ended: make(chan int, 1)}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	t.emits, t.close = context.WithCancel(t.ctx)
	open := wire.Frame{Type: wire.Open, Wide: windowBytes}
	for i, n := range []int{stageNumber, index, parallelism, attempt} {
		open.Numbers[i] = uint32(n)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	reader := wire.NewReader(conn)
	err := t.writer.Write(open)
	var first *wire.Frame
	if err == nil {
		first, err = reader.Read()
	}
	for err == nil && first.Type == wire.Report { // of a task that cannot be opened
		first, err = reader.Read()
	}
	switch {
	case err != nil:
	case first.Type == wire.Opened:
		t.credit = credit.New(first.Wide)
		t.read.Go(func() { t.cancel(t.receive(reader)) })
		return t, nil
	case first.Type == wire.Failed:
		err = failed(first)
	default:
		err = fmt.Errorf("the worker answered an open with a %s", first.Type)
	}
	return nil, errors.Join(err, conn.Close())
}

func failed(f *wire.Frame) error { return &Failed{Final: f.Kind == 1, Text: string(f.Data)} }

var errWorkerClosed = errors.New("the worker has closed the task")

// receive passes on what the worker says, until it says no more.
func (t *Task) receive(reader *wire.Reader) error {
	var why error
	for {
		f, err := reader.Read()
		if err != nil {
			return errors.Join(why, fmt.Errorf("the worker's connection: %w", err))
		}
		switch f.Type {
		case wire.Emit:
			if err = t.emitted(f); t.emits.Err() != nil {
				err = nil // the task is being closed
			}
		case wire.Ended:
			if f.Numbers[0] == stage.MainInput {
				if len(t.metrics) > 0 {
					t.out.Metrics(t.metrics, true)
				}
				t.out.Quiet()
			}
			t.ended <- int(f.Numbers[0])
		case wire.Report:
			err = t.reported(f.Data)
		case wire.WorkerCredit:
			t.credit.Give(f.Wide)
		case wire.Failed:
			why = failed(f)
			t.cancel(why)
		case wire.Closed:
			return errors.Join(why, errWorkerClosed)
		default:
			err = fmt.Errorf("the worker sent a %s", f.Type)
		}
		if err != nil {
			return errors.Join(why, err)
		}
	}
}

func (t *Task) emitted(f *wire.Frame) error {
	err := t.out.Emit(t.emits, int(f.Numbers[0]), int(f.Numbers[1]), f.Data)
	if err == nil {
		err = t.out.Settle(t.emits, true)
	}
	charge := f.Charge()
	f.Release()
	return errors.Join(err, t.send(wire.Frame{Type: wire.AdapterCredit, Wide: uint64(charge)}))
}

// send sends a frame, unless the task is being closed: then the worker reads no more, and what it has not read when it closes the
// connection would cost what it has said last.
func (t *Task) send(f wire.Frame) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	if t.emits.Err() != nil {
		return context.Cause(t.emits)
	}
	return t.writer.Write(f)
}

// reported keeps a report's metrics, which replace those of the one before, and passes on those of its messages that are new.
func (t *Task) reported(b []byte) error {
	var r submission.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("the worker's report: %w", err)
	}
	var metrics jobpb.MetricResults
	if err := proto.Unmarshal(r.Metrics, &metrics); err != nil {
		return fmt.Errorf("the worker's report: %w", err)
	}
	for _, m := range r.Messages {
		if m.N <= t.told {
			continue
		}
		t.told = m.N
		t.out.Message(jobpb.JobMessage_MessageImportance(jobpb.JobMessage_MessageImportance_value[m.Importance]), m.Text)
	}
	t.metrics = metrics.GetCommitted()
	return nil
}

// event runs one at a time; it ends when ctx does, or the worker says no more.
func (t *Task) event(ctx context.Context, f func(context.Context) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })()
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	return f(ctx)
}

// Process brings a block, and waits until the task has taken it: an adapter would not.
func (t *Task) Process(ctx context.Context, from stage.Delivery, block []byte) error {
	if from.Attempt != 0 {
		return errAttempts
	}
	return t.event(ctx, func(ctx context.Context) error {
		f := wire.Frame{Type: wire.Process, Numbers: [4]uint32{uint32(from.Input), uint32(from.KeyGroup)}, Data: block}
		if err := t.credit.Take(ctx, f.Charge()); err != nil {
			return err
		}
		if err := t.send(f); err != nil {
			return err
		}
		return t.credit.Idle(ctx)
	})
}

var errAttempts = errors.New("an engine on a socket has no attempts to settle: it restarts whole tasks")

// Settle is refused.
func (t *Task) Settle(context.Context, stage.Attempt, bool) error { return errAttempts }

// End ends an input, and waits until the task's End has returned.
func (t *Task) End(ctx context.Context, input int) error {
	return t.event(ctx, func(ctx context.Context) error {
		if err := t.send(wire.Frame{Type: wire.End, Numbers: [4]uint32{uint32(input)}}); err != nil {
			return err
		}
		select {
		case <-t.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// Close closes the task and waits until the worker has; an event under way ends with it. Of several calls all wait, and
// one tells what went wrong.
func (t *Task) Close() (err error) {
	t.once.Do(func() { err = t.shut() })
	return err
}

func (t *Task) shut() error {
	t.sending.Lock()
	t.close()
	_ = t.writer.Write(wire.Frame{Type: wire.Close}) // a worker that is gone has closed the task
	t.sending.Unlock()
	t.read.Wait()
	t.mu.Lock() // the event has gone
	defer t.mu.Unlock()
	err := t.conn.Close()
	if !errors.Is(context.Cause(t.ctx), errWorkerClosed) {
		var f *Failed
		if !errors.As(context.Cause(t.ctx), &f) {
			return errors.Join(context.Cause(t.ctx), err)
		}
	}
	return err
}
