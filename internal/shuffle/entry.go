package shuffle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// KeyGroup is the key group of an encoded key: a number below keyGroups, which must be positive. Key groups follow the
// order of the hash, each has an equal share of it.
func KeyGroup(key []byte, keyGroups int) int { return keyGroup(xxhash.Sum64(key), keyGroups) }

// keyGroup scales the hash's upper half to the number of key groups.
func keyGroup(hash uint64, keyGroups int) int { return int((hash >> 32) * uint64(keyGroups) >> 32) }

// sortOrder makes of a hash the number that entries are sorted by within a partition. The bits that chose the key group,
// alike in one partition, go last.
func sortOrder(hash uint64) uint64 { return bits.RotateLeft64(hash, 32) }

// timestampBias is what Beam adds to a timestamp so that its big-endian bytes sort like the number (the Instant encoding
// of windowed values in beam_runner_api.proto).
const timestampBias = 1 << 63

// appendEntry appends an entry of a keyed block (see the package's documentation).
func appendEntry(b, key, window []byte, timestamp int64, value []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	b = append(binary.AppendUvarint(b, uint64(len(window))), window...)
	b = binary.BigEndian.AppendUint64(b, uint64(timestamp)^timestampBias)
	return append(binary.AppendUvarint(b, uint64(len(value))), value...)
}

// cutEntry returns the size of the entry that b starts with, and that of its prefix: the key and the window with their
// lengths. Lengths must be encoded in as few bytes as possible: then two entries are of one group if their prefixes are
// equal.
func cutEntry(b []byte) (prefix, size int, err error) {
	if prefix = skipPrefixed(b, 0); prefix < 0 {
		return 0, 0, fmt.Errorf("expected a length-prefixed key in %d bytes", len(b))
	}
	if prefix = skipPrefixed(b, prefix); prefix < 0 {
		return 0, 0, fmt.Errorf("expected a length-prefixed window in %d bytes", len(b))
	}
	if prefix+8 > len(b) {
		return 0, 0, fmt.Errorf("expected a timestamp of 8 bytes, got %d", len(b)-prefix)
	}
	if size = skipPrefixed(b, prefix+8); size < 0 {
		return 0, 0, fmt.Errorf("expected a length-prefixed value in %d bytes", len(b)-prefix-8)
	}
	return prefix, size, nil
}

// cutPrefixed returns the bytes at o, after their length, and where they end, which is -1 when b is malformed or
// o is no place in it.
func cutPrefixed(b []byte, o int) (data []byte, end int) {
	if uint(o) < uint(len(b)) && b[o] < 0x80 {
		end = o + 1 + int(b[o])
		if end <= len(b) {
			return b[o+1 : end], end
		}
		return nil, -1
	}
	if uint(o) >= uint(len(b)) {
		return nil, -1
	}
	n, k := binary.Uvarint(b[o:])
	if k <= 0 || b[o+k-1] == 0 || n > uint64(len(b)-o-k) {
		return nil, -1
	}
	return b[o+k : o+k+int(n)], o + k + int(n)
}

func skipPrefixed(b []byte, o int) int {
	if uint(o) < uint(len(b)) && b[o] < 0x80 {
		if o += 1 + int(b[o]); o <= len(b) {
			return o
		}
		return -1
	}
	_, end := cutPrefixed(b, o)
	return end
}

// prefixParts returns an entry's key and window.
func prefixParts(prefix []byte) (key, window []byte) {
	key, o := cutPrefixed(prefix, 0)
	window, _ = cutPrefixed(prefix, o)
	return key, window
}

// comparePrefix orders entries of one hash: by key, then window, each by its bytes.
func comparePrefix(a, b []byte) int {
	if bytes.Equal(a, b) {
		return 0
	}
	ka, wa := prefixParts(a)
	kb, wb := prefixParts(b)
	if c := bytes.Compare(ka, kb); c != 0 {
		return c
	}
	return bytes.Compare(wa, wb)
}

// entryRest returns the timestamp and the value that follow an entry's prefix.
func entryRest(b []byte) (timestamp int64, value []byte) {
	timestamp = int64(binary.BigEndian.Uint64(b) ^ timestampBias)
	value, _ = cutPrefixed(b, 8)
	return timestamp, value
}

// countEntries checks a whole block and counts its entries.
func countEntries(block []byte) (n int, err error) {
	for o := 0; o < len(block); n++ {
		_, size, err := cutEntry(block[o:])
		if err != nil {
			return 0, fmt.Errorf("entry %d at byte %d of a keyed block: %w", n, o, err)
		}
		o += size
	}
	return n, nil
}
