package jobapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"trestle/internal/engine"
	"trestle/internal/job"
	"trestle/internal/store/journal"
)

const (
	// journalFile and pipelineFile are a job's two files, in its folder.
	journalFile  = "journal"
	pipelineFile = "pipeline.pb"

	// maxText bounds a message's text: clients take messages of up to 4 MiB and fail on larger ones, and half of a
	// text this long says what the whole would.
	maxText = 1 << 20

	// maxLog bounds a job's event log on disk, in bytes: past it a log takes errors only, and past twice that no more
	// than the last one. It is some millions of messages, more than anyone reads.
	maxLog = 256 << 20

	// metricsEvery is how often metrics are journaled at most. A log that runs for long has them ever more rarely
	// (metricsShare of its age), so that they do not come to fill the disk: only the last ones count.
	metricsEvery = time.Second
	metricsShare = 100
)

// eventLog is a job's event log. Its methods may be called concurrently; none waits for a reader.
type eventLog struct {
	id       string
	dir      string // the job's own
	prepared time.Time
	clock    func() time.Time
	log      *slog.Logger
	options  journal.Options
	quota    int64 // see maxLog

	mu        sync.Mutex
	ended     chan struct{} // closed when the state is terminal; another one when the job is resumed
	life      job.Life
	journal   *journal.Journal // nil when it is not open for writing
	sealed    bool             // it will not be opened again, unless the job is resumed
	forgotten bool             // it is being removed
	lost      int              // records that could not be written
	full      int              // how many times the quota has been passed, and told of
	last      *job.Message     // the last error, where it is left out for the quota
	untold    *job.Message     // the last error, where the disk did not take it
	metrics   *jobpb.MetricResults
	unsaved   bool      // metrics are not in the journal
	saved     time.Time // when metrics were last journaled
}

func (l *eventLog) path() string { return filepath.Join(l.dir, journalFile) }

func (l *eventLog) state() job.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life.State
}

// ending is closed when the job has ended.
func (l *eventLog) ending() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// resumedAfter tells whether the log has more states than so many.
func (l *eventLog) resumedAfter(states int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life.States > states
}

// stateEvent is the current state, as GetState answers.
func (l *eventLog) stateEvent() *jobpb.JobStateEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stateEventLocked()
}

func (l *eventLog) stateEventLocked() *jobpb.JobStateEvent {
	return &jobpb.JobStateEvent{State: l.life.State, Timestamp: timestamppb.New(l.life.Changed)}
}

// unwritten is what the log lacks of a job's end: its state, and the error before it. Nil when the job has not ended.
func (l *eventLog) unwritten() []job.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !job.Terminal(l.life.State) {
		return nil
	}
	var records []job.Record
	if l.untold != nil {
		records = append(records, l.untold)
	}
	return append(records, &job.StateChange{JobStateEvent: l.stateEventLocked()})
}

// info is what GetJobs tells of the job. Its options are shared, and not to be changed.
func (l *eventLog) info() *jobpb.JobInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &jobpb.JobInfo{
		JobId: l.id, JobName: l.life.Info.GetJobName(), PipelineOptions: l.life.Info.GetPipelineOptions(), State: l.life.State,
	}
}

// happen applies an event, and returns the state that it leads to and whether that is another one than before. An
// event that cannot happen in the job's state changes nothing, and the error wraps [job.ErrTransition]. Changes
// to CANCELLING and to terminal states are durable when happen returns; where the disk refuses them, the job changes its
// state none the less.
func (l *eventLog) happen(e job.Event) (st job.State, changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.happenLocked(e)
}

func (l *eventLog) happenLocked(e job.Event) (st job.State, changed bool, err error) {
	before := l.life.State
	next, err := job.Next(before, e)
	if err != nil || next == before {
		return before, false, err
	}
	if e == job.Failed && l.life.Errors == 0 && l.last == nil && l.untold == nil {
		// Clients wait for a reason, and say "unknown error" when none comes.
		l.messageLocked(jobpb.JobMessage_JOB_MESSAGE_ERROR, "The job failed, and the engine gave no reason.")
	}
	if job.Terminal(next) {
		l.saveMetricsLocked()
		if l.last != nil {
			l.addLocked(l.last)
		}
		if l.untold != nil {
			l.addLocked(l.untold)
		}
	}
	event := &jobpb.JobStateEvent{State: next, Timestamp: timestamppb.New(l.clock())}
	var change job.Record = &job.StateChange{JobStateEvent: event}
	if e == job.Resumed {
		change = &job.Again{JobStateEvent: event}
	}
	if err := l.appendLocked(change, durability(next)); err != nil && next == jobpb.JobState_STARTING {
		return before, false, err
	}
	if err := l.life.Apply(change); err != nil {
		return before, false, err
	}
	l.log.Info("job is "+next.String(), "job", l.id)
	switch {
	case job.Terminal(next):
		close(l.ended)
	case job.Terminal(before):
		l.ended = make(chan struct{})
	}
	return next, true, nil
}

// durability is what a state's record waits for. What a client is told must still hold when the machine has stopped: that
// the end of a job was asked for, and how it ended; that it is STARTING, too, but for that Run itself waits. A job that
// is RUNNING is to the next server what one that is STARTING is.
func durability(st job.State) journal.Durability {
	return journal.Durability(st != jobpb.JobState_STARTING && st != jobpb.JobState_RUNNING)
}

// message adds a message, unless the job has ended: a stream ends with the terminal state.
func (l *eventLog) message(importance jobpb.JobMessage_MessageImportance, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if job.Terminal(l.life.State) {
		l.log.Info("a message came after the job's end", "job", l.id, "importance", importance.String(), "text", text)
		return
	}
	l.messageLocked(importance, text)
}

func (l *eventLog) messageLocked(importance jobpb.JobMessage_MessageImportance, text string) {
	m := &job.Message{JobMessage: &jobpb.JobMessage{
		Time:        l.clock().UTC().Format(time.RFC3339Nano),
		Importance:  importance,
		MessageText: bounded(text, maxText),
	}}
	if l.roomLocked(m) {
		l.addLocked(m)
	}
}

// roomLocked tells whether a message is to be written, and says so in the log when it comes to be full.
func (l *eventLog) roomLocked(m *job.Message) bool {
	full := 0
	if l.journal != nil {
		full = min(int(l.journal.Size()/l.quota), 2)
	}
	if full > l.full {
		l.full = full
		note := "This job's log is full: from here on it has errors only."
		if full == 2 {
			note = "This job's log is full: from here on it has nothing but the last error."
		}
		l.addLocked(&job.Message{JobMessage: &jobpb.JobMessage{
			Time: m.GetTime(), Importance: jobpb.JobMessage_JOB_MESSAGE_WARNING, MessageText: note}})
	}
	isError := m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_ERROR
	if full == 2 && isError {
		l.last = m
	}
	return full == 0 || full == 1 && isError
}

// addLocked numbers a message and writes it.
func (l *eventLog) addLocked(m *job.Message) {
	m.MessageId = strconv.Itoa(l.life.Messages + 1)
	isError := m.GetImportance() == jobpb.JobMessage_JOB_MESSAGE_ERROR
	if l.appendLocked(m, journal.Buffered) != nil {
		if isError {
			l.untold = m
		}
		return
	}
	if isError {
		l.untold = nil
	}
	if err := l.life.Apply(m); err != nil {
		l.log.Error("apply a message", "job", l.id, "error", err)
	}
}

// accepted notes the handle by which the engine finds the job again, unless that has been done. It is durable when accepted
// returns; an engine that finds nothing again has no handle, and nothing waits for that to be written. An error has been logged.
func (l *eventLog) accepted(handle string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if handle != "" && handle == l.life.Handle {
		return nil
	}
	r := &job.Accepted{Handle: handle, Time: timestamppb.New(l.clock())}
	if err := l.appendLocked(r, journal.Durability(handle != "")); err != nil {
		return err
	}
	return l.life.Apply(r)
}

// handle is what an engine finds the job by; "" when none is known.
func (l *eventLog) handle() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life.Handle
}

// staged notes which artifacts the job is given. The error wraps [job.ErrTransition] when it is not to run any more.
func (l *eventLog) staged(digests []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life.State != jobpb.JobState_STOPPED {
		return fmt.Errorf("%w: artifacts are staged in state %v", job.ErrTransition, l.life.State)
	}
	if l.sealed {
		return journal.ErrClosed
	}
	r := &job.Staged{SHA256: digests}
	if err := l.appendLocked(r, journal.Buffered); err != nil {
		return err
	}
	return l.life.Apply(r)
}

// setMetrics replaces the metrics. They may also come after the job's end, as long as the engine holds on to it.
func (l *eventLog) setMetrics(m *jobpb.MetricResults) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics, l.unsaved = m, true
	now := l.clock()
	every := max(metricsEvery, now.Sub(l.prepared)/metricsShare)
	if job.Terminal(l.life.State) || now.Sub(l.saved) >= every {
		l.saveMetricsLocked()
	}
}

func (l *eventLog) saveMetricsLocked() {
	if !l.unsaved {
		return
	}
	if l.appendLocked(&job.Metrics{MetricResults: l.metrics}, journal.Buffered) == nil {
		l.unsaved, l.saved = false, l.clock()
	}
}

// lastMetrics are the job's metrics; empty ones when it has none.
func (l *eventLog) lastMetrics(ctx context.Context) (*jobpb.MetricResults, error) {
	l.mu.Lock()
	m, sealed := l.metrics, l.sealed
	l.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m = new(jobpb.MetricResults)
	if !sealed {
		return m, nil
	}
	// The metrics of a job that has ended are kept in memory only where the log did not take them.
	err := l.read(ctx, func(r job.Record) (bool, error) {
		if r, ok := r.(*job.Metrics); ok {
			m = r.MetricResults
		}
		return true, nil
	})
	return m, err
}

// appendLocked writes a record. An error has been logged, but for the many that may follow a first one.
func (l *eventLog) appendLocked(r job.Record, d journal.Durability) error {
	b, err := job.Encode(r)
	if err == nil {
		err = l.openLocked()
	}
	if err == nil {
		err = l.journal.Append(b, d)
	}
	if err != nil {
		if l.lost == 0 || d == journal.Synced {
			l.log.Error("write a job's event log", "job", l.id, "record", fmt.Sprintf("%T", r), "error", err)
		}
		l.lost++
	}
	return err
}

// sync makes durable what has been written.
func (l *eventLog) sync() error {
	l.mu.Lock()
	j := l.journal
	l.mu.Unlock()
	if j == nil {
		return nil // closed, and durable by that
	}
	return j.Sync()
}

// openLocked opens the journal for writing where it is not.
func (l *eventLog) openLocked() error {
	if l.journal != nil {
		return nil
	}
	if l.sealed {
		return fmt.Errorf("write %s: %w", l.path(), journal.ErrClosed)
	}
	j, err := journal.Open(l.path(), l.options, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	l.journal = j
	return nil
}

// seal writes what is to be written and closes the journal: streams come to their end.
func (l *eventLog) seal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return nil
	}
	l.saveMetricsLocked()
	l.sealed = true
	if !l.unsaved {
		l.metrics = nil
	}
	if l.lost > 0 {
		l.log.Error("a job's event log is not whole", "job", l.id, "file", l.path(), "lost records", l.lost)
	}
	if l.journal == nil {
		return nil
	}
	j := l.journal
	l.journal = nil
	return j.Close()
}

// reader reads the log from its first record on and, unless the log is sealed, follows it.
func (l *eventLog) reader() (*journal.Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sealed {
		return journal.OpenReader(l.path())
	}
	if err := l.openLocked(); err != nil {
		return nil, err
	}
	return l.journal.Reader()
}

// read calls each with every record from the first one on, waiting for more until the log is sealed, ctx is done, or
// each says that it wants no more.
func (l *eventLog) read(ctx context.Context, each func(job.Record) (more bool, err error)) error {
	r, err := l.reader()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // it was only read
	for {
		b, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		record, err := job.Decode(b)
		if err != nil {
			return fmt.Errorf("%s: %w", l.path(), err)
		}
		if more, err := each(record); err != nil || !more {
			return err
		}
	}
}

// events is an event log as an engine sees it.
type events struct{ *eventLog }

var _ engine.Events = events{}

func (e events) State(reported jobpb.JobState_Enum) {
	ev, err := job.EventOf(reported)
	if err == nil {
		_, _, err = e.happen(ev)
	}
	if err != nil {
		e.log.Error("an engine reported a state that cannot be", "job", e.id, "error", err)
	}
}

func (e events) Message(importance jobpb.JobMessage_MessageImportance, text string) {
	e.message(importance, text)
}

func (e events) Metrics(attempted, committed []*pipepb.MonitoringInfo) {
	// The caller may go on with its slices and messages.
	m := &jobpb.MetricResults{Attempted: attempted, Committed: committed}
	e.setMetrics(proto.CloneOf(m))
}

func (e events) Handle(handle string) error { return e.accepted(handle) }

// bounded is a text as a protobuf string may have it: valid UTF-8, and at most limit bytes. A longer one loses its
// middle: the cause of a failure is at one of its ends.
func bounded(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	head, tail := limit/2, len(text)-limit/2+64
	for !utf8.RuneStart(text[head]) {
		head--
	}
	for tail < len(text) && !utf8.RuneStart(text[tail]) {
		tail++
	}
	return fmt.Sprintf("%s\n… %d bytes left out …\n%s", text[:head], tail-head, text[tail:])
}
