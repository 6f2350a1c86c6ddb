package journal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// errTorn says that the file ends within a frame.
var errTorn = errors.New("torn tail")

// appendFrame appends a record's frame: length, checksum of the length, checksum of the record, record. The length has
// a checksum of its own so that a damaged one in the middle of the file is told from a frame that was cut short.
func appendFrame(b, record []byte) []byte {
	at := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(record)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:at+4], castagnoli))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(record, castagnoli))
	return append(b, record...)
}

// scanner reads frames up to an end that may move on. It reads nothing beyond the end.
type scanner struct {
	path string
	file io.ReaderAt
	// end is where the file's frames end; start and offset are where the last frame began and ended.
	end, start, offset int64

	read   int64 // how far in has read the file
	in     *bufio.Reader
	record []byte
}

// readBuffer is what each reader of a journal holds, beside one record.
const readBuffer = 8 << 10

func newScanner(path string, file io.ReaderAt, end int64) *scanner {
	s := &scanner{path: path, file: file, end: end}
	s.in = bufio.NewReaderSize((*beforeEnd)(s), readBuffer)
	return s
}

// beforeEnd is a scanner as the reader of its file's bytes before its end.
type beforeEnd scanner

func (s *beforeEnd) Read(p []byte) (int, error) {
	left := s.end - s.read
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := s.file.ReadAt(p[:min(int64(len(p)), left)], s.read)
	s.read += int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// next is the next record; io.EOF at the end, errTorn when the end is within a frame.
func (s *scanner) next() ([]byte, error) {
	if s.offset == 0 {
		if err := s.header(); err != nil {
			return nil, err
		}
	}
	left := s.end - s.offset
	if left == 0 {
		return nil, io.EOF
	}
	if left < frameHeader {
		return nil, errTorn
	}
	s.start = s.offset
	var h [frameHeader]byte
	if _, err := io.ReadFull(s.in, h[:]); err != nil {
		return nil, s.failed(err)
	}
	length := binary.LittleEndian.Uint32(h[0:])
	if binary.LittleEndian.Uint32(h[4:]) != crc32.Checksum(h[:4], castagnoli) {
		// A machine that lost power may leave a file that is longer than what was written to it, filled with zeros.
		zeros, err := s.onlyZeros(h[:])
		switch {
		case err != nil:
			return nil, s.failed(err)
		case zeros:
			return nil, errTorn
		}
		return nil, s.corrupt("the checksum of a record's length is wrong")
	}
	if length > MaxRecord {
		return nil, s.corrupt(fmt.Sprintf("a record of %d bytes, and %d are the most", length, MaxRecord))
	}
	if left-frameHeader < int64(length) {
		return nil, errTorn
	}
	if cap(s.record) < int(length) || cap(s.record) > max(keepBuffer, 2*int(length)) {
		s.record = make([]byte, length)
	}
	s.record = s.record[:length]
	if _, err := io.ReadFull(s.in, s.record); err != nil {
		return nil, s.failed(err)
	}
	if binary.LittleEndian.Uint32(h[8:]) != crc32.Checksum(s.record, castagnoli) {
		if left-frameHeader == int64(length) {
			// The last frame: its length came to the disk and not all of its bytes.
			return nil, errTorn
		}
		return nil, s.corrupt("the checksum of a record is wrong")
	}
	s.offset += frameHeader + int64(length)
	return s.record, nil
}

func (s *scanner) header() error {
	if s.end < int64(headerSize) {
		if s.end == 0 {
			return io.EOF
		}
		return errTorn
	}
	h := make([]byte, headerSize)
	if _, err := io.ReadFull(s.in, h); err != nil {
		return s.failed(err)
	}
	if !bytes.HasPrefix(h, []byte(magic)) {
		// As below: the file had grown, and nothing of it was written.
		zeros, err := s.onlyZeros(h)
		switch {
		case err != nil:
			return s.failed(err)
		case zeros:
			return errTorn
		}
		return s.corrupt("the file is no journal")
	}
	if v := binary.LittleEndian.Uint32(h[len(magic):]); v != Version {
		return s.corrupt(fmt.Sprintf("format version %d, and this Trestle reads version %d", v, Version))
	}
	s.offset = int64(headerSize)
	return nil
}

// onlyZeros tells whether the frame's header and all that follows to the end is zero.
func (s *scanner) onlyZeros(h []byte) (bool, error) {
	for _, b := range h {
		if b != 0 {
			return false, nil
		}
	}
	for {
		b, err := s.in.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return true, nil
		case err != nil:
			return false, err
		case b != 0:
			return false, nil
		}
	}
}

func (s *scanner) corrupt(what string) error {
	return fmt.Errorf("%w: %s at offset %d: %s", ErrCorrupt, s.path, s.offset, what)
}

func (s *scanner) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return s.corrupt("the file is shorter than it was")
	}
	return fmt.Errorf("read %s at offset %d: %w", s.path, s.offset, err)
}
