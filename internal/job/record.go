package job

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Version is the version of the records that [Encode] writes, and the only one that [Decode] reads.
const Version = 1

// ErrRecord is what [Decode] wraps when bytes are no record of a version that it reads.
var ErrRecord = errors.New("malformed event log record")

// Record is one entry of a job's event log: [*Prepared], [*StateChange], [*Message], [*Metrics],
// [*Accepted], [*Staged] or [*Again].
type Record interface{ kind() kind }

// kind is a record's second byte. The numbers are on disk: they are never given to anything else.
type kind byte

const (
	kindPrepared kind = 1
	kindState    kind = 2
	kindMessage  kind = 3
	kindMetrics  kind = 4
	kindAccepted kind = 5
	kindStaged   kind = 6
	kindAgain    kind = 7
)

// Prepared opens every log: a client prepared the job, and its state is STOPPED.
type Prepared struct {
	// Info has the job's id, name and options; its state is not looked at.
	Info *jobpb.JobInfo
	// Pipeline tells where the pipeline is.
	Pipeline PipelineRef
	Time     *timestamppb.Timestamp
}

// PipelineRef refers to a file that holds a Pipeline proto.
type PipelineRef struct {
	// File is a name in the job's own folder.
	File string
	// Size is the file's, in bytes.
	Size int64
	// SHA256 is the digest of the file's bytes.
	SHA256 [32]byte
}

// StateChange says that the job has come into a new state.
type StateChange struct{ *jobpb.JobStateEvent }

// Message is something for a person to read.
type Message struct{ *jobpb.JobMessage }

// Metrics replaces the job's metrics.
type Metrics struct{ *jobpb.MetricResults }

// Accepted says that an engine has taken the job.
type Accepted struct {
	// Handle is what the engine finds the job by after a restart of the server.
	Handle string
	Time   *timestamppb.Timestamp
}

// Staged says which artifacts of the store the job's harnesses are given.
type Staged struct {
	// SHA256 of each, in lower-case hex.
	SHA256 []string
}

// Again says that a job which had FAILED is STARTING once more. It is no StateChange, so that a Trestle which does not know of this
// says that a newer one wrote the log.
type Again struct{ *jobpb.JobStateEvent }

func (*Prepared) kind() kind    { return kindPrepared }
func (*StateChange) kind() kind { return kindState }
func (*Message) kind() kind     { return kindMessage }
func (*Metrics) kind() kind     { return kindMetrics }
func (*Accepted) kind() kind    { return kindAccepted }
func (*Staged) kind() kind      { return kindStaged }
func (*Again) kind() kind       { return kindAgain }

// Encode writes a record as docs/formats/journal.md has it: the version, the kind, and a protobuf message. It fails
// when a string is not valid UTF-8.
func Encode(r Record) ([]byte, error) {
	b := []byte{Version, byte(r.kind())}
	var err error
	switch r := r.(type) {
	case *Prepared:
		b, err = appendPrepared(b, r)
	case *StateChange:
		b, err = proto.MarshalOptions{}.MarshalAppend(b, r.JobStateEvent)
	case *Again:
		b, err = proto.MarshalOptions{}.MarshalAppend(b, r.JobStateEvent)
	case *Message:
		b, err = proto.MarshalOptions{}.MarshalAppend(b, r.JobMessage)
	case *Metrics:
		b, err = proto.MarshalOptions{}.MarshalAppend(b, r.MetricResults)
	case *Accepted:
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendString(b, r.Handle)
		b, err = appendMessage(b, 2, r.Time)
	case *Staged:
		for _, digest := range r.SHA256 {
			var raw []byte
			if raw, err = hex.DecodeString(digest); err != nil {
				break
			}
			b = protowire.AppendTag(b, 1, protowire.BytesType)
			b = protowire.AppendBytes(b, raw)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("encode %T for the event log: %w", r, err)
	}
	return b, nil
}

// Decode reads a record. Its bytes may come from anywhere: the error wraps [ErrRecord] when they are no record, or one
// of another version.
func Decode(b []byte) (Record, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", ErrRecord, len(b))
	}
	if b[0] != Version {
		return nil, fmt.Errorf("%w: version %d, and this Trestle reads version %d", ErrRecord, b[0], Version)
	}
	r, err := decode(kind(b[1]), b[2:])
	if err != nil {
		return nil, fmt.Errorf("%w: kind %d: %w", ErrRecord, b[1], err)
	}
	return r, nil
}

func decode(k kind, b []byte) (Record, error) {
	switch k {
	case kindPrepared:
		return decodePrepared(b)
	case kindState:
		m := new(jobpb.JobStateEvent)
		return &StateChange{m}, proto.Unmarshal(b, m)
	case kindAgain:
		m := new(jobpb.JobStateEvent)
		return &Again{m}, proto.Unmarshal(b, m)
	case kindMessage:
		m := new(jobpb.JobMessage)
		return &Message{m}, proto.Unmarshal(b, m)
	case kindMetrics:
		m := new(jobpb.MetricResults)
		return &Metrics{m}, proto.Unmarshal(b, m)
	case kindAccepted:
		r := &Accepted{Time: new(timestamppb.Timestamp)}
		err := eachField(b, func(num protowire.Number, value []byte) error {
			switch num {
			case 1:
				r.Handle = string(value)
			case 2:
				return proto.Unmarshal(value, r.Time)
			}
			return nil
		})
		return r, err
	case kindStaged:
		r := new(Staged)
		err := eachField(b, func(num protowire.Number, value []byte) error {
			if num == 1 && len(value) != sha256.Size {
				return fmt.Errorf("a sha256 of %d bytes", len(value))
			}
			if num == 1 {
				r.SHA256 = append(r.SHA256, hex.EncodeToString(value))
			}
			return nil
		})
		return r, err
	}
	return nil, errors.New("unknown kind of record; the log was written by a newer Trestle")
}

func appendPrepared(b []byte, r *Prepared) ([]byte, error) {
	b, err := appendMessage(b, 1, r.Info)
	if err != nil {
		return nil, err
	}
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, r.Pipeline.File)
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendBytes(b, r.Pipeline.SHA256[:])
	b = protowire.AppendTag(b, 4, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(r.Pipeline.Size))
	return appendMessage(b, 5, r.Time)
}

func decodePrepared(b []byte) (*Prepared, error) {
	r := &Prepared{Info: new(jobpb.JobInfo), Time: new(timestamppb.Timestamp)}
	err := eachField(b, func(num protowire.Number, value []byte) error {
		switch num {
		case 1:
			return proto.Unmarshal(value, r.Info)
		case 2:
			r.Pipeline.File = string(value)
		case 3:
			if len(value) != len(r.Pipeline.SHA256) {
				return fmt.Errorf("a sha256 of %d bytes", len(value))
			}
			copy(r.Pipeline.SHA256[:], value)
		case 4:
			size, n := protowire.ConsumeVarint(value)
			if n < 0 {
				return protowire.ParseError(n)
			}
			r.Pipeline.Size = int64(size)
		case 5:
			return proto.Unmarshal(value, r.Time)
		}
		return nil
	})
	if err == nil && r.Pipeline.Size < 0 {
		err = errors.New("a pipeline of negative size")
	}
	return r, err
}

func appendMessage(b []byte, num protowire.Number, m proto.Message) ([]byte, error) {
	inner, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, inner), nil
}

// eachField calls f with each field of a protobuf message: with the content of a length-delimited one, and with the
// bytes of any other. Fields that f does not know are to be skipped, as protobuf has it.
func eachField(b []byte, f func(num protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		n = protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		value := b[:n]
		if typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b)
		}
		if err := f(num, value); err != nil {
			return fmt.Errorf("field %d: %w", num, err)
		}
		b = b[n:]
	}
	return nil
}
