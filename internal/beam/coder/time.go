package coder

import "encoding/binary"

// Beam's bounds of time, in milliseconds since the epoch: BeamConstants in beam_runner_api.proto (the microseconds
// of an int64, so that both kinds of SDK can hold them).
const (
	// MinTimestamp is earlier than any element: the watermark before anything happened.
	MinTimestamp int64 = -9223372036854775
	// MaxTimestamp is later than any window's end: the watermark when all input has arrived.
	MaxTimestamp int64 = 9223372036854775
	// EndOfGlobalWindow is the global window's maximal timestamp, one day before MaxTimestamp.
	EndOfGlobalWindow int64 = 9223371950454775
)

// TimestampSize is the size in bytes of an encoded timestamp.
const TimestampSize = 8

// AppendTimestamp appends a timestamp in milliseconds: eight bytes, big-endian, shifted so that their order is the
// order of time (StandardCoders.WINDOWED_VALUE in beam_runner_api.proto).
func AppendTimestamp(dst []byte, millis int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(millis)^(1<<63))
}

// Timestamp decodes the timestamp in the first TimestampSize bytes of b, in milliseconds. b must have as many.
func Timestamp(b []byte) int64 {
	return int64(binary.BigEndian.Uint64(b) ^ (1 << 63))
}
