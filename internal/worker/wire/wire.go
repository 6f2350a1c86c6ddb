// Package wire is the task contract's form on a socket: frames, written and read (docs/protocols/socket.md).
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Version is the protocol's.
const Version = 1

// TokenBytes is the length of a hello's token.
const TokenBytes = 32

// BlockCharge is what a block costs of the credit besides its length.
const BlockCharge = 64

// MaxBlock bounds a block, and with it a record that passes between hosts: an engine keeps several of them in its heap.
const MaxBlock = 64 << 20

// MaxFrame bounds a frame's type and body.
const MaxFrame = MaxBlock + 64

// Type says what a frame means.
type Type byte

// Frames of the adapter.
const (
	Hello Type = iota + 1
	Open
	Process
	End
	Close
	AdapterCredit
	Ping
)

// Frames of the worker.
const (
	Opened Type = iota + 65
	Emit
	Ended
	Report
	WorkerCredit
	Failed
	Closed
	Pong
)

// shape is what a frame's body starts with; data is what it goes on with.
type shape struct {
	name    string
	numbers int  // how many u32
	wide    bool // then a u64
	kind    bool // or a u8, first of all
	data    bool
}

var shapes = map[Type]shape{
	Hello:         {name: "hello", kind: true, data: true},
	Open:          {name: "open", numbers: 4, wide: true},
	Process:       {name: "process", numbers: 2, data: true},
	End:           {name: "end", numbers: 1},
	Close:         {name: "close"},
	AdapterCredit: {name: "credit", wide: true},
	Ping:          {name: "ping", wide: true},
	Opened:        {name: "opened", wide: true},
	Emit:          {name: "emit", numbers: 2, data: true},
	Ended:         {name: "ended", numbers: 1},
	Report:        {name: "report", data: true},
	WorkerCredit:  {name: "credit", wide: true},
	Failed:        {name: "failed", kind: true, data: true},
	Closed:        {name: "closed"},
	Pong:          {name: "pong", wide: true},
}

// String is the frame's name in the document.
func (t Type) String() string {
	if s, ok := shapes[t]; ok {
		return s.name
	}
	return fmt.Sprintf("frame %d", byte(t))
}

// Frame is one message. Which fields count depends on the type.
type Frame struct {
	Type Type
	// Kind is a hello's version and a failure's kind.
	Kind byte
	// Numbers are in the document's order: stage, task, parallelism, attempt; input, key group; exchange, key group.
	Numbers [4]uint32
	// Wide is a credit, or a ping's number.
	Wide uint64
	// Data is a block, a token, a text, a report. Of a frame that was read it is the reader's caller's, until Release.
	Data []byte
}

// Charge is what a block's frame costs of the credit.
func (f *Frame) Charge() int64 { return int64(len(f.Data)) + BlockCharge }

// pooled is the largest data that is kept for another frame: blocks are tens of KiB, and larger ones rare.
const pooled = 256 << 10

var pool = sync.Pool{New: func() any { return new([]byte) }}

// Release gives the frame's data back; nobody may use it any more.
func (f *Frame) Release() {
	if cap(f.Data) > 0 && cap(f.Data) <= pooled {
		data := f.Data[:0]
		pool.Put(&data)
	}
	f.Data = nil
}

func (f *Frame) allocate(n int) {
	if n > pooled {
		f.Data = make([]byte, n)
		return
	}
	data := *pool.Get().(*[]byte)
	if cap(data) < n {
		data = make([]byte, n)
	}
	f.Data = data[:n]
}

// ErrMalformed is wrapped by the error of a Read that came upon what is no frame.
var ErrMalformed = errors.New("malformed frame")

// Reader reads frames. It is for one goroutine.
type Reader struct {
	r     *bufio.Reader
	limit uint32
}

// NewReader makes a reader.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 128<<10), limit: MaxFrame}
}

// Limit bounds the frames to come, in bytes: before the other end has said who it is, it gets no room.
func (r *Reader) Limit(bytes uint32) { r.limit = min(bytes, MaxFrame) }

// Discard reads to the end of the stream, whatever comes. There are no more frames to be read then.
func (r *Reader) Discard() error {
	_, err := io.Copy(io.Discard, r.r)
	return err
}

// header is a frame's length, and the most that stands before data: type, four numbers, a wide one.
const (
	lengthBytes = 4
	headBytes   = 1 + 4*4 + 8
)

// Read reads the next frame. At a clean end of the stream the error is io.EOF.
func (r *Reader) Read() (*Frame, error) {
	var b [headBytes]byte
	if _, err := io.ReadFull(r.r, b[:lengthBytes]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(b[:])
	if length == 0 || length > r.limit {
		return nil, fmt.Errorf("%w: of %d bytes", ErrMalformed, length)
	}
	if err := r.fill(b[:1]); err != nil {
		return nil, err
	}
	f := &Frame{Type: Type(b[0])}
	s, ok := shapes[f.Type]
	if !ok {
		return nil, fmt.Errorf("%w: type %d", ErrMalformed, b[0])
	}
	head := s.size()
	rest := int(length) - 1 - head
	if rest < 0 || rest > 0 && !s.data {
		return nil, fmt.Errorf("%w: a %s of %d bytes", ErrMalformed, s.name, length)
	}
	if err := r.fill(b[:head]); err != nil {
		return nil, err
	}
	f.decode(s, b[:head])
	if s.data {
		f.allocate(rest)
		if err := r.fill(f.Data); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// fill reads what a frame has announced: the end of the stream is not a clean one any more.
func (r *Reader) fill(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s shape) size() int {
	n := 4 * s.numbers
	if s.kind {
		n++
	}
	if s.wide {
		n += 8
	}
	return n
}

func (f *Frame) decode(s shape, b []byte) {
	if s.kind {
		f.Kind, b = b[0], b[1:]
	}
	for i := range s.numbers {
		f.Numbers[i], b = binary.BigEndian.Uint32(b), b[4:]
	}
	if s.wide {
		f.Wide = binary.BigEndian.Uint64(b)
	}
}

// Writer writes frames. Its methods may be called concurrently.
type Writer struct {
	mu   sync.Mutex
	conn net.Conn
}

// NewWriter makes a writer to a connection.
func NewWriter(c net.Conn) *Writer { return &Writer{conn: c} }

// Write writes a frame; its data is the caller's again on return.
func (w *Writer) Write(f Frame) error {
	s := shapes[f.Type]
	b := make([]byte, 0, lengthBytes+headBytes)
	b = binary.BigEndian.AppendUint32(b, uint32(1+s.size()+len(f.Data)))
	b = append(b, byte(f.Type))
	if s.kind {
		b = append(b, f.Kind)
	}
	for i := range s.numbers {
		b = binary.BigEndian.AppendUint32(b, f.Numbers[i])
	}
	if s.wide {
		b = binary.BigEndian.AppendUint64(b, f.Wide)
	}
	buffers := net.Buffers{b}
	if len(f.Data) > 0 {
		buffers = append(buffers, f.Data)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := buffers.WriteTo(w.conn); err != nil {
		return fmt.Errorf("write a %s: %w", f.Type, err)
	}
	return nil
}
