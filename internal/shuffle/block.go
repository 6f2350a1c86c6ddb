package shuffle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
)

// A spilled block is a header and a payload (see the package's documentation). In the header, length is the payload's size
// in memory, stored its size on disk, crc the CRC-32C of the header before it and of the stored payload. Spill files never outlive their process; the version is there so that a stray one is noticed.
const (
	blockVersion = 1
	blockHeader  = 14

	codecRaw = 0
	codecS2  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type blockInfo struct {
	codec          byte
	length, stored int
}

func parseHeader(h []byte) (blockInfo, error) {
	if len(h) < blockHeader {
		return blockInfo{}, fmt.Errorf("expected a block header of %d bytes, got %d", blockHeader, len(h))
	}
	if h[0] != blockVersion {
		return blockInfo{}, fmt.Errorf("expected block version %d, got %d", blockVersion, h[0])
	}
	length, stored := binary.LittleEndian.Uint32(h[2:]), binary.LittleEndian.Uint32(h[6:])
	if length > math.MaxInt32 || stored > math.MaxInt32 {
		return blockInfo{}, fmt.Errorf("expected a block of at most %d bytes, got %d stored as %d", math.MaxInt32, length, stored)
	}
	info := blockInfo{codec: h[1], length: int(length), stored: int(stored)}
	switch {
	case info.codec != codecRaw && info.codec != codecS2:
		return blockInfo{}, fmt.Errorf("expected codec %d or %d, got %d", codecRaw, codecS2, info.codec)
	case info.codec == codecRaw && info.length != info.stored:
		return blockInfo{}, fmt.Errorf("expected %d stored bytes of an uncompressed block, got %d", info.length, info.stored)
	}
	return info, nil
}

// decodeBlock checks a block's stored payload against its header and returns the payload: stored itself, or decompressed
// into dst when that is large enough.
func decodeBlock(dst, header, stored []byte) ([]byte, error) {
	info, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	if len(stored) != info.stored {
		return nil, fmt.Errorf("expected %d stored bytes, got %d", info.stored, len(stored))
	}
	sum := crc32.Update(crc32.Checksum(header[:10], castagnoli), castagnoli, stored)
	if want := binary.LittleEndian.Uint32(header[10:]); sum != want {
		return nil, fmt.Errorf("checksum is %08x, expected %08x", sum, want)
	}
	if info.codec == codecRaw {
		return stored, nil
	}
	n, err := s2.DecodedLen(stored)
	if err != nil {
		return nil, fmt.Errorf("decompress %d bytes: %w", len(stored), err)
	}
	if n != info.length {
		return nil, fmt.Errorf("expected a compressed block of %d bytes, got %d", info.length, n)
	}
	out, err := s2.Decode(dst[:cap(dst)], stored)
	if err != nil {
		return nil, fmt.Errorf("decompress %d bytes: %w", len(stored), err)
	}
	return out, nil
}

// newBlock returns an empty block for size bytes: room for the header, to which the payload is appended.
func newBlock(size int) []byte { return make([]byte, blockHeader, blockHeader+size) }

// payload is what a block of newBlock holds.
func payload(block []byte) []byte { return block[blockHeader:] }

// spillFile appends blocks to one unlinked file, which is created with the first. Writes are serialised by the owner;
// reads and close may come at any time.
type spillFile struct {
	store *Store
	pos   atomic.Int64

	mu     sync.Mutex
	f      File
	closed bool

	// Compression is worth its CPU only where it saves a good part of the bytes: a block now and then is tried, and
	// as long as they shrink by 30 % the rest follow.
	blocks   int
	compress bool
	scratch  []byte
}

// sampleEvery is how often a block is compressed to see whether it pays: S2 then costs about 1 % on random bytes.
const sampleEvery = 32

// handle returns the file, which it creates when there is none yet.
func (f *spillFile) handle() (File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, ErrClosed
	}
	if f.f == nil {
		h, err := f.store.files.Create(f.store.dir)
		if err != nil {
			return nil, fmt.Errorf("create a spill file in %s: %w", f.store.dir, err)
		}
		f.f = h
	}
	return f.f, nil
}

// append writes a block made with newBlock, whose header it fills in, and returns where it is.
func (f *spillFile) append(block []byte) (off int64, err error) {
	if int64(len(block)) > math.MaxInt32 {
		return 0, fmt.Errorf("spill a record of %d bytes: at most %d are supported", len(block), math.MaxInt32)
	}
	h, err := f.handle()
	if err != nil {
		return 0, err
	}
	out, codec := block, byte(codecRaw)
	if f.compress || f.blocks%sampleEvery == 0 {
		raw := payload(block)
		if need := blockHeader + s2.MaxEncodedLen(len(raw)); cap(f.scratch) < need {
			f.scratch = make([]byte, need)
		}
		packed := s2.Encode(f.scratch[blockHeader:cap(f.scratch)], raw)
		f.compress = len(packed) <= len(raw)*7/10
		if f.compress {
			out, codec = f.scratch[:blockHeader+len(packed)], codecS2
		}
	}
	f.blocks++
	out[0], out[1] = blockVersion, codec
	binary.LittleEndian.PutUint32(out[2:], uint32(len(block)-blockHeader))
	binary.LittleEndian.PutUint32(out[6:], uint32(len(out)-blockHeader))
	sum := crc32.Update(crc32.Checksum(out[:10], castagnoli), castagnoli, payload(out))
	binary.LittleEndian.PutUint32(out[10:], sum)
	off = f.pos.Load()
	if _, err := h.WriteAt(out, off); err != nil {
		if f.isClosed() {
			return 0, ErrClosed
		}
		return 0, f.store.writeError(len(out), err)
	}
	f.pos.Add(int64(len(out)))
	f.store.spilled.Add(int64(len(out)))
	return off, nil
}

// blockReader holds the buffers that one reader of spilled blocks needs.
type blockReader struct {
	in, out []byte
}

// readers keeps the buffers of reads that are done for those to come.
var readers = sync.Pool{New: func() any { return new(blockReader) }}

func takeReader() *blockReader { return readers.Get().(*blockReader) }

// done gives the reader back, unless a huge record has made it large.
func (r *blockReader) done() {
	if cap(r.in) <= 1<<20 && cap(r.out) <= 1<<20 {
		readers.Put(r)
	}
}

// read returns the payload of the block at off, valid until the next call, and where the next block starts.
func (r *blockReader) read(f *spillFile, off int64) (data []byte, next int64, err error) {
	h, err := f.handle()
	if err != nil {
		return nil, 0, err
	}
	fail := func(err error) ([]byte, int64, error) {
		if f.isClosed() || errors.Is(err, os.ErrClosed) {
			return nil, 0, ErrClosed
		}
		return nil, 0, fmt.Errorf("read the block at offset %d of a spill file in %s: %w", off, f.store.dir, err)
	}
	var header [blockHeader]byte
	if _, err := h.ReadAt(header[:], off); err != nil {
		return fail(unexpected(err))
	}
	info, err := parseHeader(header[:])
	if err != nil {
		return fail(err)
	}
	if end := off + blockHeader + int64(info.stored); end > f.end() {
		return fail(fmt.Errorf("expected it to end by %d, got %d", f.end(), end))
	}
	if cap(r.in) < info.stored {
		r.in = make([]byte, info.stored)
	}
	r.in = r.in[:info.stored]
	if _, err := h.ReadAt(r.in, off+blockHeader); err != nil {
		return fail(unexpected(err))
	}
	if data, err = decodeBlock(r.out, header[:], r.in); err != nil {
		return fail(err)
	}
	if info.codec != codecRaw {
		r.out = data
	}
	return data, off + blockHeader + int64(info.stored), nil
}

// unexpected turns an end of file, which no block may reach, into an error that is not taken for an end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// discard gives the space of blocks back that will not be read any more, if the file system can do that; if not, it comes
// back when the file is closed, which is why a failure does not matter.
func (f *spillFile) discard(off, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, ok := f.f.(*os.File); ok && !f.closed {
		_ = punch(h, off, end-off)
	}
}

// end is where the next block will be.
func (f *spillFile) end() int64 { return f.pos.Load() }

func (f *spillFile) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// close frees the file's space. It is idempotent.
func (f *spillFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.f == nil {
		return nil
	}
	if err := f.f.Close(); err != nil {
		return fmt.Errorf("close a spill file in %s: %w", f.store.dir, err)
	}
	return nil
}
