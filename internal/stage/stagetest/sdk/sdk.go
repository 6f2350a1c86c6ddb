// Package sdk plays an SDK harness in tests: it speaks the Fn API as a client, through the generated stubs alone, and does
// with each bundle what a test's script says. It does not know Beam's model: a script reads and writes encoded records.
package sdk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Script is what the harness does with a bundle. It runs on a goroutine of its own. When it returns, its outputs are ended
// and the bundle is answered with its Response, or with the error's text; what it has ended or answered itself stays so.
type Script func(b *Bundle) error

// Harness is a connected harness. Its methods may be called concurrently.
type Harness struct {
	conn    *grpc.ClientConn
	scripts map[string]Script // by the id of a transform in the bundle's descriptor

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	work   sync.WaitGroup

	control fnpb.BeamFnControl_ControlClient
	data    fnpb.BeamFnData_DataClient
	state   fnpb.BeamFnState_StateClient
	sending sync.Mutex // serialises Send on control and state
	writing sync.Mutex // serialises Send on data

	mu          sync.Mutex
	bundles     map[string]*Bundle // by instruction; what has ended stays
	started     int
	descriptors map[string]*fnpb.ProcessBundleDescriptor
	asked       map[string]chan *fnpb.StateResponse
	finalized   []string
}

var errGone = errors.New("sdk: the harness is gone")

func connect(conn *grpc.ClientConn, worker string, scripts map[string]Script) (*Harness, error) {
	h := &Harness{
		conn: conn, scripts: scripts,
		bundles:     map[string]*Bundle{},
		descriptors: map[string]*fnpb.ProcessBundleDescriptor{},
		asked:       map[string]chan *fnpb.StateResponse{},
	}
	h.ctx, h.cancel = context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "worker_id", worker))
	large := []grpc.CallOption{grpc.MaxCallRecvMsgSize(math.MaxInt32)}
	var errs [3]error
	h.data, errs[0] = fnpb.NewBeamFnDataClient(conn).Data(h.ctx, large...)
	h.state, errs[1] = fnpb.NewBeamFnStateClient(conn).State(h.ctx, large...)
	h.control, errs[2] = fnpb.NewBeamFnControlClient(conn).Control(h.ctx, large...)
	if err := errors.Join(errs[:]...); err != nil {
		h.cancel()
		return nil, fmt.Errorf("sdk: connect: %w", err)
	}
	h.work.Go(h.readControl)
	h.work.Go(h.readData)
	h.work.Go(h.readState)
	return h, nil
}

// Close breaks the connection and waits for the scripts to return.
func (h *Harness) Close() {
	h.cancel()
	h.work.Wait()
}

// Bundles is how many bundles have been started.
func (h *Harness) Bundles() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.started
}

// Finalized are the instructions of the bundles that were finalized, in order.
func (h *Harness) Finalized() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.finalized...)
}

// readControl starts bundles and answers the rest. Any end of the stream is the end of the harness.
func (h *Harness) readControl() {
	defer h.cancel()
	for {
		r, err := h.control.Recv()
		if err != nil {
			return
		}
		answer := &fnpb.InstructionResponse{InstructionId: r.GetInstructionId()}
		switch i := r.GetRequest().(type) {
		case *fnpb.InstructionRequest_ProcessBundle:
			b := h.bundle(r.GetInstructionId())
			b.embedded = i.ProcessBundle.GetElements().GetData()
			b.Tokens = i.ProcessBundle.GetCacheTokens()
			b.fire(i.ProcessBundle.GetElements().GetTimers())
			h.mu.Lock()
			h.started++
			h.mu.Unlock()
			h.work.Go(func() { h.run(b, i.ProcessBundle.GetProcessBundleDescriptorId()) })
			continue
		case *fnpb.InstructionRequest_FinalizeBundle:
			h.mu.Lock()
			h.finalized = append(h.finalized, i.FinalizeBundle.GetInstructionId())
			h.mu.Unlock()
			answer.Response = &fnpb.InstructionResponse_FinalizeBundle{FinalizeBundle: &fnpb.FinalizeBundleResponse{}}
		case *fnpb.InstructionRequest_ProcessBundleSplit:
			split := h.bundle(i.ProcessBundleSplit.GetInstructionId()).split(i.ProcessBundleSplit)
			answer.Response = &fnpb.InstructionResponse_ProcessBundleSplit{ProcessBundleSplit: split}
		case *fnpb.InstructionRequest_ProcessBundleProgress:
			if progress, ok := h.bundle(i.ProcessBundleProgress.GetInstructionId()).progress(); ok {
				answer.Response = &fnpb.InstructionResponse_ProcessBundleProgress{ProcessBundleProgress: progress}
			} else {
				answer.Error = "sdk: the bundle does not say how far it is"
			}
		default:
			answer.Error = fmt.Sprintf("sdk: instruction %T is not played", i)
		}
		if h.answer(answer) != nil {
			return
		}
	}
}

func (h *Harness) answer(r *fnpb.InstructionResponse) error {
	h.sending.Lock()
	defer h.sending.Unlock()
	return h.control.Send(r)
}

// readData hands input to its bundle, which may be known here before its instruction is: the streams are independent.
func (h *Harness) readData() {
	for {
		e, err := h.data.Recv()
		if err != nil {
			return
		}
		for _, t := range e.GetTimers() {
			h.bundle(t.GetInstructionId()).fire([]*fnpb.Elements_Timers{t})
		}
		for _, d := range e.GetData() {
			b := h.bundle(d.GetInstructionId())
			select {
			case b.in <- d:
			case <-b.over:
			case <-h.ctx.Done():
				return
			}
		}
	}
}

func (h *Harness) readState() {
	for {
		r, err := h.state.Recv()
		if err != nil {
			return
		}
		h.mu.Lock()
		answer := h.asked[r.GetId()]
		delete(h.asked, r.GetId())
		h.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
}

// ask makes a state request and waits for the answer.
func (h *Harness) ask(r *fnpb.StateRequest) (*fnpb.StateResponse, error) {
	answer := make(chan *fnpb.StateResponse, 1)
	h.sending.Lock()
	h.mu.Lock()
	r.Id = strconv.Itoa(len(h.asked)) + "/" + r.GetInstructionId()
	for n := 0; h.asked[r.Id] != nil; n++ {
		r.Id += strconv.Itoa(n)
	}
	h.asked[r.Id] = answer
	h.mu.Unlock()
	err := h.state.Send(r)
	h.sending.Unlock()
	if err != nil {
		return nil, fmt.Errorf("sdk: state: %w", err)
	}
	select {
	case a := <-answer:
		return a, nil
	case <-h.ctx.Done():
		return nil, errGone
	}
}

func (h *Harness) bundle(id string) *Bundle {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.bundles[id]
	if b == nil {
		b = &Bundle{ID: id, Response: &fnpb.ProcessBundleResponse{}, h: h, in: make(chan *fnpb.Elements_Data), over: make(chan struct{})}
		h.bundles[id] = b
	}
	return b
}

// steps counts what scripts and tests have done: see Order.
var steps atomic.Int64

// Order is called by scripts and by tests between what they do. Where a socket lies between task and engine, the race detector does
// not see in which order they read and write what they share; by this it does.
func Order() { steps.Add(1) }

// run plays a bundle. An error in answering is the connection's end, which whoever waits for the answer sees.
func (h *Harness) run(b *Bundle, descriptor string) {
	defer close(b.over)
	Order()
	err := b.open(descriptor)
	if err == nil {
		err = b.script(b)
	}
	Order()
	if err == nil && b.Response.Elements == nil {
		err = b.EndOutputs()
	}
	switch {
	case errors.Is(err, errGone): // the dead say nothing
	case err != nil:
		_ = h.answer(&fnpb.InstructionResponse{InstructionId: b.ID, Error: err.Error()})
	default:
		_ = b.Respond()
	}
}

func (h *Harness) descriptor(id string) (*fnpb.ProcessBundleDescriptor, error) {
	h.mu.Lock()
	d := h.descriptors[id]
	h.mu.Unlock()
	if d != nil {
		return d, nil
	}
	d, err := fnpb.NewBeamFnControlClient(h.conn).GetProcessBundleDescriptor(h.ctx, &fnpb.GetProcessBundleDescriptorRequest{ProcessBundleDescriptorId: id})
	if err != nil {
		return nil, fmt.Errorf("sdk: descriptor: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.descriptors[id] = d
	return d, nil
}
