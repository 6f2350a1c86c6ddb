package stagetest

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"

	"trestle/internal/beam/coder"
	"trestle/internal/stage/stagetest/sdk"
)

// recorder keeps what the tasks of a stage have put out and settled.
type recorder struct {
	t *testing.T
	// before, unless nil, is called in Emit: it may block, and fail.
	before func(ctx context.Context) error
	// settling, unless nil, is called in Settle, and may fail.
	settling func(ctx context.Context, keep bool) error

	mu       sync.Mutex
	blocks   []block
	metrics  [][]*pipepb.MonitoringInfo // of attempts that count
	lost     [][]*pipepb.MonitoringInfo // of others
	messages []string
	events   []string // "emit", "keep", "drop", "message", "metrics", "lost", "watermark", "wake" and "quiet", in order
}

type block struct {
	exchange, keyGroup int
	data               []byte
}

// output is an engine's side of the contract with one task.
type output struct {
	*recorder
	// open are the blocks since the last Settle. mu guards it, and quiet.
	open       []block
	quiet      bool
	watermarks []int64
	wake       time.Time
	versions   []uint64
}

func (o *output) Emit(ctx context.Context, exchange, keyGroup int, data []byte) error {
	kept := append([]byte(nil), data...)
	if o.before != nil {
		if err := o.before(ctx); err != nil {
			return err
		}
	}
	runtime.Gosched()
	if string(data) != string(kept) {
		o.t.Error("a block changed while it was emitted")
	}
	o.note("emit", func() { o.open = append(o.open, block{exchange, keyGroup, kept}) })
	return nil
}

func (o *output) Settle(ctx context.Context, keep bool) error {
	if o.settling != nil {
		if err := o.settling(ctx, keep); err != nil {
			return err
		}
	}
	if keep {
		o.note("keep", func() { o.blocks = append(o.blocks, o.open...) })
	} else {
		o.note("drop", func() {})
	}
	o.open = nil
	return nil
}

func (o *output) Quiet() {
	o.note("quiet", func() {
		if len(o.open) > 0 {
			o.t.Errorf("a task was quiet with %d blocks that are not settled", len(o.open))
		}
		o.quiet = true
	})
}

// Watermark implements stage.StreamingOutput.
func (o *output) Watermark(_ context.Context, millis int64) error {
	o.note("watermark", func() {
		if len(o.open) > 0 {
			o.t.Errorf("a watermark was told with %d blocks before it that are not settled", len(o.open))
		}
		if n := len(o.watermarks); n > 0 && o.watermarks[n-1] >= millis {
			o.t.Errorf("the watermark went from %d to %d", o.watermarks[n-1], millis)
		}
		o.watermarks = append(o.watermarks, millis)
	})
	return nil
}

// again has the task go on from a watermark, as one does that takes something from another.
func (o *output) again(millis int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.quiet = false
	o.watermarks = slices.DeleteFunc(o.watermarks, func(told int64) bool { return told > millis })
}

// Readable implements stage.StreamingOutput.
func (o *output) Readable(_ context.Context, version uint64) error {
	o.note("readable", func() { o.versions = append(o.versions, version) })
	return nil
}

// WakeAt implements stage.StreamingOutput.
func (o *output) WakeAt(at time.Time) { o.note("wake", func() { o.wake = at }) }

func (o *output) Message(_ jobpb.JobMessage_MessageImportance, text string) {
	o.note("message", func() { o.messages = append(o.messages, text) })
}

func (o *output) Metrics(infos []*pipepb.MonitoringInfo, counts bool) {
	if counts {
		o.note("metrics", func() { o.metrics = append(o.metrics, infos) })
	} else {
		o.note("lost", func() { o.lost = append(o.lost, infos) })
	}
}

func (o *output) note(event string, keep func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.quiet {
		o.t.Errorf("%s of a task that was quiet", event)
	}
	o.events = append(o.events, event)
	keep()
}

// log is what came, in order.
func (o *recorder) log() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.events, " ")
}

// through returns the blocks that came through an exchange.
func (o *recorder) through(exchange int) []block {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []block
	for _, b := range o.blocks {
		if b.exchange == exchange {
			all = append(all, b)
		}
	}
	return all
}

// exchange is the id of the exchange that carries a PCollection to the stage of a transform.
func (r *rig) exchange(pcollection, to string) int {
	r.t.Helper()
	for _, out := range r.stage.Outputs {
		for _, id := range out.Exchanges {
			if out.PCollection == pcollection && r.plan.Exchanges[id].To == r.find(to).Index {
				return id
			}
		}
	}
	r.t.Fatalf("no exchange carries %s to %s", pcollection, to)
	return -1
}

func (r *rig) windowed(id string) *coder.Windowed {
	r.t.Helper()
	w, err := coder.CompileWindowed(r.plan.Coders(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

// values are the strings that came through an exchange of single records.
func (r *rig) values(exchange int) []string {
	r.t.Helper()
	var all []string
	for _, b := range r.out.through(exchange) {
		all = append(all, r.strings(r.windowed(r.plan.Exchanges[exchange].Coder), b.data)...)
	}
	return all
}

// strings takes a run of records of strings apart.
func (r *rig) strings(w *coder.Windowed, records []byte) []string {
	r.t.Helper()
	var all []string
	for len(records) > 0 {
		header, size, err := w.Record(records)
		if err != nil {
			r.t.Fatalf("output: %v", err)
		}
		s, err := sdk.Strings(records[header.Size:size])
		if err != nil {
			r.t.Fatalf("output: %v", err)
		}
		all = append(all, strings.Join(s, "="))
		records = records[size:]
	}
	return all
}

// entry is a record in a keyed block.
type entry struct {
	key, window, value string
	timestamp          int64
}

// entries takes a keyed block apart, as the documentation of package shuffle describes it.
func entries(b []byte) ([]entry, error) {
	var all []entry
	for len(b) > 0 {
		var e entry
		for _, field := range []*string{&e.key, &e.window, nil, &e.value} {
			if field == nil {
				if len(b) < coder.TimestampSize {
					return nil, fmt.Errorf("entry %d ends early", len(all))
				}
				e.timestamp, b = coder.Timestamp(b), b[coder.TimestampSize:]
				continue
			}
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil, fmt.Errorf("entry %d ends early", len(all))
			}
			*field, b = string(b[n:n+int(size)]), b[n+int(size):]
		}
		all = append(all, e)
	}
	return all, nil
}
