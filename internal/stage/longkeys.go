package stage

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// What a task keeps of a user's key has that key's name in front. A key that is not long is its own name, behind its length. A long
// one would be in each entry's key, which the store holds in memory and writes again and again: its name is a digest, and the key itself
// lies in the store once, as values, as long as there is an entry that it may have to be read for.
const (
	// wholeBytes is how long a key may be to be its own name.
	wholeBytes = 1 << 10
	// keyPiece is how much of a long key is one value: no larger than what the store takes at a time.
	keyPiece = 256 << 10
)

// owner is a user's key whose entries a task has to do with.
type owner struct {
	group int
	name  []byte
	key   []byte // if it is known: it may have been found by its name
	known bool
}

// own makes a key the owner's.
func (k *keyedStore) own(o *owner, key []byte) {
	*o = owner{k.groupOf(key), k.appendKeyName(o.name[:0], key), key, true}
}

// found makes the key of a name the owner's.
func (o *owner) found(group int, name []byte) {
	*o = owner{group: group, name: append(o.name[:0], name...)}
}

// entry begins the key of an entry of the owner's.
func (o *owner) entry(kd kind) []byte { return owned(kd, o.group, o.name) }

// longName begins the name of a long key: a length of zero in two bytes, as no part has it. The key's length and its digest follow.
var longName = []byte{0x80, 0x00}

// appendKeyName appends the name of a key.
func (k *keyedStore) appendKeyName(b, key []byte) []byte {
	if len(key) <= k.whole {
		return appendPart(b, key)
	}
	sum := sha256.Sum256(key)
	b = binary.AppendUvarint(append(b, longName...), uint64(len(key)))
	return append(b, sum[:]...)
}

// isLong tells whether a name is of a long key.
func isLong(name []byte) bool { return bytes.HasPrefix(name, longName) }

// cutKeyName cuts a name off what begins with it; ok is false when b is cut short.
func cutKeyName(b []byte) (name, rest []byte, ok bool) {
	end := len(longName)
	if !isLong(b) {
		_, rest, ok = cutPart(b)
		return b[:len(b)-len(rest)], rest, ok
	}
	_, n := binary.Uvarint(b[end:])
	if end += n + sha256.Size; n <= 0 || end > len(b) {
		return nil, nil, false
	}
	return b[:end:end], b[end:], true
}

// keySize is how many bytes the key of a name has besides the name's: of one that is not long none.
func keySize(name []byte) int {
	if !isLong(name) {
		return 0
	}
	size, _ := binary.Uvarint(name[len(longName):])
	return int(size)
}

// appendEntry begins the key of what a task keeps of a user's key.
func appendEntry(b []byte, kd kind, group int, name []byte) []byte {
	return append(begin(b, kd, group), name...)
}

// owned is appendEntry in bytes of its own, with room for a little more.
func owned(kd kind, group int, name []byte) []byte {
	return appendEntry(make([]byte, 0, max(64, placeBytes+len(name)+32)), kd, group, name)
}

var errKey = errors.New("a user's key in the store is cut short")

// appendKey appends the key that a name is of.
func (k *keyedStore) appendKey(b []byte, group int, name []byte) ([]byte, error) {
	if !isLong(name) {
		key, _, ok := cutPart(name)
		if !ok {
			return b, errKey
		}
		return append(b, key...), nil
	}
	from, size := len(b), keySize(name)
	pieces := owned(kindKey, group, name)
	err := k.over.Scan(pieces, after(pieces), func(_, piece []byte) (bool, error) {
		if len(b)-from+len(piece) > size {
			return false, errKey
		}
		if from+size > cap(b) {
			b = append(make([]byte, 0, from+size+1<<10), b...)
		}
		b = append(b, piece...)
		return true, nil
	})
	if err == nil && len(b)-from != size {
		err = fmt.Errorf("%w: it has %d of %d bytes", errKey, len(b)-from, size)
	}
	return b, err
}

// keep sees to it that a key of a long name can be read.
func (k *keyedStore) keep(group int, name, key []byte) error {
	piece := func(i int) []byte {
		return binary.BigEndian.AppendUint32(owned(kindKey, group, name), uint32(i))
	}
	if known, err := k.over.Has(piece(0)); err != nil || known {
		return err
	}
	if len(key) != keySize(name) {
		return fmt.Errorf("%w: of %d bytes there are none", errKey, keySize(name))
	}
	for i := 0; ; i++ {
		n := min(len(key), keyPiece)
		k.over.Insert(piece(i), bytes.Clone(key[:n]))
		if key = key[n:]; len(key) == 0 {
			return nil
		}
	}
}

// release forgets the key of a long name, unless there is something of the given kinds for which it may have to be read.
func (k *keyedStore) release(group int, name []byte, kinds ...kind) error {
	for _, kd := range kinds {
		of := owned(kd, group, name)
		needed := false
		if err := k.over.Scan(of, after(of), func([]byte, []byte) (bool, error) {
			needed = true
			return false, nil
		}); err != nil || needed {
			return err
		}
	}
	pieces := owned(kindKey, group, name)
	return k.over.DeleteRange(pieces, after(pieces))
}

// reference is the entry by which a queue's entry, whose name is a long key's, is found by that name; nil of another name.
func reference(entry []byte) []byte {
	name, rest, ok := cutKeyName(entry[queueBytes:])
	if !ok || !isLong(name) {
		return nil
	}
	b := append(entry[:placeBytes-1:placeBytes-1], byte(kindRefers))
	b = append(append(b, name...), entry[placeBytes-1:queueBytes]...)
	return append(b, rest...)
}
