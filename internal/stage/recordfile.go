package stage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
)

// recordFileVersion is the first byte of a file of records in a snapshot (docs/formats/snapshot.md).
const recordFileVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeRecordFile makes a file of the records that each calls its argument with.
func writeRecordFile(path string, each func(add func(record []byte) error) error) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := crc32.New(castagnoli)
	w := bufio.NewWriter(io.MultiWriter(f, sum))
	if err := w.WriteByte(recordFileVersion); err != nil {
		return err
	}
	add := func(record []byte) error {
		if _, err := w.Write(binary.AppendUvarint(nil, uint64(len(record)))); err != nil {
			return err
		}
		_, err := w.Write(record)
		return err
	}
	if err := each(add); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = f.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// readRecordFile calls each with the records of a file; there is none in a file that is not there. A file that is not as it
// was written is an error, also when some of its records have been read.
func readRecordFile(path string, each func(record []byte) error) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	const sumBytes = 4
	r := &summing{left: info.Size() - sumBytes, r: bufio.NewReader(f), sum: crc32.New(castagnoli)}
	version, err := r.ReadByte()
	if err != nil || version != recordFileVersion {
		return fmt.Errorf("%s has format %d, this version of Trestle reads %d: %w", path, version, recordFileVersion, errors.Join(err, errSnapshotFormat))
	}
	for r.left > 0 {
		size, err := binary.ReadUvarint(r)
		if err != nil || int64(size) > r.left {
			return fmt.Errorf("%s: %w", path, errSnapshotFormat)
		}
		record := make([]byte, size)
		if _, err := io.ReadFull(r, record); err != nil {
			return fmt.Errorf("%s: %w", path, errors.Join(err, errSnapshotFormat))
		}
		if err := each(record); err != nil {
			return err
		}
	}
	var stored [sumBytes]byte
	if _, err := io.ReadFull(r.r, stored[:]); err != nil || binary.LittleEndian.Uint32(stored[:]) != r.sum.Sum32() {
		return fmt.Errorf("%s does not read back as it was written: %w", path, errSnapshotFormat)
	}
	return nil
}

var errSnapshotFormat = errors.New("a snapshot cannot be read")

// summing reads a part of a file, and sums it up.
type summing struct {
	left int64
	r    *bufio.Reader
	sum  hash.Hash32
}

func (s *summing) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := s.r.Read(b[:min(int64(len(b)), s.left)])
	s.left -= int64(n)
	s.sum.Write(b[:n])
	return n, err
}

func (s *summing) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(s, b[:])
	return b[0], err
}
