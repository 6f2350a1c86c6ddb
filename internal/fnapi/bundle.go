package fnapi

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc/mem"

	"trestle/internal/kit/credit"
)

// BundleSpec says what one bundle is to do.
type BundleSpec struct {
	// Descriptor is an id that AddDescriptor has answered with.
	Descriptor string
	// Source is the descriptor's source transform that Elements are for.
	Source string
	// Elements, if there are any, are all of the bundle's input: they travel inside the instruction, which the SDK must
	// have declared that it takes (beam:protocol:control_request_elements_embedding:v1). Neither Send nor End is called.
	Elements []byte
	// Timers are the timer families of the descriptor's transforms. The harness is told of the end of each when the input
	// ends, and ends each itself, as it does its sinks.
	Timers []TimerFamily
	// Due, by index in Timers, are encoded timers that are to fire: with Elements they travel inside the instruction, and
	// may do so without Elements.
	Due [][]byte
	// CacheTokens say which of what the bundle reads from state the harness may keep for other bundles with the same token.
	CacheTokens []*fnpb.ProcessBundleRequest_CacheToken
	// Sinks are the ids of the descriptor's sink transforms: the bundle is done when each has ended its output.
	Sinks []string
	// Receive takes the output of a sink, in order. Calls are serialised; data is valid until Receive returns. An
	// error fails the bundle. While Receive blocks, the harness is held back. Nil when there are no sinks.
	Receive func(ctx context.Context, sink string, data []byte) error
	// ReceiveTimers takes timers, by their family's index in Timers, that the harness has set or cleared; calls are
	// serialised with those of Receive, and like them. Nil when there are no families.
	ReceiveTimers func(ctx context.Context, family int, timers []byte) error
	// State answers the bundle's state requests, in order; calls are serialised. An error goes to the harness as the
	// answer, and as a rule fails the bundle there. Nil when the descriptor has neither side inputs nor state.
	State func(ctx context.Context, r *fnpb.StateRequest) (*fnpb.StateResponse, error)
}

// TimerFamily names the timers of a transform that are of one family.
type TimerFamily struct{ Transform, Family string }

// queued is how many parts of data messages, or state requests, of a bundle wait for their receiver, and queuedBytes how
// many bytes of the former: enough to keep both ends busy (Go's SDK fills messages to 4 MB, Python's to 10), few enough
// to bound memory. What is larger waits alone.
const (
	queued      = 4
	queuedBytes = 8 << 20
)

// Bundle is a ProcessBundle instruction under way.
type Bundle struct {
	session *Session
	spec    BundleSpec
	id      string

	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool // detaches from the session's end
	answer <-chan *fnpb.InstructionResponse

	queue    chan delivery
	waiting  *credit.Bytes // in queue
	requests chan stateRequest
	// asked is how many state requests are in requests, or are being answered from there; whoever answers one holds answering.
	asked     atomic.Int32
	answering sync.Mutex
	workers   sync.WaitGroup
	received  chan struct{} // closed when every sink has ended

	response  *fnpb.ProcessBundleResponse
	responded chan struct{} // closed when response is set
}

type delivery struct {
	part part
	buf  mem.Buffer
}

// StartBundle starts a bundle; it waits for the harness to be connected. It ends with Wait or Abort, one of which must
// be called; ctx ending aborts it.
func (s *Session) StartBundle(ctx context.Context, spec BundleSpec) (*Bundle, error) {
	b := &Bundle{
		session:   s,
		spec:      spec,
		id:        s.nextInstruction(),
		queue:     make(chan delivery, queued),
		waiting:   credit.New(queuedBytes),
		requests:  make(chan stateRequest, queued),
		received:  make(chan struct{}),
		responded: make(chan struct{}),
	}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	b.stop = context.AfterFunc(s.ctx, func() { b.cancel(s.Err()) })
	b.answer = s.control.expect(b.id)
	s.addBundle(b)
	b.workers.Go(b.awaitResponse)
	b.workers.Go(b.receive)
	if spec.State != nil {
		b.workers.Go(b.serveState)
	}
	err := s.sendInstruction(b.ctx, &fnpb.InstructionRequest{
		InstructionId: b.id,
		Request: &fnpb.InstructionRequest_ProcessBundle{
			ProcessBundle: &fnpb.ProcessBundleRequest{
				ProcessBundleDescriptorId: spec.Descriptor, CacheTokens: spec.CacheTokens, Elements: embedded(b.id, spec),
			},
		},
	})
	if err != nil {
		b.Abort(err)
		return nil, err
	}
	return b, nil
}

// embedded is the input that travels with the instruction: all of it or none (ProcessBundleRequest.elements).
func embedded(id string, spec BundleSpec) *fnpb.Elements {
	if len(spec.Elements) == 0 && len(spec.Due) == 0 {
		return nil
	}
	e := &fnpb.Elements{}
	if len(spec.Elements) > 0 {
		e.Data = append(e.Data, &fnpb.Elements_Data{InstructionId: id, TransformId: spec.Source, Data: spec.Elements})
	}
	e.Data = append(e.Data, &fnpb.Elements_Data{InstructionId: id, TransformId: spec.Source, IsLast: true})
	for i, f := range spec.Timers {
		if i < len(spec.Due) && len(spec.Due[i]) > 0 {
			e.Timers = append(e.Timers, &fnpb.Elements_Timers{InstructionId: id, TransformId: f.Transform, TimerFamilyId: f.Family, Timers: spec.Due[i]})
		}
		e.Timers = append(e.Timers, &fnpb.Elements_Timers{InstructionId: id, TransformId: f.Transform, TimerFamilyId: f.Family, IsLast: true})
	}
	return e
}

// ID is the bundle's instruction id, which also marks the harness's log entries about it.
func (b *Bundle) ID() string { return b.id }

// Send passes elements on to a source transform of the descriptor; it blocks while the harness is busy. data is the
// caller's again when Send returns.
func (b *Bundle) Send(source string, data []byte) error {
	return b.send(part{instruction: b.id, transform: source, payload: data})
}

// Fire passes timers on that are to fire, to the family with the index in the bundle's Timers. data is the caller's again
// when Fire returns.
func (b *Bundle) Fire(family int, data []byte) error {
	f := b.spec.Timers[family]
	return b.send(part{instruction: b.id, transform: f.Transform, family: f.Family, timers: true, payload: data})
}

// End says that no more elements will come for a source but the last ones, if there are any, which go in the same message,
// and no more timers.
func (b *Bundle) End(source string, last []byte) error {
	parts := make([]part, 0, 2+len(b.spec.Timers))
	if len(last) > 0 {
		parts = append(parts, part{instruction: b.id, transform: source, payload: last})
	}
	parts = append(parts, part{instruction: b.id, transform: source, last: true})
	for _, f := range b.spec.Timers {
		parts = append(parts, part{instruction: b.id, transform: f.Transform, family: f.Family, timers: true, last: true})
	}
	return b.send(parts...)
}

func (b *Bundle) send(parts ...part) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	return b.session.sendData(b.ctx, &elements{parts: parts})
}

// Wait waits until the harness has finished the bundle and all of its output has been received.
func (b *Bundle) Wait() (*fnpb.ProcessBundleResponse, error) {
	for _, done := range []<-chan struct{}{b.responded, b.received} {
		select {
		case <-done:
		case <-b.ctx.Done():
			err := context.Cause(b.ctx)
			b.Abort(err)
			return nil, err
		}
	}
	b.Abort(nil)
	return b.response, nil
}

// Abort forgets the bundle: what the harness still sends for it is dropped. It returns when no call of Receive or State
// is under way any more. The Fn API has no message to stop a bundle: a harness that must stop is closed.
func (b *Bundle) Abort(cause error) {
	b.cancel(cause)
	b.stop()
	b.session.control.forget(b.id)
	b.session.removeBundle(b)
	b.workers.Wait()
	// The state stream's reader may be answering: after that it does no more, the bundle's context having ended.
	b.answering.Lock()
	defer b.answering.Unlock()
	for {
		select {
		case d := <-b.queue:
			d.buf.Free()
		default:
			return
		}
	}
}

// Failed is closed when the bundle has failed or was aborted; its cause is what Wait will answer.
func (b *Bundle) Failed() <-chan struct{} { return b.ctx.Done() }

// Progress asks the harness how far the bundle is.
func (b *Bundle) Progress(ctx context.Context) (*fnpb.ProcessBundleProgressResponse, error) {
	r, err := b.session.instruct(ctx, &fnpb.InstructionRequest{Request: &fnpb.InstructionRequest_ProcessBundleProgress{
		ProcessBundleProgress: &fnpb.ProcessBundleProgressRequest{InstructionId: b.id},
	}})
	if err != nil {
		return nil, fmt.Errorf("progress of bundle %s: %w", b.id, err)
	}
	return r.GetProcessBundleProgress(), nil
}

// Split asks the harness to give up a part of the bundle.
func (b *Bundle) Split(ctx context.Context, desired map[string]*fnpb.ProcessBundleSplitRequest_DesiredSplit) (*fnpb.ProcessBundleSplitResponse, error) {
	r, err := b.session.instruct(ctx, &fnpb.InstructionRequest{Request: &fnpb.InstructionRequest_ProcessBundleSplit{
		ProcessBundleSplit: &fnpb.ProcessBundleSplitRequest{InstructionId: b.id, DesiredSplits: desired},
	}})
	if err != nil {
		return nil, fmt.Errorf("split of bundle %s: %w", b.id, err)
	}
	return r.GetProcessBundleSplit(), nil
}

// Finalize tells the harness that the effects of a finished bundle are durable (bundle finalization).
func (s *Session) Finalize(ctx context.Context, bundle string) error {
	_, err := s.instruct(ctx, &fnpb.InstructionRequest{Request: &fnpb.InstructionRequest_FinalizeBundle{
		FinalizeBundle: &fnpb.FinalizeBundleRequest{InstructionId: bundle},
	}})
	if err != nil {
		return fmt.Errorf("finalize bundle %s: %w", bundle, err)
	}
	return nil
}

// awaitResponse makes a failure known at once, while elements are still being sent.
func (b *Bundle) awaitResponse() {
	r, err := b.session.await(b.ctx, b.answer)
	if err != nil {
		b.cancel(err)
		return
	}
	b.response = r.GetProcessBundle()
	if b.response == nil {
		b.cancel(fmt.Errorf("harness %s answered bundle %s with something that is no answer to a bundle (%T)", b.session.ID(), b.id, r.GetResponse()))
		return
	}
	close(b.responded)
	if e := b.response.GetElements(); e != nil {
		b.enqueueEmbedded(e)
	}
}

// enqueueEmbedded takes output that came with the response: then it is all of the bundle's (ProcessBundleResponse.elements).
func (b *Bundle) enqueueEmbedded(e *fnpb.Elements) {
	for _, d := range e.GetData() {
		b.enqueue(part{transform: d.GetTransformId(), payload: d.GetData()}, mem.SliceBuffer(nil))
	}
	for _, t := range e.GetTimers() {
		b.enqueue(part{transform: t.GetTransformId(), family: t.GetTimerFamilyId(), timers: true, payload: t.GetTimers()}, mem.SliceBuffer(nil))
	}
	for _, sink := range b.spec.Sinks {
		b.enqueue(part{transform: sink, last: true}, mem.SliceBuffer(nil))
	}
	for _, f := range b.spec.Timers {
		b.enqueue(part{transform: f.Transform, family: f.Family, timers: true, last: true}, mem.SliceBuffer(nil))
	}
}

// enqueue is called by the data stream's reader; it takes one reference to buf.
func (b *Bundle) enqueue(p part, buf mem.Buffer) {
	if b.waiting.Take(b.ctx, int64(len(p.payload))) != nil {
		buf.Free()
		return
	}
	select {
	case b.queue <- delivery{p, buf}:
	case <-b.ctx.Done():
		buf.Free()
	}
}

// receive runs until every sink and timer family has ended its output, or the bundle.
func (b *Bundle) receive() {
	open := make(map[string]bool, len(b.spec.Sinks))
	for _, sink := range b.spec.Sinks {
		open[sink] = true
	}
	families := make(map[TimerFamily]int, len(b.spec.Timers))
	for i, f := range b.spec.Timers {
		families[f] = i
	}
	for len(open)+len(families) > 0 {
		select {
		case d := <-b.queue:
			b.waiting.Give(uint64(len(d.part.payload)))
			var err error
			if d.part.timers {
				err = b.deliverTimers(d.part, families)
			} else {
				err = b.deliver(d.part, open)
			}
			d.buf.Free()
			if err != nil {
				b.cancel(err)
				return
			}
		case <-b.ctx.Done():
			return
		}
	}
	close(b.received)
}

func (b *Bundle) deliver(p part, open map[string]bool) error {
	if !open[p.transform] {
		return fmt.Errorf("harness %s sent elements of %q in bundle %s, which is no output of it or had ended", b.session.ID(), p.transform, b.id)
	}
	if len(p.payload) > 0 {
		if err := b.spec.Receive(b.ctx, p.transform, p.payload); err != nil {
			return err
		}
	}
	if p.last {
		delete(open, p.transform)
	}
	return nil
}

func (b *Bundle) deliverTimers(p part, open map[TimerFamily]int) error {
	f := TimerFamily{p.transform, p.family}
	i, ok := open[f]
	if !ok {
		return fmt.Errorf("harness %s set a timer of family %q of transform %s in bundle %s, which has no such family, or it had ended",
			b.session.ID(), p.family, p.transform, b.id)
	}
	if len(p.payload) > 0 {
		if err := b.spec.ReceiveTimers(b.ctx, i, p.payload); err != nil {
			return err
		}
	}
	if p.last {
		delete(open, f)
	}
	return nil
}
