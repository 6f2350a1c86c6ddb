package kv

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// Frozen is what a store held at one time. It is safe for concurrent use, also while the store changes, and is to be closed
// before the store is.
type Frozen struct{ snapshot *pebble.Snapshot }

// Freeze keeps what has been committed to the store so far readable.
func (s *Store) Freeze() *Frozen { return &Frozen{s.db.NewSnapshot()} }

// Get returns a copy of the value of a key; ok is false when there is none.
func (f *Frozen) Get(key []byte) (value []byte, ok bool, err error) {
	stored, closer, err := f.snapshot.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, broken(err)
	}
	value = append([]byte{}, stored...)
	return value, true, broken(closer.Close())
}

// Scan calls f with the keys from lo on and before hi, in order, until it answers that it wants no more, or fails. When f
// names a key, the keys before that are left out. Key and value are valid until f returns.
func (f *Frozen) Scan(lo, hi []byte, each func(key, value []byte) (from []byte, more bool, err error)) (err error) {
	it, err := f.snapshot.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	if err != nil {
		return broken(err)
	}
	defer func() { err = errors.Join(err, broken(it.Close())) }()
	for ok := it.First(); ok; {
		value, err := it.ValueAndErr()
		if err != nil {
			return broken(err)
		}
		from, more, err := each(it.Key(), value)
		if err != nil || !more {
			return err
		}
		if from != nil {
			ok = it.SeekGE(from)
		} else {
			ok = it.Next()
		}
	}
	return broken(it.Error())
}

// Close lets go of what was kept.
func (f *Frozen) Close() error { return f.snapshot.Close() }

// DropRange removes all keys from lo on and before hi at once, at a cost that does not grow with their number. It leaves a
// mark over which later reads have to go: for a few keys an overlay's DeleteRange is better. No staged change may be of the
// range.
func (s *Store) DropRange(lo, hi []byte) error {
	return broken(s.db.DeleteRange(lo, hi, pebble.NoSync))
}
