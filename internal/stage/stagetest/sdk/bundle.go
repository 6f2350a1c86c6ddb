package sdk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	fnpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/fnexecution_v1"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	"google.golang.org/protobuf/proto"

	"trestle/internal/beam/coder"
	"trestle/internal/beam/urn"
)

// Bundle is a bundle under way. It belongs to its script.
type Bundle struct {
	// ID is the bundle's instruction.
	ID string
	// Descriptor is what the harness was told to run.
	Descriptor *fnpb.ProcessBundleDescriptor
	// Tokens say what the harness may keep of what it reads.
	Tokens []*fnpb.ProcessBundleRequest_CacheToken
	// Response is what the bundle will be answered with. When it holds elements, they are all of the output.
	Response *fnpb.ProcessBundleResponse

	h        *Harness
	script   Script
	embedded []*fnpb.Elements_Data // came with the instruction
	in       chan *fnpb.Elements_Data
	over     chan struct{} // closed when the script has returned
	source   string
	records  *coder.Windowed
	sinks    map[string]string // PCollection → sink that is not ended yet
	answered bool

	families []family // whose output is not ended yet

	mu      sync.Mutex
	fired   []Timers
	onSplit func(*fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse
	onAsked func() []*pipepb.MonitoringInfo
}

// OnProgress lets f say what the bundle has measured so far, which until then cannot say. f is called from another
// goroutine than the script's.
func (b *Bundle) OnProgress(f func() []*pipepb.MonitoringInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onAsked = f
}

func (b *Bundle) progress() (response *fnpb.ProcessBundleProgressResponse, ok bool) {
	b.mu.Lock()
	f := b.onAsked
	b.mu.Unlock()
	if f == nil {
		return nil, false
	}
	return &fnpb.ProcessBundleProgressResponse{MonitoringInfos: f()}, true
}

// OnSplit lets f answer requests to split the bundle, which until then gives nothing away. f is called from another
// goroutine than the script's.
func (b *Bundle) OnSplit(f func(*fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onSplit = f
}

func (b *Bundle) split(r *fnpb.ProcessBundleSplitRequest) *fnpb.ProcessBundleSplitResponse {
	b.mu.Lock()
	f := b.onSplit
	b.mu.Unlock()
	if f == nil {
		return &fnpb.ProcessBundleSplitResponse{}
	}
	return f(r)
}

// open makes the bundle what its descriptor says.
func (b *Bundle) open(descriptor string) error {
	var err error
	if b.Descriptor, err = b.h.descriptor(descriptor); err != nil {
		return err
	}
	b.sinks = map[string]string{}
	for id, t := range b.Descriptor.GetTransforms() {
		if s := b.h.scripts[id]; s != nil {
			b.script = s
		}
		switch t.GetSpec().GetUrn() {
		case urn.RunnerSource:
			var port fnpb.RemoteGrpcPort
			if err := proto.Unmarshal(t.GetSpec().GetPayload(), &port); err != nil {
				return fmt.Errorf("sdk: source %s: %w", id, err)
			}
			b.source = id
			if b.records, err = coder.CompileWindowed(b.Descriptor.GetCoders(), port.GetCoderId()); err != nil {
				return fmt.Errorf("sdk: source %s: %w", id, err)
			}
		case urn.RunnerSink:
			for _, pc := range t.GetInputs() {
				b.sinks[pc] = id
			}
		case urn.TransformParDo:
			if err := b.declare(id, t); err != nil {
				return err
			}
		}
	}
	if b.script == nil {
		return fmt.Errorf("sdk: no script for any transform of %s", descriptor)
	}
	return nil
}

// Element is a record of the bundle's input.
type Element struct {
	// Record is the whole record, Value the encoded element in it.
	Record, Value []byte
	// Timestamp is in milliseconds; Windows are the encoded windows, one behind the other.
	Timestamp int64
	Windows   []byte
	Pane      coder.PaneInfo
}

// Each calls f with each element of the input, as they arrive, until the input's end.
func (b *Bundle) Each(f func(Element) error) error {
	for {
		d, err := b.receive()
		if err != nil {
			return err
		}
		// A message holds whole records (Elements in beam_fn_api.proto).
		for data := d.GetData(); len(data) > 0; {
			header, size, err := b.records.Record(data)
			if err != nil {
				return fmt.Errorf("sdk: input: %w", err)
			}
			pane, _, err := coder.Pane(header.Pane(data))
			if err != nil {
				return fmt.Errorf("sdk: input: %w", err)
			}
			e := Element{Record: data[:size], Value: data[header.Size:size], Timestamp: header.Timestamp, Windows: header.Windows(data), Pane: pane}
			if err := f(e); err != nil {
				return err
			}
			data = data[size:]
		}
		if d.GetIsLast() {
			return nil
		}
	}
}

func (b *Bundle) receive() (*fnpb.Elements_Data, error) {
	if len(b.embedded) > 0 {
		d := b.embedded[0]
		b.embedded = b.embedded[1:]
		return d, nil
	}
	select {
	case d := <-b.in:
		if d.GetTransformId() != b.source {
			return nil, fmt.Errorf("sdk: input for transform %q, which is not the source %q", d.GetTransformId(), b.source)
		}
		return d, nil
	case <-b.h.ctx.Done():
		return nil, errGone
	}
}

// Embed puts whole records of an output into the response.
func (b *Bundle) Embed(pcollection string, records []byte) {
	if b.Response.Elements == nil {
		b.Response.Elements = &fnpb.Elements{}
	}
	b.Response.Elements.Data = append(b.Response.Elements.Data,
		&fnpb.Elements_Data{InstructionId: b.ID, TransformId: b.sinks[pcollection], Data: records})
}

// Embedded tells whether input that came with the bundle's instruction is yet to be read.
func (b *Bundle) Embedded() bool { return len(b.embedded) > 0 }

// Write sends whole records of an output, named by its PCollection, in one message.
func (b *Bundle) Write(pcollection string, records []byte) error {
	return b.send(&fnpb.Elements_Data{TransformId: b.sinks[pcollection], Data: records})
}

// EndOutputs says that no more output will come.
func (b *Bundle) EndOutputs() error {
	for pc, sink := range b.sinks {
		if err := b.send(&fnpb.Elements_Data{TransformId: sink, IsLast: true}); err != nil {
			return err
		}
		delete(b.sinks, pc)
	}
	return b.endTimers()
}

func (b *Bundle) send(d *fnpb.Elements_Data) error {
	d.InstructionId = b.ID
	b.h.writing.Lock()
	defer b.h.writing.Unlock()
	if err := b.h.data.Send(&fnpb.Elements{Data: []*fnpb.Elements_Data{d}}); err != nil {
		return fmt.Errorf("sdk: output: %w", err)
	}
	return nil
}

// Respond answers the bundle now, though output may follow.
func (b *Bundle) Respond() error {
	if b.answered {
		return nil
	}
	b.answered = true
	return b.h.answer(&fnpb.InstructionResponse{InstructionId: b.ID,
		Response: &fnpb.InstructionResponse_ProcessBundle{ProcessBundle: b.Response}})
}

// Vanish breaks the harness's connection, as a process does that dies, and returns an error that nobody will hear.
func (b *Bundle) Vanish() error {
	b.h.cancel()
	return errGone
}

// Gone is closed when the harness's connection has ended.
func (b *Bundle) Gone() <-chan struct{} { return b.h.ctx.Done() }

// Hang waits until the harness is closed.
func (b *Bundle) Hang() error {
	<-b.h.ctx.Done()
	return errGone
}

// Get reads one page of state.
func (b *Bundle) Get(key *fnpb.StateKey, token []byte) (data, next []byte, err error) {
	r, err := b.h.ask(&fnpb.StateRequest{InstructionId: b.ID, StateKey: key,
		Request: &fnpb.StateRequest_Get{Get: &fnpb.StateGetRequest{ContinuationToken: token}}})
	if err != nil {
		return nil, nil, err
	}
	if r.GetError() != "" {
		return nil, nil, errors.New(r.GetError())
	}
	return r.GetGet().GetData(), r.GetGet().GetContinuationToken(), nil
}

// Read reads all pages of state and tells how many there were.
func (b *Bundle) Read(key *fnpb.StateKey) (data []byte, pages int, err error) {
	for token := []byte(nil); pages == 0 || len(token) > 0; pages++ {
		page, next, err := b.Get(key, token)
		if err != nil {
			return nil, 0, err
		}
		data, token = append(data, page...), next
	}
	return data, pages, nil
}

// Ask makes any state request.
func (b *Bundle) Ask(r *fnpb.StateRequest) (*fnpb.StateResponse, error) {
	r.InstructionId = b.ID
	return b.h.ask(r)
}

// Group is an element of a grouping by strings: KV<string, iterable<string>>.
type Group struct {
	Key string
	// Values are those in the element. A large group has none there but a Token, under which state has them.
	Values []string
	Token  []byte
}

// Group takes apart an element with beam:coder:iterable:v1 or beam:coder:state_backed_iterable:v1.
func (e Element) Group() (Group, error) {
	rest := slices.Clone(e.Value)
	key, rest, err := cutString(rest)
	if err != nil || len(rest) < 4 {
		return Group{}, fmt.Errorf("sdk: group %x: %w", e.Value, errors.Join(err, errCut))
	}
	g := Group{Key: key}
	count := int32(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	if count >= 0 {
		if g.Values, err = Strings(rest); err != nil || len(g.Values) != int(count) {
			return Group{}, fmt.Errorf("sdk: group of %q: %d values announced, %d there (%w)", key, count, len(g.Values), err)
		}
		return g, nil
	}
	chunk, n := binary.Uvarint(rest)
	if count != -1 || n <= 0 || int64(chunk) != -1 {
		return Group{}, fmt.Errorf("sdk: group of %q: count %d, then a chunk of %d", key, count, int64(chunk))
	}
	token, rest, err := cutString(rest[n:])
	if err != nil || len(rest) > 0 {
		return Group{}, fmt.Errorf("sdk: group of %q: token: %w", key, errors.Join(err, errCut))
	}
	g.Token = []byte(token)
	return g, nil
}

var errCut = errors.New("sdk: a string is cut short, or something follows")

// String appends the nested encoding of a string (or of bytes): its length and itself.
func String(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Strings takes nested encodings of strings apart.
func Strings(b []byte) ([]string, error) {
	var all []string
	for len(b) > 0 {
		s, rest, err := cutString(b)
		if err != nil {
			return nil, err
		}
		all, b = append(all, s), rest
	}
	return all, nil
}

func cutString(b []byte) (s string, rest []byte, err error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return "", nil, errCut
	}
	return string(b[n : n+int(size)]), b[n+int(size):], nil
}
